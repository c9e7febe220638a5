"""
A store so simple that it is plainly right: every revision's entries kept whole, no file, no concurrency.

The property tests hold real stores against it.
"""

from __future__ import annotations

from collections.abc import Sequence

from unisono.store.base import (
    Batch,
    Compacted,
    Compare,
    Delete,
    Entry,
    Event,
    Field,
    LeaseEnded,
    Outcome,
    Put,
    Snapshot,
)


class Model:
    """The promise, word for word."""

    def __init__(self) -> None:
        self.states: list[dict[str, Entry]] = [{}]  # by revision
        self.batches: list[Batch] = []  # that of revision n is number n - 1
        self.compacted = 0
        self.leases: dict[int, tuple[float, float]] = {}  # time to live, deadline

    @property
    def revision(self) -> int:
        return len(self.states) - 1

    def scan(self, prefix: str, revision: int | None = None) -> Snapshot:
        at = self.revision if revision is None else revision
        if at < self.compacted:
            raise Compacted(self.compacted)
        found = tuple(entry for key, entry in sorted(self.states[at].items()) if key.startswith(prefix))
        return Snapshot(revision=at, entries=found)

    def history(self, prefix: str, after: int) -> list[Batch]:
        """What a watch tells, if it could begin: what was compacted since is no loss to it."""
        found = []
        for batch in self.batches[after:]:
            events = tuple(event for event in batch.events if event.key.startswith(prefix))
            if events:
                found.append(Batch(revision=batch.revision, events=events))
        return found

    def transact(
        self,
        now: float,
        compares: Sequence[Compare],
        success: Sequence[Put | Delete],
        failure: Sequence[Put | Delete],
    ) -> Outcome:
        succeeded = all(self._holds(compare) for compare in compares)
        operations = success if succeeded else failure
        for operation in operations:
            if isinstance(operation, Put) and operation.lease is not None:
                self.check_lease(operation.lease, now)
        self._change(operations)
        return Outcome(succeeded=succeeded, revision=self.revision)

    def check_lease(self, lease: int, now: float) -> None:
        if lease not in self.leases or self.leases[lease][1] <= now:
            raise LeaseEnded(lease)

    def end_lease(self, lease: int) -> None:
        if self.leases.pop(lease, None) is not None:
            state = self.states[-1]
            self._change([Delete(key=key) for key in sorted(state) if state[key].lease == lease])

    def expire(self, now: float) -> None:
        for lease in sorted(self.leases, key=lambda lease: self.leases[lease][1]):
            if self.leases[lease][1] <= now:
                self.end_lease(lease)

    def _holds(self, compare: Compare) -> bool:
        entry = self.states[-1].get(compare.key)
        if compare.field is Field.VALUE:
            return entry is not None and entry.value == compare.target
        if entry is None:
            return compare.target == 0
        return compare.target == (entry.created if compare.field is Field.CREATED else entry.modified)

    def _change(self, operations: Sequence[Put | Delete]) -> None:
        state = dict(self.states[-1])
        revision = len(self.states)
        events: list[Event] = []
        for operation in operations:
            if isinstance(operation, Put):
                before = state.get(operation.key)
                state[operation.key] = Entry(
                    key=operation.key,
                    value=operation.value,
                    created=before.created if before else revision,
                    modified=revision,
                    lease=operation.lease,
                )
                events.append(Event(key=operation.key, revision=revision, entry=state[operation.key]))
                continue
            for key in sorted(state):
                if key == operation.key or (operation.prefix and key.startswith(operation.key)):
                    del state[key]
                    events.append(Event(key=key, revision=revision, entry=None))
        if events:
            self.states.append(state)
            self.batches.append(Batch(revision=revision, events=tuple(events)))
