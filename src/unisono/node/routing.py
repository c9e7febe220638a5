"""
Routing: which requests go where, as the gateway is to follow it.

:func:`build_table` is pure: services, their specs and the instances that are ready give a table.
:class:`Routing` brings tables to the gateway: many changes become one push, and whoever has to know waits
until the gateway has confirmed a table that holds the change. How the gateway is spoken to is
:mod:`unisono.gateway.link`'s.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol

from unisono.gateway.errors import GatewayError, Outdated, Unbound, Unreachable
from unisono.gateway.table import AccessLog, Backend, Certificate, Listener, Rule, Table, Target, Tls
from unisono.node.hearing import Speaker
from unisono.node.treating import Routed, backend
from unisono.spec import requests as spec_of

_log = logging.getLogger(__name__)

_RETRY_SECONDS_MIN = 0.02  # a dead gateway is started again within a few hundredths of a second
_RETRY_SECONDS_MAX = 1.0
_PUSH_SECONDS_MAX = 10.0  # a gateway that takes longer hangs
_UNBOUND_SECONDS = 2.0  # until an address that could not be bound is tried again


class GatewayControl(Speaker, Protocol):
    """What the node asks of the gateway."""

    def alive(self) -> bool:
        """Whether a gateway process is known to live."""

    async def put_table(self, table: Table) -> None:
        """
        Have the gateway follow this table; on return every request from now on does.

        Raises:
            unisono.gateway.errors.GatewayError: As sorted there.
        """

    async def drained(self, instance: str, generation: int, timeout: float) -> int:  # noqa: ASYNC109
        """
        Wait until an instance has no request left, at most ``timeout`` seconds; how many it has.

        Raises:
            unisono.gateway.errors.GatewayError: As sorted there.
        """


def build_table(
    version: int,
    services: Iterable[Routed],
    targets: Mapping[str, Iterable[Target]],
    public_address: str,
    *,
    without: Iterable[str] = (),
    access_log: AccessLog | None = None,
) -> Table:
    """
    The table of these services, with ``targets`` by "application/service".

    Every service that serves answers at its own internal address, at the ports it publishes, and where
    its routes say at the public address. Listeners at the addresses of ``without`` are left out.
    """
    listeners: dict[str, _Open] = {}
    backends: dict[str, Backend] = {}
    serving = {routed.name: routed for routed in services if routed.spec.serves}
    for name, routed in sorted(serving.items()):
        spec = routed.spec
        own = Rule(service=name)
        listeners.setdefault(f"127.0.0.1:{routed.service.internal_port}", _Open()).add(own, spec.mode)
        for port in spec.ports:
            host = f"[{port.host_ip}]" if ":" in port.host_ip else port.host_ip
            certificates = port.tls.certificates if port.tls else ()
            authority = port.tls.client_ca if port.tls else None
            opened = listeners.setdefault(f"{host}:{port.port}", _Open())
            opened.add(own, spec.mode, certificates, authority)
        for route in spec.routes:
            rule = Rule(service=name, path=route.path, host=route.host, priority=route.priority)
            listeners.setdefault(public_address, _Open()).add(rule, certificates=spec.tls)
        of_service = tuple(sorted(targets.get(name, ()), key=lambda target: target.id))
        backends[name] = backend(routed, of_service, serving.keys())
    closed = set(without)
    return Table(
        version=version,
        listeners=tuple(opened.at(a) for a, opened in sorted(listeners.items()) if a not in closed),
        services=backends,
        access_log=access_log,
    )


@dataclass
class _Open:
    """A listener in the making; what it speaks is what the first who wants it there says."""

    rules: list[Rule] = field(default_factory=list)
    mode: Literal["http", "tcp"] = "http"
    certificates: dict[spec_of.Certificate, None] = field(default_factory=dict)
    client_ca: str | None = None

    def add(
        self,
        rule: Rule,
        mode: Literal["http", "tcp"] = "http",
        certificates: Iterable[spec_of.Certificate] = (),
        client_ca: str | None = None,
    ) -> None:
        """One more rule; the same once more changes nothing, and beside a tcp one there is no room."""
        if not self.rules:
            self.mode = mode
        if rule not in self.rules and (not self.rules or "tcp" not in (mode, self.mode)):
            self.rules.append(rule)
        self.certificates.update(dict.fromkeys(certificates))
        self.client_ca = self.client_ca or client_ca

    def at(self, address: str) -> Listener:
        """The listener as the gateway is to open it."""
        certificates = tuple(Certificate(certificate=c.certificate, key=c.key) for c in self.certificates)
        return Listener(
            address=address,
            rules=tuple(sorted(self.rules, key=_precedence)),
            mode=self.mode,
            tls=Tls(certificates=certificates, client_ca=self.client_ca) if certificates else None,
        )


def _precedence(rule: Rule) -> tuple[bool, int, str, str]:
    """Rules with a host before those for any, longer paths first."""
    return rule.host is None, -len(rule.path), rule.path, rule.host or ""


class Routing:
    """
    Keeps the gateway's table true.

    Changes are taken note of at once and pushed by :meth:`run`; nothing is pushed before :meth:`open`, so
    that a restarted node does not take instances out that it has yet to find.
    """

    def __init__(
        self,
        gateway: GatewayControl,
        public_address: str,
        *,
        access_log: AccessLog | None = None,
        tell: Callable[[str, str], None] = lambda kind, message: None,
    ) -> None:
        """``tell`` is called with kind and message of what users should know."""
        self._access_log = access_log
        self._gateway = gateway
        self._public_address = public_address
        self._tell = tell
        self._services: dict[str, Routed] = {}
        self._targets: dict[str, dict[str, Target]] = {}
        self._unbound: dict[str, str] = {}
        self._told: dict[str, str] = {}
        self._opened = asyncio.Event()
        self._changed = asyncio.Event()
        # Versions rise over restarts of the node, too; should the clock have gone back, the gateway says so.
        self._pushed = int(time.time() * 1000)
        self._changes = 1  # counts changes; a push covers all that were made before it was built
        self._confirmed = 0
        self._waiters: dict[asyncio.Future[None], int] = {}
        self.table: Table | None = None  # the last one confirmed

    @property
    def current(self) -> bool:
        """Whether the gateway follows all that was noted."""
        return self._confirmed >= self._changes

    @property
    def unbound(self) -> Mapping[str, str]:
        """Where the gateway should listen and can't, and why not."""
        return self._told

    def open(self) -> None:
        """From now on the table is whole: push it."""
        self._opened.set()
        self._changed.set()

    def set_service(self, routed: Routed) -> None:
        """Take note of a service, or of a change to it."""
        if self._services.get(routed.name) != routed:
            self._services[routed.name] = routed
            self._note()

    def service(self, application: str, service: str) -> Routed | None:
        """What is known of a service."""
        return self._services.get(f"{application}/{service}")

    def remove_service(self, application: str, service: str) -> None:
        """Forget a service; unknown ones are no error."""
        if self._services.pop(f"{application}/{service}", None) is not None:
            self._note()

    def publish(self, service: str, target: Target) -> None:
        """Send requests of ``service`` ("application/service") to this target, too."""
        of_service = self._targets.setdefault(service, {})
        if of_service.get(target.id) != target:
            of_service[target.id] = target
            self._note()

    def withdraw(self, service: str, id: str) -> None:
        """Send no more requests to this target; one that is not in the table is no error."""
        if self._targets.get(service, {}).pop(id, None) is not None:
            self._note()

    def push_again(self) -> None:
        """Push although nothing changed: there is a new gateway."""
        self._note()

    async def confirmed(self) -> None:
        """
        Wait until the gateway follows everything that was noted before this call.

        If no gateway process lives, no request can be sent against it: then this does not wait.
        """
        if self.current:
            return
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters[future] = self._changes
        try:
            await future
        finally:
            self._waiters.pop(future, None)

    async def drained(self, instance: str, generation: int, timeout: float) -> int:  # noqa: ASYNC109
        """
        How many requests an instance has left, as soon as it is none, or after ``timeout`` seconds.

        A gateway that is gone has taken its requests with it.
        """
        deadline = asyncio.get_running_loop().time() + timeout
        try:
            async with asyncio.timeout_at(deadline + _RETRY_SECONDS_MAX):
                return await self._gateway.drained(instance, generation, timeout)
        except (GatewayError, OSError) as error:
            _log.warning("can't learn whether %s is drained: %s", instance, error)
            return 0
        except TimeoutError:
            return 1

    async def run(self) -> None:
        """Push tables until cancelled."""
        await self._opened.wait()
        wait = _RETRY_SECONDS_MIN
        while True:
            try:
                async with asyncio.timeout(_UNBOUND_SECONDS if self._unbound else None):
                    await self._changed.wait()
            except TimeoutError:
                self._unbound.clear()
            self._changed.clear()
            try:
                await self._push()
            except (GatewayError, OSError) as error:
                level = logging.DEBUG if isinstance(error, Unreachable | OSError) else logging.ERROR
                _log.log(level, "the gateway did not take the table: %s", error)
                self._changed.set()
                if not self._gateway.alive():
                    self._release(self._changes)
                await asyncio.sleep(wait)
                wait = min(wait * 2, _RETRY_SECONDS_MAX)
            else:
                wait = _RETRY_SECONDS_MIN

    async def _push(self) -> None:
        covers = self._changes
        while True:
            self._pushed += 1
            table = build_table(
                self._pushed,
                self._services.values(),
                {name: targets.values() for name, targets in self._targets.items()},
                self._public_address,
                without=self._unbound,
                access_log=self._access_log,
            )
            try:
                async with asyncio.timeout(_PUSH_SECONDS_MAX):
                    await self._gateway.put_table(table)
            except Outdated as error:
                self._pushed = max(self._pushed, error.version)
            except Unbound as error:
                # One port that is taken must not keep all other changes from the gateway.
                if not error.addresses.keys() - self._unbound.keys():
                    raise
                self._unbound |= error.addresses
            else:
                break
        for address, reason in self._unbound.items():
            if self._told.get(address) != reason:
                self._tell("listener-unbound", f"the gateway can't listen at {address}: {reason}")
        self._told = dict(self._unbound)
        self.table = table
        self._confirmed = max(self._confirmed, covers)
        self._release(covers)

    def _note(self) -> None:
        self._changes += 1
        self._changed.set()

    def _release(self, covers: int) -> None:
        for future, needs in list(self._waiters.items()):
            if needs <= covers and not future.done():
                future.set_result(None)
