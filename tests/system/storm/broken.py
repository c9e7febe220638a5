"""
A node that breaks promises on purpose, now and then: ``python -m tests.system.storm.broken FAULT[,FAULT] …``.

Each fault is planted in the code of a real node, so that what finds it would find it in one that is wrong.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from unisono.daemon import main
from unisono.state import kv, oracle, quotas

_chance = random.Random(7)


def _now_and_then() -> bool:
    return _chance.random() < 0.1


def stale_read() -> None:
    """A read answers with what the key was a while ago."""
    sound = kv.Kv.get
    before: dict[str, kv.Read] = {}

    async def get(self: kv.Kv, key: str, **more: Any) -> kv.Read:
        if key in before and _now_and_then():
            return before[key]
        before[key] = await sound(self, key, **more)
        return before[key]

    kv.Kv.get = get  # type: ignore[method-assign]


def lost_update() -> None:
    """A write is acknowledged and never made."""
    sound = kv.Kv.put

    async def put(self: kv.Kv, key: str, value: bytes, **more: Any) -> kv.Written:
        if _now_and_then():
            found = await self.get(key)
            return kv.Written(succeeded=True, revision=found.revision, token=found.token)
        return await sound(self, key, value, **more)

    kv.Kv.put = put  # type: ignore[method-assign]


def repeated_timestamp() -> None:
    """The oracle gives the same timestamps to two."""
    sound = oracle.Oracle.take
    last = [0]

    async def take(self: oracle.Oracle, count: int = 1) -> int:
        if not last[0] or not _now_and_then():
            last[0] = await sound(self, count)
        return last[0]

    oracle.Oracle.take = take  # type: ignore[method-assign]


def torn_read() -> None:
    """A scan reads its first key a while before the others."""
    sound = kv.Kv.scan
    before: list[kv.Listing] = []

    async def scan(self: kv.Kv, prefix: str = "", **more: Any) -> kv.Listing:
        found = await sound(self, prefix, **more)
        torn = found
        if before and before[-1].entries and _now_and_then():
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
    sound = kv.KvWatch.__anext__

    async def following(self: kv.KvWatch) -> Any:
        changes = await sound(self)
        return await sound(self) if not changes.resync and _now_and_then() else changes

    kv.KvWatch.__anext__ = following  # type: ignore[method-assign]


FAULTS: dict[str, Callable[[], None]] = {
    plant.__name__.replace("_", "-"): plant
    for plant in (stale_read, lost_update, repeated_timestamp, torn_read, quota_overrun, skipped_event)
}

if __name__ == "__main__":
    for fault in sys.argv.pop(1).split(","):
        FAULTS[fault]()
    sys.exit(main())
