"""
The store's file: what is written to it and read from it, and what a failure of it means.

Synchronous and used by one thread at a time (:mod:`unisono.store.sqlite.writer`); it knows nothing of
the event loop, of watches, or of what is current in memory. What lies in it is said in :mod:`.format`.

The current entries are the last change of each key and are read into memory once, at the start. Compaction
up to a revision deletes exactly the rows named by those up to it, and needs no index; and the state at an
older revision is the current one with the rows since taken back.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from unisono.store.base import Batch, Broken, Entry, Event, MaybeDone, StoreError
from unisono.store.limits import prefix_end
from unisono.store.sqlite.entries import Change, Committed
from unisono.store.sqlite.format import COLUMNS, INSERTS, checksum_of, connect, damaged, row_of
from unisono.store.watching import Page, Scope

# Each of these bounds one piece of work between two commits, so that no reader holds up the writers.
_PAGE_ROWS = 2048
_PAGE_BYTES = 4 * 1024 * 1024
_SWEEP_ROWS = 4096  # as many as the jobs of a batch: sweeping keeps up with writers


@dataclass(frozen=True)
class Contents:
    """What the file holds when it is opened."""

    committed: Committed
    leases: dict[int, float]  # id to time to live, in seconds
    last_lease: int
    compacted: int


@dataclass(frozen=True)
class Failure:
    """What is known after a batch has failed: the error for those in it, and whether the file goes on."""

    error: type[StoreError]
    message: str
    goes_on: bool


class File:
    """
    An open file; every method raises ``sqlite3.Error`` when SQLite does.

    Between :meth:`begin` and :meth:`commit` everything is one transaction of SQLite.
    """

    def __init__(self, path: Path) -> None:
        """
        Open ``path``, making it if it does not exist.

        Raises:
            Broken: It can't be opened, is in use, damaged, of a newer format, or not a store's.
        """
        self._path = path
        self._db = connect(path)

    def load(self) -> Contents:
        """
        Everything current, after checking all that is in the file.

        Raises:
            Broken: Something is damaged.
        """
        try:
            return self._load()
        except (sqlite3.Error, TypeError, ValueError) as error:  # a column of the wrong type, no UTF-8, ...
            raise Broken(damaged(self._path, str(error))) from error

    def close(self) -> None:
        """Copy the log into the file and let go of it."""
        self._db.close()

    def begin(self) -> None:
        """Start a transaction."""
        self._db.execute("BEGIN IMMEDIATE")

    def commit(self) -> None:
        """End it; what was done in it is durable on return."""
        self._db.execute("COMMIT")

    def roll_back(self) -> None:
        """Undo it, unless SQLite has done so itself: after some errors it does, it does not say which."""
        if self._db.in_transaction:
            self._db.execute("ROLLBACK")

    def append(self, changes: Iterable[Change]) -> None:
        """
        Add changes, each in its row.

        Many of them take one statement: each step of one lets go of the interpreter, and has to wait for it
        again while the event loop is busy.
        """
        columns = [column for change in changes for column in row_of(change)]
        for count, statement in INSERTS.items():
            width = count * COLUMNS
            while len(columns) >= width:
                self._db.execute(statement, columns[:width])
                del columns[:width]

    def add_lease(self, id: int, ttl: float) -> None:
        """Add a lease, whose id is the highest so far."""
        self._db.execute("INSERT INTO lease VALUES (?, ?)", (id, ttl))
        self._db.execute("UPDATE mark SET lease = ?", (id,))

    def end_lease(self, id: int) -> None:
        """Remove a lease; its keys are changes like others."""
        self._db.execute("DELETE FROM lease WHERE id = ?", (id,))

    def history(self, scope: Scope, after: int, newest: int) -> Page:
        """
        The next changes of ``scope`` above ``after``, as many as one page holds.

        They go up to the end, what the current transaction has appended included. ``newest`` is a
        revision known to exist: compaction may have removed its row.
        """
        first, end, through = self._span(after, max(newest, self._last_revision()))
        low, high = scope.prefix, prefix_end(scope.prefix)
        rows = self._db.execute(
            "SELECT revision, key, created, lease, value FROM change"
            " WHERE id >= ? AND id < ? AND key >= ? AND (?4 IS NULL OR key < ?4) ORDER BY id",
            (first, end, low, high),
        )
        batches: list[Batch] = []
        events: list[Event] = []
        size = 0
        for revision, key, created, lease, value in rows:
            if key.startswith(scope.without):
                continue
            if events and revision != events[0].revision:
                batches.append(Batch(revision=events[0].revision, events=tuple(events)))
                events = []
                if size >= _PAGE_BYTES:  # a revision is whole or absent
                    return Page(batches, revision - 1)
            entry = None
            if value is not None:
                entry = Entry(key=key, value=value, created=created, modified=revision, lease=lease)
                size += len(value)
            events.append(Event(key=key, revision=revision, entry=entry))
        if events:
            batches.append(Batch(revision=events[0].revision, events=tuple(events)))
        return Page(batches, through)

    def replaced(self, prefix: str, after: int, newest: int) -> tuple[dict[str, int | None], int]:
        """
        For each key under ``prefix`` changed above ``after``: the row of its entry as of ``after``.

        One page of it, with the revision through which it goes; an earlier page's word on a key counts.
        """
        first, end, through = self._span(after, newest)
        # With min() SQLite takes the other columns from the row that holds the minimum.
        rows = self._db.execute(
            "SELECT key, previous, min(id) FROM change"
            " WHERE id >= ? AND id < ? AND key >= ? AND (?4 IS NULL OR key < ?4) GROUP BY key",
            (first, end, prefix, prefix_end(prefix)),
        )
        return {key: previous for key, previous, _ in rows}, through

    def entries(self, rows: Sequence[int]) -> list[Entry]:
        """The entries in the first of ``rows``, at least one, as many as one page holds."""
        entries = []
        size = 0
        for id in rows[:_PAGE_ROWS]:
            key, created, revision, lease, value = self._db.execute(
                "SELECT key, created, revision, lease, value FROM change WHERE id = ?", (id,)
            ).fetchone()
            entries.append(Entry(key=key, value=value, created=created, modified=revision, lease=lease))
            size += len(value)
            if size >= _PAGE_BYTES:
                break
        return entries

    def mark_compacted(self, revision: int) -> None:
        """Say that nothing below ``revision`` is to be read; :meth:`sweep` may then delete it."""
        self._db.execute("UPDATE mark SET compacted = max(compacted, ?)", (revision,))

    def sweep(self) -> bool:
        """Delete one page of what compaction left behind; False when nothing is left to delete."""
        compacted, swept, _ = self._marks()
        # As many rows as a page has, up to the one with which what they replaced fills it.
        (last,) = self._db.execute(
            "SELECT max(id) FROM ("
            " SELECT id, sum(size) OVER (ORDER BY id) - size AS size_before FROM ("
            "  SELECT change.id AS id, coalesce(length(replaced.value), 0) AS size"
            "  FROM change LEFT JOIN change AS replaced ON replaced.id = change.previous"
            "  WHERE change.id > ? AND change.id < ? ORDER BY change.id LIMIT ?))"
            " WHERE size_before < ?",
            (swept, self._first_row_above(compacted), _SWEEP_ROWS, _PAGE_BYTES),
        ).fetchone()
        if last is None:
            return False
        self._db.execute(
            "DELETE FROM change WHERE id IN"
            " (SELECT previous FROM change WHERE id > ? AND id <= ? AND previous IS NOT NULL)",
            (swept, last),
        )
        self._db.execute("DELETE FROM change WHERE id > ? AND id <= ? AND created IS NULL", (swept, last))
        self._db.execute("UPDATE mark SET swept = ?", (last,))
        return True

    def failure(self, error: Exception, *, committing: bool) -> Failure:
        """
        What an error means for the batch in which it came.

        SQLite writes a commit's last page, which makes it one, after all others. So when a *write* fails
        (disk full, quota, file size limit) nothing of it counts, and the next commit may succeed. When
        fsync fails the kernel may have dropped what it could not write and call the next fsync a success
        (https://wiki.postgresql.org/wiki/Fsync_Errors): the batch may or may not be there when the file is
        opened again, and nothing more may be written on top of it until then.
        """
        cause = f"{self._path}: {error} ({getattr(error, 'sqlite_errorname', type(error).__name__)})"
        code = getattr(error, "sqlite_errorcode", None)
        if code in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_WRITE):
            return Failure(
                Broken, f"{cause}: nothing was changed; free space on its disk and try again", goes_on=True
            )
        if committing:
            return Failure(
                MaybeDone,
                f"{cause}: the change may or may not be kept; the store writes no more until it is reopened",
                goes_on=False,
            )
        return Failure(
            Broken,
            f"{cause}: nothing was changed; the store writes no more until it is reopened",
            goes_on=False,
        )

    def _load(self) -> Contents:
        (verdict,) = self._db.execute("PRAGMA quick_check(1)").fetchone()
        if verdict != "ok":
            raise Broken(damaged(self._path, verdict))
        compacted, swept, last_lease = self._marks()
        newest, last_row = compacted, swept
        entries: dict[str, Entry] = {}
        rows: dict[str, int] = {}
        for row in self._db.execute("SELECT * FROM change ORDER BY id"):
            id, revision, _, key, created, lease, checksum, value = row
            if checksum != checksum_of(row[:-2], value):
                raise Broken(damaged(self._path, f"the checksum of change {id} is wrong"))
            newest, last_row = max(newest, revision), max(last_row, id)
            if value is None:
                entries.pop(key, None)
                rows.pop(key, None)
            else:
                entries[key] = Entry(key, value, created, revision, lease)
                rows[key] = id
        leases = dict(self._db.execute("SELECT id, ttl FROM lease"))
        return Contents(Committed(newest, last_row, entries, rows), leases, last_lease, compacted)

    def _marks(self) -> tuple[int, int, int]:
        compacted, swept, lease = self._db.execute("SELECT compacted, swept, lease FROM mark").fetchone()
        return compacted, swept, lease

    def _span(self, after: int, newest: int) -> tuple[int, int, int]:
        """One page of whole revisions: rows from, rows to (exclusive), and the revision through which."""
        first = self._first_row_above(after)
        beyond = self._db.execute(
            "SELECT revision FROM change WHERE id >= ? ORDER BY id LIMIT 1", (first + _PAGE_ROWS,)
        ).fetchone()
        through = newest if beyond is None else min(newest, max(beyond[0] - 1, after + 1))
        return first, self._first_row_above(through), through

    def _last_revision(self) -> int:
        row = self._db.execute("SELECT revision FROM change ORDER BY id DESC LIMIT 1").fetchone()
        return 0 if row is None else int(row[0])

    def _first_row_above(self, revision: int) -> int:
        # Ids and revisions rise together, so halving finds the row without an index to write.
        (last,) = self._db.execute("SELECT coalesce(max(id), 0) FROM change").fetchone()
        low, high = 1, last + 1
        while low < high:
            middle = (low + high) // 2
            found = self._db.execute(
                "SELECT id, revision FROM change WHERE id >= ? ORDER BY id LIMIT 1", (middle,)
            ).fetchone()
            if found[1] > revision:
                high = middle
            else:
                low = found[0] + 1
        return low
