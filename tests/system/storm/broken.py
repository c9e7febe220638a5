"""
A node that breaks promises on purpose, now and then: ``python -m tests.system.storm.broken FAULT[,FAULT] …``.

Each fault is planted in the code of a real node, so that what finds it would find it in one that is wrong.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from unisono.api.state.plane import Plane
from unisono.daemon import main
from unisono.state import kv, oracle, quotas
from unisono.store.sqlite import SqliteStore


def _every(count: int) -> Callable[[], bool]:
    """True each so many times: a fault that is always there to be found."""
    times = itertools.count(1)
    return lambda: next(times) % count == 0


def stale_read() -> None:
    """A read answers with what the key was a while ago."""
    sound, now = kv.Kv.get, _every(8)
    before: dict[str, kv.Read] = {}

    async def get(self: kv.Kv, key: str, **more: Any) -> kv.Read:
        if key in before and now():
            return before[key]
        before[key] = await sound(self, key, **more)
        return before[key]

    kv.Kv.get = get  # type: ignore[method-assign]


def stale_plane() -> None:
    """The data plane hears of changes a batch of commits too late."""
    sound = Plane._follow
    late: list[tuple[Any, int]] = []

    def follow(self: Plane, changes: Any, revision: int) -> None:
        late.append((changes, revision))
        if len(late) > 1:
            sound(self, *late.pop(0))

    Plane._follow = follow  # type: ignore[method-assign]


def lost_update() -> None:
    """A write is acknowledged and never made."""
    sound, now = kv.Kv.put, _every(8)

    async def put(self: kv.Kv, key: str, value: bytes, **more: Any) -> kv.Written:
        if now():
            found = await self.get(key)
            return kv.Written(succeeded=True, revision=found.revision, token=found.token)
        return await sound(self, key, value, **more)

    kv.Kv.put = put  # type: ignore[method-assign]


def lost_in_batch() -> None:
    """The data plane acknowledges a batch of writes and makes all but one of them."""
    sound, now = SqliteStore.put_each, _every(8)

    async def put_each(self: SqliteStore, puts: Sequence[tuple[str, bytes]]) -> Sequence[int]:
        made = await sound(self, puts[:-1] if now() else puts)
        return [*made, self._committed.revision][: len(puts)]

    SqliteStore.put_each = put_each  # type: ignore[method-assign]


def repeated_timestamp() -> None:
    """The oracle gives the same timestamps to two."""
    sound, now = oracle.Oracle.take, _every(8)
    last = [0]

    async def take(self: oracle.Oracle, count: int = 1) -> int:
        if not last[0] or not now():
            last[0] = await sound(self, count)
        return last[0]

    oracle.Oracle.take = take  # type: ignore[method-assign]


def torn_read() -> None:
    """A scan reads its first key as it was at the scan before, so each is torn that has a write between."""
    sound = kv.Kv.scan
    before: list[kv.Listing] = []

    async def scan(self: kv.Kv, prefix: str = "", **more: Any) -> kv.Listing:
        found = await sound(self, prefix, **more)
        torn = found
        if before and before[-1].entries and found.entries:
            torn = replace(found, entries=(before[-1].entries[0], *found.entries[1:]))
        before[:] = [found]
        return torn

    kv.Kv.scan = scan  # type: ignore[method-assign]


def quota_overrun() -> None:
    """A quota is larger than it was asked to be."""
    sound = quotas.Quotas.resize

    async def resize(self: quotas.Quotas, name: str, size: int) -> Any:
        return await sound(self, name, 100 * size)

    quotas.Quotas.resize = resize  # type: ignore[method-assign]


def skipped_event() -> None:
    """A watch leaves out a revision."""
    sound, now = kv.KvWatch.__anext__, _every(8)

    async def following(self: kv.KvWatch) -> Any:
        changes = await sound(self)
        return await sound(self) if not changes.resync and now() else changes

    kv.KvWatch.__anext__ = following  # type: ignore[method-assign]


FAULTS: dict[str, Callable[[], None]] = {
    plant.__name__.replace("_", "-"): plant
    for plant in (
        stale_read,
        stale_plane,
        lost_update,
        lost_in_batch,
        repeated_timestamp,
        torn_read,
        quota_overrun,
        skipped_event,
    )
}

if __name__ == "__main__":
    for fault in sys.argv.pop(1).split(","):
        FAULTS[fault]()
    sys.exit(main())
