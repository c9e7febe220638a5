"""
The timestamp oracle: 64 bit timestamps that rise strictly, over restarts, failovers and clock jumps.

A timestamp has the layout of :mod:`unisono.timestamps.hybrid`: 48 bits of milliseconds, 16 bits of counter.
One oracle at a time serves: it stands first in a line, and serves only while its lease is surely held. It
gives out what lies below a bound that is durable in the store, so its successor begins at that bound, and
not even a clock that has gone back an hour makes it repeat one. Saving a bound needs the fencing token and
the bound it was based on: an oracle that was replaced is refused, and stops.

Why a timestamp asked for later is larger, also across a failover: the request was there before the lease
was found to be held; the successor began after the lease had ended.

:class:`Window` is the pure core, :class:`Oracle` the edge that saves. Batching on the caller's side is in
:mod:`.batching`.

Sources: PD, the oracle of TiDB (pkg/tso), for the window and its rules; Peng and Dabek, "Large-scale
Incremental Processing Using Distributed Transactions and Notifications", OSDI 2010, section 2.3.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from unisono.state.errors import Fenced, Lost
from unisono.state.leases import Clock, monotonic, revoke
from unisono.state.line import Line
from unisono.state.locks import Held, hold
from unisono.state.names import namespace_prefix
from unisono.store.base import Broken, Compare, Entry, Field, MaybeDone, NotDone, Put, Store, StoreError
from unisono.timestamps.hybrid import COUNTER_BITS, MILLIS_MAX, wall_clock_ms

MAX_COUNT = 1 << COUNTER_BITS  # timestamps of one request
WINDOW_MS = 3000
LEASE_TTL = 3.0  # seconds; the longest gap after an oracle has died
MAX_WAITING = 100_000  # requests at a time that wait for a bound to be saved

_RETRY_SECONDS = 0.05
_GIVE_WAY = 256  # requests; a caller that asks in a tight loop must not starve the lease's renewal


class Window:
    """
    What may be given out: timestamps above ``last`` and below ``bound``; pure, time is an argument.

    Invariant: last < bound, and ``bound`` only grows.
    """

    def __init__(self, bound: int, *, window_ms: int = WINDOW_MS) -> None:
        self.last = bound - 1  # whatever was below the old bound may have been given out
        self.bound = bound
        self._window = window_ms << COUNTER_BITS

    def take(self, count: int, now_ms: int) -> int | None:
        """
        The first of ``count`` timestamps in a row, or ``None`` if they don't fit below the bound.

        When more are asked for in a millisecond than its counter can tell apart, they run into the
        milliseconds to come; still below the bound.
        """
        first = max(self.last + 1, now_ms << COUNTER_BITS)
        if first + count > self.bound:
            return None
        self.last = first + count - 1
        return first

    def low(self, now_ms: int) -> bool:
        """Whether less than half a window is left, so that it is time to save the next bound."""
        return self.bound - max(self.last, now_ms << COUNTER_BITS) < self._window // 2

    def next_bound(self, now_ms: int) -> int:
        """
        The bound to save next.

        Raises:
            Broken: The layout has no room for it: the clock has gone mad.
        """
        # Never below the bound in force, though the clock may have gone back since that was chosen.
        bound = max(max(self.last + 1, now_ms << COUNTER_BITS) + self._window, self.bound)
        if bound >> COUNTER_BITS > MILLIS_MAX:
            raise Broken(f"the clock shows {now_ms} ms since 1970, which leaves no room: set it right")
        return bound

    def extend(self, bound: int) -> None:
        """``bound`` is durable."""
        self.bound = max(self.bound, bound)


@dataclass(frozen=True, kw_only=True)
class _Saved:
    """The durable bound, the token of the oracle that saved it, and the revision at which it did."""

    bound: int
    token: int
    revision: int


class Oracle:
    """
    The oracle of one namespace, while this process serves it; made by :meth:`serve`.

    Serving stops for good when the leadership is lost or another has saved a bound.
    """

    def __init__(
        self, store: Store, key: str, leading: Held, wall_ms: Callable[[], int], window_ms: int
    ) -> None:
        self._store = store
        self._key = key
        self._leading = leading
        self._wall_ms = wall_ms
        self._window_ms = window_ms
        self._window: Window
        self._saved: _Saved
        self._waiting: deque[tuple[int, asyncio.Future[int]]] = deque()  # counts, in the order they came
        self._wanted = asyncio.Event()  # a new bound
        self._stopped: StoreError | None = None
        self._over = asyncio.Event()
        self._at_once = 0  # requests answered without waiting

    @classmethod
    @asynccontextmanager
    async def serve(
        cls,
        store: Store,
        namespace: str,
        *,
        owner: str = "",
        ttl: float = LEASE_TTL,
        wait: float | None = None,
        window_ms: int = WINDOW_MS,
        wall_ms: Callable[[], int] = wall_clock_ms,
        clock: Clock = monotonic,
    ) -> AsyncIterator[Oracle]:
        """
        Serve for the block, once it is this process's turn.

        Args:
            owner: Who serves, where there can't be two of that name at a time: what one of this name had
                when it died is given up at once, without waiting for its lease to end.
            ttl, wait: Of the leadership, in seconds, as of :class:`.locks.Locks`.
            window_ms: How far ahead of the clock a bound is saved, from 10 to 60,000: after a restart
                timestamps may be that far ahead of the clock.
            wall_ms: Milliseconds since the epoch; may jump.

        Raises:
            NotAcquired: Another serves, and ``wait`` is over.
            Lost: The leadership was lost; the block was cancelled.
            Fenced: Another has taken over.
            StoreError: The store failed.
        """
        if not 10 <= window_ms <= 60_000:
            raise ValueError(f"window_ms is {window_ms}, must lie between 10 and 60000")
        key = f"{namespace_prefix(namespace)}oracle"
        line = Line(store, namespace_prefix(namespace), "oracle-line", "timestamps")
        said = owner.encode()
        for entry in (await line.members()).entries if owner else ():
            if entry.value == said and entry.lease is not None:
                await revoke(store, entry.lease)
        async with hold(store, line, ttl=ttl, wait=wait, clock=clock, value=said) as (place, lease):
            oracle = cls(store, key, Held(place, lease), wall_ms, window_ms)
            await oracle._take_over()
            saving = asyncio.create_task(oracle._keep_saving(), name="unisono-oracle")
            try:
                yield oracle
            finally:
                saving.cancel()
                await asyncio.wait([saving])
                oracle._stop(NotDone("the oracle was closed"))

    @property
    def bound(self) -> int:
        """What is given out lies below this, until a higher bound is saved."""
        return self._window.bound

    async def ended(self) -> None:
        """Wait until this oracle serves no more."""
        await self._over.wait()

    async def take(self, count: int = 1) -> int:
        """
        The first of ``count`` timestamps in a row, above all that any oracle gave out before.

        Takes no store and no waiting as long as the window lasts.

        Raises:
            Fenced: Another serves, or may.
            NotDone: Too many wait for a bound, or the oracle was closed.
            ValueError: ``count`` is outside 1 to MAX_COUNT.
        """
        if not 1 <= count <= MAX_COUNT:
            raise ValueError(f"count is {count}, must lie between 1 and {MAX_COUNT}")
        if not self._waiting:  # else those who came first go first
            first = self._give(count)
            if first is not None:
                self._at_once += 1
                if self._at_once % _GIVE_WAY == 0:
                    await asyncio.sleep(0)
                return first
        if len(self._waiting) >= MAX_WAITING:
            raise NotDone(f"{MAX_WAITING} requests wait for timestamps already: try again later")
        future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._waiting.append((count, future))
        self._wanted.set()
        return await future

    def _give(self, count: int) -> int | None:
        self._check()
        now = self._wall_ms()
        first = self._window.take(count, now)
        if self._window.low(now):
            self._wanted.set()
        return first

    def _check(self) -> None:
        """Pass only while no other can serve."""
        if self._stopped is not None:
            raise self._stopped
        try:
            self._leading.check()
        except Lost as error:
            raise self._stop(Fenced(f"this oracle serves no more: {error}")) from None

    def _stop(self, error: StoreError) -> StoreError:
        if self._stopped is None:
            self._stopped = error
            self._over.set()
            while self._waiting:
                _, future = self._waiting.popleft()
                if not future.done():
                    future.set_exception(error)
        return self._stopped

    async def _take_over(self) -> None:
        """Begin where no timestamp of any oracle before can be."""
        entry = await self._store.get(self._key)
        self._saved = _read(entry)
        self._window = Window(self._saved.bound, window_ms=self._window_ms)
        while True:
            try:
                await self._save()
            except MaybeDone:
                await asyncio.sleep(_RETRY_SECONDS)
            else:
                return

    async def _keep_saving(self) -> None:
        """Save a bound whenever one is wanted; whatever ends this stops the oracle."""
        try:
            while True:
                await self._wanted.wait()
                self._wanted.clear()
                try:
                    await self._save()
                except Fenced:
                    raise
                except (MaybeDone, NotDone):
                    await asyncio.sleep(_RETRY_SECONDS)
                    self._wanted.set()
                else:
                    self._serve_waiting()
        except StoreError as error:
            self._stop(error)

    def _serve_waiting(self) -> None:
        with contextlib.suppress(StoreError):  # _check has told all who wait
            while self._waiting:
                count, future = self._waiting[0]
                if not future.done():
                    first = self._give(count)
                    if first is None:
                        self._wanted.set()
                        return
                    future.set_result(first)
                self._waiting.popleft()

    async def _save(self) -> None:
        """
        Make a higher bound durable.

        Raises:
            Fenced: Another oracle has taken over.
            MaybeDone, NotDone: To be tried again; what was saved before stays in force.
        """
        bound = self._window.next_bound(self._wall_ms())
        token = self._leading.token
        value = json.dumps({"bound": str(bound), "token": token}).encode()
        unchanged = Compare(key=self._key, field=Field.MODIFIED, target=self._saved.revision)
        outcome = await self._store.transact(
            compares=[self._leading.fence, unchanged], success=[Put(key=self._key, value=value)]
        )
        if outcome.succeeded:
            self._saved = _Saved(bound=bound, token=token, revision=outcome.revision)
            self._window.extend(bound)
            return
        # Refused. Either this oracle was replaced, or a save of its own whose outcome was unknown has
        # arrived after all; then go on from that.
        now = _read(await self._store.get(self._key))
        if now.token != token or now.revision == self._saved.revision:
            raise Fenced(f"another oracle has taken over from the one with token {token}")
        self._saved = now
        self._window.extend(now.bound)


def _read(entry: Entry | None) -> _Saved:
    if entry is None:
        return _Saved(bound=1, token=0, revision=0)
    try:
        saved = json.loads(entry.value)
        return _Saved(bound=int(saved["bound"]), token=int(saved["token"]), revision=entry.modified)
    except (ValueError, TypeError, KeyError) as error:
        raise Broken(f"{entry.key} holds no bound of timestamps: {error!r}; restore it") from error
