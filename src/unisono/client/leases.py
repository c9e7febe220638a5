"""
Holding on: a lease that is kept alive while its block runs, and a block that lives no longer than its lease.

Loss is announced a fifth of the time to live *before* the lease can end by this process's own clock,
whatever the node answers or does not answer: then ``lost`` is set, the block is cancelled, and leaving it
raises Lost.
On this machine a lease also ends with its process, so whoever waits need not wait for the time to be over.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType

from unisono.client.connecting import Connection
from unisono.client.errors import Lost, NodeError
from unisono.client.insisting import insist
from unisono.client.questions import Ask, Steps

MIN_TTL = 0.1

_RENEWALS = 3  # times within a ttl
_RETRIES = 12  # times within a ttl, after a renewal that failed
_MARGIN = 0.2  # of the ttl: loss is announced that long before the lease may end
_GOODBYE = 5.0  # seconds that giving back may take; what is not given back by then ends by itself


def clock() -> float:
    """Seconds since boot; goes on while the machine sleeps, as the leases do."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


@dataclass
class Term:
    """How long a lease surely lives: ``ttl`` seconds from when its last renewal was asked for."""

    ttl: float
    asked: float

    def remaining(self) -> float:
        """Seconds until loss is to be announced; at most 0 from then on."""
        return self.asked + self.ttl * (1 - _MARGIN) - clock()


def grant(ttl: float, *, local: bool) -> Steps[str]:
    """The id of a new lease, bound to this process where the node can see it; repeats leave some to end."""
    body: dict[str, object] = {"ttl_ms": round(ttl * 1000)}
    if local:
        body["pid"] = os.getpid()
    told = yield from insist(Ask(method="POST", path="/v1/leases", body=body), patience=ttl)
    return str(told.content["lease"])


def renew(lease: str) -> Steps[None]:
    """Start its time anew, asked once."""
    yield from insist(Ask(method="POST", path=f"/v1/leases/{lease}:keepalive"), patience=0)


def end(lease: str) -> Steps[None]:
    """End it, and what is held by it."""
    yield from insist(Ask(method="DELETE", path=f"/v1/leases/{lease}"), patience=_GOODBYE)


def check_ttl(ttl: float) -> None:
    """Refuse what can't be a time to live."""
    if not ttl >= MIN_TTL:
        raise ValueError(f"ttl is {ttl} s, must be at least {MIN_TTL} s")


class KeptLease:
    """
    A lease for an ``async with`` block; ``id`` is there once it was entered.

    Entering raises Lost when granting took so long that loss would have to be announced at once, and what
    :func:`unisono.client.insisting.insist` does.
    """

    def __init__(self, connection: Connection, ttl: float) -> None:
        check_ttl(ttl)
        self.id = ""
        self.ttl = ttl
        self.lost = asyncio.Event()
        self.reason = ""
        self._connection = connection
        self._term = Term(ttl, clock())
        self._watchdog: asyncio.TimerHandle | None = None
        self._renewal: asyncio.Task[None] | None = None
        self._owner: asyncio.Task[object] | None = None
        self._cancelling = 0
        self._interrupted = False

    @property
    def remaining(self) -> float:
        """Seconds for which it is surely held; 0 once it is lost."""
        left = self._term.remaining()
        if left <= 0:
            self._lose(f"not renewed for {self.ttl * (1 - _MARGIN):g} of its {self.ttl:g} s")
        return 0.0 if self.lost.is_set() else left

    def check(self) -> None:
        """
        Pass only while it is surely held; asks the clock alone, never waits.

        Raises:
            Lost: It is held no more, or may not be.
        """
        if self.remaining <= 0:
            raise Lost(f"lease {self.id} is lost: {self.reason}")

    async def __aenter__(self) -> KeptLease:
        asked = clock()
        self.id = await self._connection.carry_out(grant(self.ttl, local=self._connection.is_local))
        # A repeat was granted later than the first request for it was sent, never earlier.
        self._term.asked = asked
        if self.remaining <= 0:
            await self._give_back()
            raise Lost(f"lease {self.id} is lost: granting it took nearly all of its {self.ttl:g} s")
        self._owner = asyncio.current_task()
        self._cancelling = self._owner.cancelling() if self._owner is not None else 0
        self._watch()
        self._renewal = asyncio.create_task(self._renew(), name=f"unisono-lease-{self.id}")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _ = self.remaining  # a block that was stopped past the end has lost it, though nobody could say so
        owner, self._owner = self._owner, None
        if self._watchdog is not None:
            self._watchdog.cancel()
        if self._renewal is not None:
            self._renewal.cancel()
        await self._give_back()
        others = False
        if self._interrupted and owner is not None:
            others = owner.uncancel() > self._cancelling  # somebody else cancelled it as well: that goes on
        cancelled = kind is not None and issubclass(kind, asyncio.CancelledError)
        if self.lost.is_set() and (kind is None or (cancelled and self._interrupted and not others)):
            raise Lost(f"lease {self.id} is lost: {self.reason}") from error

    async def _give_back(self) -> None:
        """End it, also when cancelled meanwhile."""
        goodbye = asyncio.ensure_future(self._end())
        try:
            await asyncio.shield(goodbye)
        except asyncio.CancelledError:
            await asyncio.wait([goodbye])
            raise

    async def _end(self) -> None:
        with suppress(NodeError, TimeoutError):
            async with asyncio.timeout(_GOODBYE):
                await self._connection.carry_out(end(self.id))

    def _watch(self) -> None:
        """Look again when loss would have to be announced: a renewal that never answers can't prevent it."""
        left = self.remaining
        if left > 0:
            self._watchdog = asyncio.get_running_loop().call_later(left, self._watch)

    async def _renew(self) -> None:
        pause = self.ttl / _RENEWALS
        while not self.lost.is_set():
            await asyncio.sleep(pause)
            pause = self.ttl / _RETRIES
            asked = clock()
            try:
                async with asyncio.timeout(self.ttl / _RENEWALS):
                    await self._connection.carry_out(renew(self.id))
            except Lost as error:
                self._lose(str(error))
            except (NodeError, TimeoutError):
                continue  # the watchdog ends this
            else:
                self._term.asked = asked
                pause = self.ttl / _RENEWALS

    def _lose(self, reason: str) -> None:
        if self.lost.is_set():
            return
        self.reason = reason
        self.lost.set()
        if self._owner is not None and self._owner is not _current_task():
            self._interrupted = True
            self._owner.cancel()


class KeptLeaseSync:
    """
    A lease for a ``with`` block, kept alive by a thread.

    A block can't be cancelled from outside: ask :meth:`check` before each step that must not happen twice.
    """

    def __init__(self, connection: Connection, ttl: float) -> None:
        check_ttl(ttl)
        self.id = ""
        self.ttl = ttl
        self.lost = threading.Event()
        self.reason = ""
        self._connection = connection
        self._term = Term(ttl, clock())
        self._ended = threading.Event()
        self._renewal: threading.Thread | None = None

    @property
    def remaining(self) -> float:
        """Seconds for which it is surely held; 0 once it is lost."""
        left = self._term.remaining()
        if left <= 0 and not self.lost.is_set():
            self._lose(f"not renewed for {self.ttl * (1 - _MARGIN):g} of its {self.ttl:g} s")
        return 0.0 if self.lost.is_set() else left

    def check(self) -> None:
        """As :meth:`KeptLease.check`."""
        if self.remaining <= 0:
            raise Lost(f"lease {self.id} is lost: {self.reason}")

    def __enter__(self) -> KeptLeaseSync:
        asked = clock()
        self.id = self._connection.carry_out_sync(grant(self.ttl, local=self._connection.is_local))
        self._term.asked = asked
        if self.remaining <= 0:
            self._give_back()
            raise Lost(f"lease {self.id} is lost: granting it took nearly all of its {self.ttl:g} s")
        self._renewal = threading.Thread(target=self._renew, name=f"unisono-lease-{self.id}", daemon=True)
        self._renewal.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _ = self.remaining
        self._ended.set()
        self._give_back()
        if self.lost.is_set() and kind is None:
            raise Lost(f"lease {self.id} is lost: {self.reason}")

    def _give_back(self) -> None:
        with suppress(NodeError):
            self._connection.carry_out_sync(end(self.id))

    def _renew(self) -> None:
        pause = self.ttl / _RENEWALS
        while not self._ended.wait(min(pause, max(0.0, self.remaining))):
            if self.lost.is_set():
                return
            asked = clock()
            try:
                self._connection.carry_out_sync(renew(self.id))
            except Lost as error:
                self._lose(str(error))
            except NodeError:
                pause = self.ttl / _RETRIES
            else:
                self._term.asked = asked
                pause = self.ttl / _RENEWALS

    def _lose(self, reason: str) -> None:
        self.reason = self.reason or reason
        self.lost.set()


def _current_task() -> asyncio.Task[object] | None:
    try:
        return asyncio.current_task()
    except RuntimeError:
        return None
