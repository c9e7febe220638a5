"""
The store's current entries in memory: as committed, and as they will be (the head).

Pure: no thread, no file, no clock. What is committed answers every read at the current revision and changes
only when a commit is known to be durable. The head decides transactions: it sees what is queued on top of
that, so that each transaction finds the state left by the one before it, long before either is on disk.
When a commit fails the head falls back to what is committed, and with it everything decided since.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from unisono.store.base import Compare, Delete, Entry, Field, LeaseEnded, Put
from unisono.store.limits import prefix_end

_MANY = 16  # so many keys coming or going at once, and one in so many of all, are sorted in one go
_SHARE = 16


class Change(NamedTuple):
    """
    One key's step at one revision, and the row that keeps it.

    ``previous`` is the row of the entry it replaces or removes, ``None`` if there was none.
    """

    row: int
    revision: int
    previous: int | None
    key: str
    entry: Entry | None  # None: removed


class Committed:
    """The entries as of ``revision``; ``rows`` tells in which row each key's entry is kept."""

    def __init__(self, revision: int, last_row: int, entries: dict[str, Entry], rows: dict[str, int]) -> None:
        self.revision = revision
        self.last_row = last_row
        self.entries = entries
        self.rows = rows
        self._keys = sorted(entries)
        self._leased: dict[int, set[str]] = {}
        for entry in entries.values():
            if entry.lease is not None:
                self._leased.setdefault(entry.lease, set()).add(entry.key)

    def keys(self, prefix: str) -> list[str]:
        """The keys that begin with ``prefix``, in order."""
        end = prefix_end(prefix)
        first = bisect_left(self._keys, prefix)
        return self._keys[first : None if end is None else bisect_left(self._keys, end, first)]

    def scan(self, prefix: str) -> tuple[Entry, ...]:
        """The entries whose key begins with ``prefix``, in order."""
        entries = self.entries
        return tuple([entries[key] for key in self.keys(prefix)])

    def leased(self, lease: int) -> Iterable[str]:
        """The keys that ``lease`` holds."""
        return self._leased.get(lease, ())

    def apply(self, changes: Sequence[Change]) -> None:
        """Take over what one committed transaction changed, or several that only put."""
        # Sorting touches every key there is; putting one into its place moves only pointers, in one block.
        resort = len(changes) > _MANY and len(changes) * _SHARE > len(self._keys)
        for change in changes:
            before = self.entries.get(change.key)
            if before is not None and before.lease is not None:
                self._release(before.lease, change.key)
            if change.entry is None:
                self._remove(change.key, resort)
            else:
                self._set(change, change.entry, new=before is None, resort=resort)
        if resort:
            self._keys = [key for key in self._keys if key in self.entries]
            self._keys.sort()  # two sorted runs, which Timsort merges in one pass
        if changes:
            self.revision = changes[-1].revision
            self.last_row = changes[-1].row

    def _set(self, change: Change, entry: Entry, *, new: bool, resort: bool) -> None:
        self.entries[change.key] = entry
        self.rows[change.key] = change.row
        if entry.lease is not None:
            self._leased.setdefault(entry.lease, set()).add(change.key)
        if new and resort:
            self._keys.append(change.key)
        elif new:
            insort(self._keys, change.key)

    def _remove(self, key: str, resort: bool) -> None:
        del self.entries[key]
        del self.rows[key]
        if not resort:
            del self._keys[bisect_left(self._keys, key)]

    def _release(self, lease: int, key: str) -> None:
        held = self._leased[lease]
        held.discard(key)
        if not held:
            del self._leased[lease]


class Head:
    """
    The state that the next transaction finds: what is committed, and on top what is queued for commit.

    Invariant: ``revision`` and ``last_row`` are those of ``committed`` whenever nothing is queued.
    """

    def __init__(self, committed: Committed) -> None:
        self._committed = committed
        self.revision = committed.revision
        self._last_row = committed.last_row
        self._queued: dict[str, Change] = {}  # the last one of each key
        self._ending: set[int] = set()  # leases whose end is queued

    def holds(self, compare: Compare) -> bool:
        """Whether a compare is true of this state."""
        entry = self._entry(compare.key)
        if compare.field is Field.VALUE:
            return entry is not None and entry.value == compare.target
        if compare.field is Field.CREATED:
            return compare.target == (0 if entry is None else entry.created)
        return compare.target == (0 if entry is None else entry.modified)

    def run(self, operations: Sequence[Put | Delete], alive: Callable[[int], bool]) -> list[Change]:
        """
        Queue the changes that ``operations`` make here, at one new revision if there are any.

        Raises:
            LeaseEnded: A put names a lease that is not ``alive``; nothing has changed then.
        """
        for operation in operations:
            lease = operation.lease if isinstance(operation, Put) else None
            if lease is not None and (lease in self._ending or not alive(lease)):
                raise LeaseEnded(lease)
        revision = self.revision + 1
        wanted: list[tuple[str, Entry | None]] = []
        for operation in operations:
            if isinstance(operation, Put):
                wanted.append((operation.key, self._put(operation, revision)))
            else:
                wanted += [(key, None) for key in self._removed(operation)]
        return self._queue(wanted, revision)

    def put_each(self, puts: Iterable[tuple[str, bytes]]) -> list[Change]:
        """Queue puts of a key and a value, each at a new revision, as :meth:`run` would one by one."""
        entries, rows, queued = self._committed.entries, self._committed.rows, self._queued
        revision, row = self.revision, self._last_row
        changes = []
        for key, value in puts:
            revision += 1
            row += 1
            change = queued.get(key)
            if change is None:
                before, previous = entries.get(key), rows.get(key)
            else:
                before, previous = change.entry, None if change.entry is None else change.row
            created = revision if before is None else before.created
            entry = Entry(key=key, value=value, created=created, modified=revision)
            change = queued[key] = Change(row, revision, previous, key, entry)
            changes.append(change)
        self.revision, self._last_row = revision, row
        return changes

    def end_lease(self, lease: int) -> list[Change]:
        """Queue the end of a lease: its keys go, and no later transaction may use it."""
        held = {key for key in self._committed.leased(lease) if key not in self._queued}
        held |= {key for key, change in self._queued.items() if change.entry and change.entry.lease == lease}
        self._ending.add(lease)
        return self._queue([(key, None) for key in sorted(held)], self.revision + 1)

    def ending(self, lease: int) -> bool:
        """Whether the lease's end is queued."""
        return lease in self._ending

    def settle(self, changes: Sequence[Change]) -> None:
        """These are committed: keep only what is queued after them."""
        for change in changes:
            if self._queued[change.key] is change:
                del self._queued[change.key]

    def lease_ended(self, lease: int) -> None:
        """The end of this lease is durable."""
        self._ending.discard(lease)

    def fall_back(self) -> None:
        """A commit failed: what was queued will not be. Go on from what is committed."""
        self._queued.clear()
        self._ending.clear()
        self.revision = self._committed.revision
        self._last_row = self._committed.last_row

    def _entry(self, key: str) -> Entry | None:
        change = self._queued.get(key)
        return self._committed.entries.get(key) if change is None else change.entry

    def _row(self, key: str) -> int | None:
        change = self._queued.get(key)
        if change is None:
            return self._committed.rows.get(key)
        return None if change.entry is None else change.row

    def _put(self, put: Put, revision: int) -> Entry:
        before = self._entry(put.key)
        created = revision if before is None else before.created
        return Entry(key=put.key, value=put.value, created=created, modified=revision, lease=put.lease)

    def _removed(self, delete: Delete) -> list[str]:
        if not delete.prefix:
            return [delete.key] if self._entry(delete.key) is not None else []
        keys = set(self._committed.keys(delete.key))
        keys |= {key for key in self._queued if key.startswith(delete.key)}
        return sorted(key for key in keys if self._entry(key) is not None)

    def _queue(self, wanted: list[tuple[str, Entry | None]], revision: int) -> list[Change]:
        changes = []
        for row, (key, entry) in enumerate(wanted, self._last_row + 1):
            changes.append(Change(row, revision, self._row(key), key, entry))
        if changes:
            self.revision = revision
            self._last_row = changes[-1].row
            self._queued.update((change.key, change) for change in changes)
        return changes
