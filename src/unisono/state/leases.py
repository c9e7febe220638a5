"""
Leases as shared state needs them: kept alive while something is held, or shared by what should expire.

A :class:`KeptLease` knows by its own monotonic clock when its lease may have ended, and says so *before*
that moment, whatever the store answers or does not answer. A :class:`LeasePool` gives many keys of one time
to live one lease, so that a key that expires costs no write of its own.

What is held under a lease is :mod:`.locks`' and :mod:`.quotas`' to know.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Any

from unisono.state.errors import Lost
from unisono.store.base import MAX_TTL, Broken, LeaseEnded, MaybeDone, NotDone, Store, StoreError

Clock = Callable[[], float]
"""Seconds of a clock that never goes back; its zero means nothing."""

CLEANUP_SECONDS = 5.0
"""How long giving back may take; what is not given back by then ends with its lease."""

MIN_KEPT_TTL = 0.1
"""Seconds; below that a lease can't be kept alive in earnest."""

_RENEWALS = 3  # times within a ttl
_RETRIES = 12  # times within a ttl, after a renewal whose outcome is unknown
_MARGIN = 0.2  # of the ttl: loss is announced that long before the lease may end
_REVOKE_ATTEMPTS = 3

_cleanups: set[asyncio.Task[Any]] = set()  # the loop itself keeps only weak references


def monotonic() -> float:
    """Seconds since boot; goes on while the machine sleeps, as the leases in a store elsewhere do."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class KeptLease:
    """
    A lease that lives as long as its ``async with`` block, and a block that lives no longer than its lease.

    When the lease is lost, or can't be renewed in time, :attr:`lost` is set, the block is cancelled, and
    leaving it raises :class:`Lost`. That happens a fifth of ``ttl`` before the lease can end by this
    process's clock. On leaving the lease is revoked, also when the block failed or was cancelled.

    Args:
        ttl: Seconds, from MIN_KEPT_TTL to the store's MAX_TTL.
        clock: Must run while this process is stopped.

    Raises (on entering):
        StoreError: No lease was granted, or too late to be of use (Lost); none is left behind.
        ValueError: ``ttl`` is out of range.
    """

    def __init__(self, store: Store, ttl: float, *, clock: Clock = monotonic) -> None:
        if not MIN_KEPT_TTL <= ttl <= MAX_TTL:
            raise ValueError(f"ttl is {ttl} s, must lie between {MIN_KEPT_TTL} s and {MAX_TTL:.0f} s")
        self.id = 0
        self.ttl = ttl
        self.lost = asyncio.Event()
        self.reason = ""
        self._store = store
        self._clock = clock
        self._ends = 0.0  # the earliest moment at which the lease can have ended
        self._watchdog: asyncio.TimerHandle | None = None
        self._renewal: asyncio.Task[None] | None = None
        self._owner: asyncio.Task[Any] | None = None
        self._cancelling = 0
        self._interrupted = False

    @property
    def remaining(self) -> float:
        """Seconds until loss is announced unless the lease is renewed; 0 once it is lost."""
        if not self.lost.is_set() and self._clock() >= self._announce_at:
            self._lose(f"not renewed for {self.ttl * (1 - _MARGIN):g} of its {self.ttl:g} s")
        return 0.0 if self.lost.is_set() else self._announce_at - self._clock()

    def check(self) -> None:
        """
        Pass only while the lease is surely held; never waits.

        Raises:
            Lost: It is lost. Asks the clock: a process that was stopped and goes on learns it here, even
                before :attr:`lost` could be set.
        """
        if self.remaining <= 0:
            raise Lost(f"lease {self.id} is lost: {self.reason}")

    async def __aenter__(self) -> KeptLease:
        asked = self._clock()
        self.id = await grant(self._store, self.ttl)
        self._ends = asked + self.ttl
        if self.remaining <= 0:
            await finish(revoke(self._store, self.id))
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
        owner, self._owner = self._owner, None  # nobody is left to be cancelled
        if self._watchdog is not None:
            self._watchdog.cancel()
        await finish(self._give_back())
        others = False
        if self._interrupted and owner is not None:
            others = owner.uncancel() > self._cancelling  # somebody else cancelled it as well: that goes on
        cancelled = kind is not None and issubclass(kind, asyncio.CancelledError)
        if self.lost.is_set() and (kind is None or (cancelled and self._interrupted and not others)):
            raise Lost(f"lease {self.id} is lost: {self.reason}") from error

    async def _give_back(self) -> None:
        if self._renewal is not None:
            self._renewal.cancel()
            await asyncio.wait([self._renewal])
        await revoke(self._store, self.id)

    @property
    def _announce_at(self) -> float:
        return self._ends - self.ttl * _MARGIN

    def _watch(self) -> None:
        """Look again when loss would have to be announced: a renewal that never answers can't prevent it."""
        if self.remaining > 0:
            loop = asyncio.get_running_loop()
            self._watchdog = loop.call_later(self._announce_at - self._clock(), self._watch)

    async def _renew(self) -> None:
        pause = self.ttl / _RENEWALS
        while not self.lost.is_set():
            await asyncio.sleep(pause)
            pause = self.ttl / _RETRIES
            asked = self._clock()
            try:
                async with asyncio.timeout(self.ttl / _RENEWALS):
                    await self._store.keep_alive(self.id)
            except (LeaseEnded, Broken) as error:
                self._lose(str(error))
            except (NotDone, MaybeDone, TimeoutError):
                continue  # the watchdog ends this
            else:
                # From when it was asked for: the store counts from a later moment.
                self._ends = max(self._ends, asked + self.ttl)
                pause = self.ttl / _RENEWALS

    def _lose(self, reason: str) -> None:
        if self.lost.is_set():
            return
        self.reason = reason
        self.lost.set()
        if self._owner is not None and self._owner is not _current_task():
            self._interrupted = True
            self._owner.cancel()


class LeasePool:
    """
    One lease for all keys that should live equally long and are put at about the same time.

    A key put with a lease from here lives for its time to live, and up to a sixteenth longer. So many
    short-lived keys cost one lease a while, not one each.
    """

    _SLACK = 1 / 16
    _TTLS_MAX = 256  # different ones, remembered

    MAX_TTL = MAX_TTL / (1 + _SLACK)

    def __init__(self, store: Store, *, clock: Clock = monotonic) -> None:
        self._store = store
        self._clock = clock
        self._leases: dict[float, tuple[int, float]] = {}  # by ttl: the lease, until when it may be given
        self._granting = asyncio.Lock()

    async def lease(self, ttl: float, *, instead_of: int | None = None) -> int:
        """
        A lease that lives for at least ``ttl`` seconds from now, and is not ``instead_of``.

        Raises:
            ValueError: ``ttl`` is not above 0 or is above MAX_TTL.
            StoreError: No lease could be had.
        """
        if not 0 < ttl <= self.MAX_TTL:
            raise ValueError(f"ttl is {ttl} s, must be above 0 s and at most {self.MAX_TTL:.0f} s")
        async with self._granting:
            lease, until = self._leases.get(ttl, (0, 0.0))
            now = self._clock()
            if lease and now < until and lease != instead_of:
                return lease
            if len(self._leases) >= self._TTLS_MAX:
                self._leases = {key: value for key, value in self._leases.items() if now < value[1]}
            if len(self._leases) >= self._TTLS_MAX:
                self._leases.clear()
            lease = await self._store.grant(ttl * (1 + self._SLACK))
            self._leases[ttl] = (lease, now + ttl * self._SLACK)
            return lease


async def grant(store: Store, ttl: float) -> int:
    """
    A new lease, or none: cancelled in between, the lease that was still granted is revoked.

    Raises:
        StoreError: None was granted.
    """
    granting = asyncio.ensure_future(store.grant(ttl))
    try:
        return await asyncio.shield(granting)
    except asyncio.CancelledError:
        await finish(_take_back(store, granting))
        raise


async def revoke(store: Store, lease: int) -> None:
    """End a lease; if the store fails at it three times, the lease is left to end by itself."""
    for _ in range(_REVOKE_ATTEMPTS):
        try:
            await store.revoke(lease)
        except Broken:
            return
        except StoreError:
            continue
        return


async def finish(cleanup: Awaitable[None]) -> None:
    """Let a cleanup end in spite of cancellation, but wait at most CLEANUP_SECONDS for it."""
    task = asyncio.ensure_future(cleanup)
    _cleanups.add(task)
    task.add_done_callback(_cleanups.discard)
    await asyncio.wait([task], timeout=CLEANUP_SECONDS)


async def _take_back(store: Store, granting: asyncio.Future[int]) -> None:
    try:
        lease = await granting
    except (StoreError, asyncio.CancelledError):
        return
    await revoke(store, lease)


def _current_task() -> asyncio.Task[Any] | None:
    try:
        return asyncio.current_task()
    except RuntimeError:
        return None
