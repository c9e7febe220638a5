"""
Locks and semaphores: held under a lease, handed over in order, each with a fencing token.

A lock keeps two *honest* holders apart. A holder that was stopped, or cut off, may believe in a lock that
has long gone to another; only the thing the lock protects can refuse it. So give :attr:`Held.token` along
with every write and refuse there whatever is lower than one seen before; for writes to shared state, give
:attr:`Held.fence` as a fence.

Sources: M. Kleppmann, "How to do distributed locking" (2016); Jepsen, etcd 3.4.3 (2020), on locks.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from unisono.state.errors import NotAcquired
from unisono.state.leases import Clock, KeptLease, monotonic
from unisono.state.line import Line, Place
from unisono.state.names import namespace_prefix
from unisono.store.base import Compare, Store

MAX_PERMITS = 1_000_000


class Held:
    """
    Something that is held, from the moment it is acquired to the end of its ``async with`` block.

    The block is cancelled, and then raises Lost, a fifth of the ttl before the lease can end.
    """

    def __init__(self, place: Place, lease: KeptLease) -> None:
        self._place = place
        self._lease = lease

    @property
    def token(self) -> int:
        """The fencing token: higher than that of every holder before, in any order of failures."""
        return self._place.token

    @property
    def fence(self) -> Compare:
        """For a write to the same store that may happen only while this is held."""
        return self._place.fence

    @property
    def lost(self) -> asyncio.Event:
        """Set as soon as this is lost, or could be a moment from now."""
        return self._lease.lost

    @property
    def remaining(self) -> float:
        """Seconds for which this is surely held, without any renewal."""
        return self._lease.remaining

    def check(self) -> None:
        """
        Pass only while this is surely held; asks the clock alone, never waits.

        Raises:
            Lost: It is held no more, or may not be.
        """
        self._lease.check()


class Locks:
    """
    One namespace's locks and semaphores.

    ``ttl`` is how long, in seconds, others wait after a holder has died; ``wait`` how long to wait for
    others, ``None`` for ever, 0 not at all. A lock is not reentrant. Locks and semaphores of one name have
    nothing to do with each other.

    Entering such a block raises:
        NotAcquired: Others still had it when ``wait`` was over.
        Lost: The lease was lost while waiting.
        MaybeDone, NotDone: The store failed. Nothing is held; what may be left behind ends with its lease.
        ValueError: An argument is out of range.
    """

    def __init__(self, store: Store, namespace: str, *, clock: Clock = monotonic) -> None:
        self._store = store
        self._home = namespace_prefix(namespace)
        self._clock = clock

    @asynccontextmanager
    async def lock(self, name: str, *, ttl: float = 10.0, wait: float | None = None) -> AsyncIterator[Held]:
        """Hold the lock ``name``: one holder at a time, in the order in which they came."""
        line = Line(self._store, self._home, "lock", name)
        async with hold(self._store, line, ttl=ttl, wait=wait, clock=self._clock) as (place, lease):
            yield Held(place, lease)

    @asynccontextmanager
    async def semaphore(
        self, name: str, *, permits: int, ttl: float = 10.0, wait: float | None = None
    ) -> AsyncIterator[Held]:
        """
        Hold one of ``permits`` permits of ``name``, in the order in which they came.

        Raises:
            ValueError: Also when those who have or want permits go by another number of them.
        """
        if not 1 <= permits <= MAX_PERMITS:
            raise ValueError(f"permits is {permits}, must lie between 1 and {MAX_PERMITS}")
        line = Line(self._store, self._home, "semaphore", name)
        async with hold(
            self._store, line, ttl=ttl, wait=wait, clock=self._clock, places=permits, value=b"%d" % permits
        ) as (place, lease):
            yield Held(place, lease)


@asynccontextmanager
async def hold(
    store: Store,
    line: Line,
    *,
    ttl: float,
    wait: float | None,
    clock: Clock,
    places: int = 1,
    value: bytes = b"",
) -> AsyncIterator[tuple[Place, KeptLease]]:
    """Stand in line, hold when admitted, and leave no lease behind, however it ends."""
    check_wait(wait)
    if wait == 0 and len((await line.members()).entries) >= places:
        raise _not_acquired(line, wait)  # so that looking again and again writes nothing
    async with KeptLease(store, ttl, clock=clock) as lease:
        place = await line.enter(lease.id, value)
        members = await line.members()
        ahead = members.ahead_of(place)
        if places > 1 and ahead and ahead[0].value != value:
            raise ValueError(
                f"permits is {places}, but others go by {ahead[0].value.decode()}: "
                "all who use a semaphore at a time must name the same number"
            )
        if len(ahead) >= places:
            try:
                async with asyncio.timeout(wait):
                    await line.admitted(place, places)
            except TimeoutError:
                raise _not_acquired(line, wait) from None
        lease.check()
        yield place, lease


def check_wait(wait: float | None) -> None:
    """Refuse what can't be a time to wait."""
    if wait is not None and not (math.isfinite(wait) and wait >= 0):
        raise ValueError(f"wait is {wait} s, must be at least 0 s; leave it out to wait for ever")


def _not_acquired(line: Line, wait: float | None) -> NotAcquired:
    return NotAcquired(f"{line.label} is held by another, after waiting {wait or 0:g} s")
