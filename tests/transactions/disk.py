"""The store of the simulation: a dictionary that survives everything, with leases in virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from typing import Any

from tests.control.memory_store import MemoryStore
from tests.state.virtual import now
from unisono.store.base import Batch, Delete, LeaseEnded, Outcome, Put
from unisono.transactions import records


class Disk(MemoryStore):
    """What every process of the simulation sees, and what is left when one dies."""

    def __init__(self) -> None:
        super().__init__()
        self._ends: dict[int, tuple[float, float]] = {}
        self._moved = asyncio.Event()

    async def grant(self, ttl: float) -> int:
        lease = await super().grant(ttl)
        self._ends[lease] = (ttl, now() + ttl)
        return lease

    async def keep_alive(self, lease: int) -> None:
        self.expire()
        if lease not in self._ends:
            raise LeaseEnded(lease)
        ttl, _ = self._ends[lease]
        self._ends[lease] = (ttl, now() + ttl)

    async def revoke(self, lease: int) -> None:
        self._ends.pop(lease, None)
        await super().revoke(lease)

    def expire(self) -> None:
        for lease in [lease for lease, (_, end) in self._ends.items() if end <= now()]:
            del self._ends[lease]
            self._run([Delete(key=key) for key, entry in self.entries.items() if entry.lease == lease])

    async def transact(self, **operations: Any) -> Outcome:
        self.expire()
        for put in operations.get("success", ()):
            if isinstance(put, Put) and put.lease is not None and put.lease not in self._ends:
                raise LeaseEnded(put.lease)
        return await super().transact(**operations)

    def _run(self, operations: Sequence[Put | Delete]) -> None:
        super()._run(operations)
        self._moved.set()
        self._moved = asyncio.Event()

    async def watch(self, prefix: str, *, after: int, marks: bool = False) -> AsyncIterator[Batch]:
        while True:
            for batch in self.log[after:]:
                after = batch.revision
                events = tuple(e for e in batch.events if e.key.startswith(prefix))
                if events:
                    yield Batch(revision=batch.revision, events=events)
            moved = self._moved
            with suppress(TimeoutError):
                async with asyncio.timeout(1.0):
                    await moved.wait()
            self.expire()

    def record(self, gid: str) -> records.Record | None:
        key = f"{records.ROOT}bank/{gid}"
        entry = self.entries.get(key)
        return None if entry is None else records.decode(key, entry.value)
