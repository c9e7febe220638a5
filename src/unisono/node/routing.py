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
from dataclasses import dataclass
from typing import Protocol

from unisono.control.records import Service
from unisono.gateway.errors import GatewayError, Outdated, Unbound, Unreachable
from unisono.gateway.table import Backend, Listener, Retry, Rule, Table, Target
from unisono.spec.model import ServiceSpec

_log = logging.getLogger(__name__)

_RETRY_SECONDS_MIN = 0.02  # a dead gateway is started again within a few hundredths of a second
_RETRY_SECONDS_MAX = 1.0
_PUSH_SECONDS_MAX = 10.0  # a gateway that takes longer hangs
_UNBOUND_SECONDS = 2.0  # until an address that could not be bound is tried again


class GatewayControl(Protocol):
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


@dataclass(frozen=True, kw_only=True)
class Routed:
    """A service as routing needs it: its record, and the spec of the revision that should run."""

    service: Service
    spec: ServiceSpec

    @property
    def name(self) -> str:
        """Its name in the table."""
        return f"{self.service.application}/{self.service.name}"


def build_table(
    version: int,
    services: Iterable[Routed],
    targets: Mapping[str, Iterable[Target]],
    public_address: str,
    *,
    without: Iterable[str] = (),
) -> Table:
    """
    The table of these services, with ``targets`` by "application/service".

    Every service that serves answers at its own internal address, at the ports it publishes, and where
    its routes say at the public address. Listeners at the addresses of ``without`` are left out.
    """
    rules: dict[str, list[Rule]] = {}
    backends: dict[str, Backend] = {}
    for routed in sorted(services, key=lambda routed: routed.name):
        spec, name = routed.spec, routed.name
        if not spec.serves:
            continue
        rules.setdefault(f"127.0.0.1:{routed.service.internal_port}", []).append(Rule(service=name))
        for port in spec.ports:
            host = f"[{port.host_ip}]" if ":" in port.host_ip else port.host_ip
            rules.setdefault(f"{host}:{port.port}", []).append(Rule(service=name))
        for route in spec.routes:
            rule = Rule(service=name, path=route.path, host=route.host)
            rules.setdefault(public_address, []).append(rule)
        backends[name] = Backend(
            targets=tuple(sorted(targets.get(name, ()), key=lambda target: target.id)),
            concurrency=spec.concurrency,
            timeout_ms=None if spec.timeout is None else max(1, round(spec.timeout * 1000)),
            retry=Retry(attempts=spec.attempts),
        )
    listeners = tuple(
        Listener(address=address, rules=tuple(sorted(of, key=_precedence)))
        for address, of in sorted(rules.items())
        if address not in set(without)
    )
    return Table(version=version, listeners=listeners, services=backends)


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
        tell: Callable[[str, str], None] = lambda kind, message: None,
    ) -> None:
        """``tell`` is called with kind and message of what users should know."""
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
        if self._confirmed >= self._changes:
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
