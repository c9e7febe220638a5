"""
A store in a dictionary, for simulations: the promise of store/base.py without time, disk or waiting.

No operation ever suspends, so that a coroutine that uses nothing else runs to its end in one step
(:func:`run`). Leases are only numbers; the simulation ends them by hand.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Coroutine, Sequence
from typing import Any, TypeVar

from unisono.store.base import (
    Batch,
    Compare,
    Delete,
    Entry,
    Event,
    Field,
    Outcome,
    Put,
    Snapshot,
)

R = TypeVar("R")


class MemoryStore:
    """Entries, and all changes since the beginning."""

    def __init__(self) -> None:
        self.revision = 0
        self.entries: dict[str, Entry] = {}
        self.log: list[Batch] = []
        self._leases = 0

    async def get(self, key: str) -> Entry | None:
        return self.entries.get(key)

    async def scan(self, prefix: str, *, revision: int | None = None) -> Snapshot:
        assert revision in (None, self.revision), "only the present is kept"
        found = (self.entries[key] for key in sorted(self.entries) if key.startswith(prefix))
        return Snapshot(revision=self.revision, entries=tuple(found))

    async def transact(
        self,
        *,
        compares: Sequence[Compare] = (),
        success: Sequence[Put | Delete] = (),
        failure: Sequence[Put | Delete] = (),
    ) -> Outcome:
        succeeded = all(self._holds(compare) for compare in compares)
        self._run(success if succeeded else failure)
        return Outcome(succeeded=succeeded, revision=self.revision)

    async def watch(self, prefix: str, *, after: int, marks: bool = False) -> AsyncIterator[Batch]:
        for batch in self.log[after:]:
            events = tuple(e for e in batch.events if e.key.startswith(prefix))
            if events:
                yield Batch(revision=batch.revision, events=events)

    async def grant(self, ttl: float) -> int:
        self._leases += 1
        return self._leases

    async def keep_alive(self, lease: int) -> None:
        pass

    async def revoke(self, lease: int) -> None:
        self._run([Delete(key=key) for key, entry in self.entries.items() if entry.lease == lease])

    async def compact(self, revision: int) -> None:
        pass

    async def close(self) -> None:
        pass

    def _holds(self, compare: Compare) -> bool:
        entry = self.entries.get(compare.key)
        match compare.field:
            case Field.CREATED:
                return compare.target == (entry.created if entry else 0)
            case Field.MODIFIED:
                return compare.target == (entry.modified if entry else 0)
            case Field.VALUE:
                return entry is not None and compare.target == entry.value

    def _run(self, operations: Sequence[Put | Delete]) -> None:
        keys = [operation.key for operation in operations]
        assert len(keys) == len(set(keys)), f"one key is changed twice: {sorted(keys)}"
        revision = self.revision + 1
        events = []
        for operation in operations:
            old = self.entries.get(operation.key)
            if isinstance(operation, Put):
                entry = Entry(
                    key=operation.key,
                    value=operation.value,
                    created=old.created if old else revision,
                    modified=revision,
                    lease=operation.lease,
                )
                self.entries[operation.key] = entry
                events.append(Event(key=operation.key, revision=revision, entry=entry))
            elif old is not None:
                del self.entries[operation.key]
                events.append(Event(key=operation.key, revision=revision, entry=None))
        if events:
            self.revision = revision
            self.log.append(Batch(revision=revision, events=tuple(events)))


def run(coroutine: Coroutine[Any, Any, R]) -> R:
    """The result of a coroutine that never waits."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        result: R = stop.value
        return result
    raise AssertionError("it waited for something")
