"""
The real SQLite store, with a real file and a real thread, in virtual time; and a store that fails on order.

The loop's clock stands still while anything can be done: a callback is ready, or the store's thread has
work. When nothing can, it moves on to the next timer at once. So an hour of leases takes no time, and no
test depends on how fast the machine is.
"""

from __future__ import annotations

import asyncio
import os
import random
import selectors
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, TypeVar

from unisono.state.kv import Kv
from unisono.state.tokens import Tokens
from unisono.store.base import (
    Batch,
    Compare,
    Delete,
    Entry,
    MaybeDone,
    NotDone,
    Outcome,
    Put,
    Snapshot,
    Store,
)
from unisono.store.sqlite import SqliteStore
from unisono.store.sqlite.writer import Ended

R = TypeVar("R")


class _Selector(selectors.DefaultSelector):
    """Instead of waiting for a timer, moves the clock."""

    loop: VirtualLoop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if ready or (timeout is not None and timeout <= 0):
            return ready
        if self.loop.working:
            return super().select(None)  # a thread will call
        if timeout is None:
            raise AssertionError("deadlock: nothing is ready, no timer is set, and no thread works")
        self.loop.now += timeout
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    """``now`` is its time in seconds; ``working`` counts what threads are at."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.working = 0
        selector = _Selector()
        selector.loop = self
        super().__init__(selector)

    def time(self) -> float:
        return self.now

    @contextmanager
    def work(self) -> Iterator[None]:
        """A thread is at work meanwhile."""
        self.working += 1
        try:
            yield
        finally:
            self.working -= 1


def virtual_loop() -> VirtualLoop:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualLoop)
    return loop


def now() -> float:
    """The clock that tests inject."""
    return asyncio.get_running_loop().time()


class VirtualStore(SqliteStore):
    """Tells the loop while its thread has work."""

    def _submit(self, applied: Callable[[Any], R], **arguments: Any) -> asyncio.Future[R]:
        future = super()._submit(applied, **arguments)
        virtual_loop().working += 1
        return future

    def _acknowledge(self, ended: Ended) -> None:
        loop = self._loop
        assert isinstance(loop, VirtualLoop)
        loop.working -= len(ended.jobs)
        super()._acknowledge(ended)

    async def close(self) -> None:
        with virtual_loop().work():
            await super().close()

    def leases(self) -> set[int]:
        """Those that live."""
        return set(self._leases._leases)


@contextmanager
def folder() -> Iterator[Path]:
    """
    Somewhere for a store, in memory where there is such a place.

    What a disk makes of a store is the business of tests/store, and of test_crash.py.
    """
    memory = Path("/dev/shm")
    where = memory if os.access(memory, os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="unisono-", dir=where) as name:
        yield Path(name)


@asynccontextmanager
async def opened(path: Path, **arguments: Any) -> AsyncIterator[VirtualStore]:
    with virtual_loop().work():
        store = await VirtualStore.open(path, clock=now, **arguments)
    assert isinstance(store, VirtualStore)
    try:
        yield store
    finally:
        await store.close()


class FaultyStore:
    """
    A client's connection to a store: slow, and now and then broken, as ``chance`` tells.

    A broken operation was done or was not, the caller is told MaybeDone; or it was refused, NotDone. With
    ``late``, what the caller was told MaybeDone of may also be done much later. ``cut``: nothing answers.
    """

    def __init__(
        self,
        store: Store,
        chance: random.Random,
        *,
        faults: float = 0.1,
        late: bool = True,
        delay: Callable[[random.Random], float] = lambda chance: chance.expovariate(50),
    ) -> None:
        self._store = store
        self._chance = chance
        self._faults = faults
        self._late = late
        self._delay = delay
        self._under_way: set[asyncio.Task[Any]] = set()
        self.cut = False

    async def get(self, key: str) -> Entry | None:
        return await self._read(lambda: self._store.get(key))

    async def scan(self, prefix: str, *, revision: int | None = None) -> Snapshot:
        return await self._read(lambda: self._store.scan(prefix, revision=revision))

    async def transact(
        self,
        *,
        compares: Sequence[Compare] = (),
        success: Sequence[Put | Delete] = (),
        failure: Sequence[Put | Delete] = (),
    ) -> Outcome:
        return await self._write(
            lambda: self._store.transact(compares=compares, success=success, failure=failure)
        )

    def watch(
        self, prefix: str, *, after: int, marks: bool = False, without: tuple[str, ...] = ()
    ) -> AsyncIterator[Batch]:
        return self._store.watch(prefix, after=after, marks=marks, without=without)

    async def grant(self, ttl: float) -> int:
        return await self._write(lambda: self._store.grant(ttl), late=False)

    async def keep_alive(self, lease: int) -> None:
        await self._pass()
        if self._chance.random() < self._faults:
            raise MaybeDone("the connection broke")
        await self._store.keep_alive(lease)
        await self._pass()

    async def revoke(self, lease: int) -> None:
        await self._write(lambda: self._store.revoke(lease))

    async def compact(self, revision: int) -> None:
        await self._store.compact(revision)

    async def close(self) -> None:
        """Let what is under way end; the store itself stays open."""
        await asyncio.gather(*self._under_way, return_exceptions=True)

    async def _read(self, operation: Callable[[], Awaitable[R]]) -> R:
        await self._pass()
        result = await operation()
        await self._pass()
        return result

    async def _write(self, operation: Callable[[], Awaitable[R]], *, late: bool = True) -> R:
        await self._pass()
        if self._chance.random() >= self._faults:
            result = await operation()
            await self._pass()
            return result
        fault = self._chance.choice(["refused", "before", "after", "late"])
        if fault == "refused":
            raise NotDone("the connection could not be made")
        if fault == "after":
            await operation()
        if fault == "late" and late and self._late:
            task = asyncio.ensure_future(self._much_later(operation))
            self._under_way.add(task)
            task.add_done_callback(self._under_way.discard)
        raise MaybeDone("the connection broke")

    async def _much_later(self, operation: Callable[[], Awaitable[object]]) -> None:
        await asyncio.sleep(self._chance.expovariate(1))
        try:
            await operation()
        except NotDone:
            return

    async def _pass(self) -> None:
        """Time on the wire."""
        if self.cut:
            await asyncio.Event().wait()
        await asyncio.sleep(self._delay(self._chance))


TOKENS = Tokens(b"secret" * 4)


def kv_of(store: Store, namespace: str = "shop", tokens: Tokens = TOKENS) -> Kv:
    """Keys of a namespace, on the loop's clock."""
    return Kv(store, namespace, tokens, clock=now)
