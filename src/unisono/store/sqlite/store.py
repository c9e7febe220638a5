"""
The store on SQLite: the promise of :mod:`unisono.store.base`, for one process on one machine.

A transaction is decided on the event loop against the newest state, queued, committed together with all
that waits (:mod:`.writer`), and then, in one step on the loop: taken over into memory, fed to watches,
acknowledged. So a read needs neither thread nor file, sees only what is durable, and sees all that was
acknowledged: it is linearizable.

Here are the operations, the timer of leases and the retention. All methods belong to the loop on which the
store was opened.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from functools import partial
from itertools import starmap
from pathlib import Path
from typing import Any, TypeVar

from unisono.store import limits
from unisono.store.base import (
    Broken,
    Compacted,
    Compare,
    Delete,
    Entry,
    LeaseEnded,
    NotDone,
    Outcome,
    Put,
    Snapshot,
    StoreError,
)
from unisono.store.local import Follower
from unisono.store.sqlite.entries import Change, Head
from unisono.store.sqlite.file import Contents, File
from unisono.store.sqlite.leases import Leases
from unisono.store.sqlite.retention import Retention
from unisono.store.sqlite.writer import Ended, Job, Writer
from unisono.store.watching import Feed, Hub, Scope, Watch

R = TypeVar("R")

KEEP_REVISIONS = 10_000
KEEP_BYTES = 256 * 1024 * 1024
_WAITING_BYTES_MAX = 256 * 1024 * 1024
_RETRY_SECONDS = 1.0  # until the end of a lease is tried again after the disk refused it

_log = logging.getLogger("unisono.store")


class SqliteStore:
    """
    A store in one file; made by :meth:`open`.

    It compacts itself: the last ``keep_revisions`` revisions can be read and watched, and not many more are
    kept; fewer where more than ``keep_bytes`` were written since. So the file stops growing with the entries.
    """

    def __init__(
        self,
        path: Path,
        writer: Writer,
        contents: Contents,
        clock: Callable[[], float],
        retention: Retention,
    ) -> None:
        self._path = path
        self._writer = writer
        self._clock = clock
        self._retention = retention
        self._loop = asyncio.get_running_loop()
        self._committed = contents.committed
        self._head = Head(contents.committed)
        self._hub = Hub(contents.committed.revision)
        self._hub.compacted = contents.compacted
        self._leases = Leases(contents.leases, clock())
        self._last_lease = contents.last_lease
        self._era = 0
        self._waiting_bytes = 0
        self._stopped = False  # no write can succeed any more
        self._followers: list[Follower] = []
        self._applied: list[Change] = []  # of the batch that is just being acknowledged
        self._timer: asyncio.TimerHandle | None = None
        self._compaction: asyncio.Task[None] | None = None
        self._closing: asyncio.Task[None] | None = None
        self._set_timer()

    @classmethod
    async def open(
        cls,
        path: Path,
        *,
        clock: Callable[[], float] = time.monotonic,
        keep_revisions: int = KEEP_REVISIONS,
        keep_bytes: int = KEEP_BYTES,
    ) -> SqliteStore:
        """
        Open the store in the file ``path``, making it if it does not exist; its folder must exist.

        All leases get their full time anew: nobody could renew them while the store was away, and how
        long that was a monotonic clock can't tell. Too late is a delay; too early is two holders.

        Raises:
            Broken: It can't be opened, is in use by another process, damaged, or of a newer format.
        """
        store: SqliteStore | None = None

        def acknowledge(ended: Ended) -> None:
            if store is not None:
                store._acknowledge(ended)

        writer = Writer(path, acknowledge)
        contents = await writer.start()
        retention = Retention(keep_revisions, keep_bytes, contents.committed.revision)
        store = cls(path, writer, contents, clock, retention)
        return store

    async def get(self, key: str) -> Entry | None:
        """The entry of ``key`` now; never waits."""
        if self._closing is not None:
            raise self._closed_error()
        limits.check_key(key)
        return self._committed.entries.get(key)

    async def scan(self, prefix: str, *, revision: int | None = None) -> Snapshot:
        """All entries under ``prefix``; never waits when it is for the current revision."""
        self._check_open()
        limits.check_prefix(prefix)
        newest = self._committed.revision
        if revision is None or revision == newest:
            return Snapshot(revision=newest, entries=self._committed.scan(prefix))
        limits.check_revision(revision, newest)
        return await self._scan_back(prefix, revision)

    async def transact(
        self,
        *,
        compares: Sequence[Compare] = (),
        success: Sequence[Put | Delete] = (),
        failure: Sequence[Put | Delete] = (),
    ) -> Outcome:
        """See :meth:`unisono.store.base.Store.transact`."""
        self._check_open()
        size = limits.check_transaction(compares, success, failure)
        self._check_room(size)
        succeeded = all(map(self._head.holds, compares))
        changes = self._head.run(success if succeeded else failure, self._alive)
        outcome = Outcome(succeeded=succeeded, revision=self._head.revision)
        if outcome.revision == self._committed.revision:
            return outcome  # it read only what is durable
        # One that changes nothing waits too: what it read must not vanish after it has been told.
        return await self._submit(lambda _: self._apply(changes, outcome), changes=changes, size=size)

    async def put_each(self, puts: Sequence[tuple[str, bytes]]) -> Sequence[int]:
        """See :meth:`unisono.store.local.LocalStore.put_each`."""
        self._check_open()
        size = sum(starmap(limits.check_put, puts))
        self._check_room(size)
        changes = self._head.put_each(puts)

        def applied(_: object) -> Sequence[int]:
            self._take_over(changes)
            for change in changes:
                self._hub.publish(change.revision, (change,))
            return [change.revision for change in changes]

        return await self._submit(applied, changes=changes, size=size)

    def follow(self, prefix: str, follower: Follower) -> Snapshot:
        """See :meth:`unisono.store.local.LocalStore.follow`."""
        self._check_open()
        self._followers.append(follower)
        return Snapshot(revision=self._committed.revision, entries=self._committed.scan(prefix))

    def unfollow(self, follower: Follower) -> None:
        """See :meth:`unisono.store.local.LocalStore.unfollow`."""
        self._followers.remove(follower)

    def watch(self, prefix: str, *, after: int, marks: bool = False, without: tuple[str, ...] = ()) -> Watch:
        """See :meth:`unisono.store.base.Store.watch`; the iterator also has ``aclose()``."""
        self._check_open()
        limits.check_prefix(prefix)
        if after < 0:
            raise ValueError(f"a watch after revision {after}; the least is 0")
        return Watch(self._hub, Scope(prefix, without), after, marks, self._read_on)

    async def grant(self, ttl: float) -> int:
        """A new lease; durable on return."""
        self._check_open()
        limits.check_ttl(ttl)
        self._last_lease += 1
        id = self._last_lease

        def applied(_: object) -> int:
            # Its time starts now, not when it was asked for: no holder may think it has longer.
            self._leases.add(id, ttl, self._clock())
            self._set_timer()
            return id

        return await self._submit(applied, work=partial(File.add_lease, id=id, ttl=ttl))

    async def keep_alive(self, lease: int) -> None:
        """Start the lease's time anew, in memory: after a restart it has its full time anyway."""
        self._check_open()
        if self._head.ending(lease) or not self._leases.renew(lease, self._clock()):
            raise LeaseEnded(lease)

    async def revoke(self, lease: int) -> None:
        """End a lease; its keys are gone on return, also if it was just ending."""
        self._check_open()
        if self._head.ending(lease):
            await self._submit(lambda _: None)
        elif self._leases.known(lease):
            await self._end_lease(lease)

    async def compact(self, revision: int) -> None:
        """See :meth:`unisono.store.base.Store.compact`; returns when the space is free for new changes."""
        self._check_open()
        limits.check_revision(revision, self._committed.revision)

        def applied(_: object) -> None:
            self._hub.compacted = max(self._hub.compacted, revision)

        if revision > self._hub.compacted:
            # First that it is so, on its own: a sweep never runs ahead of what readers are told.
            await self._submit(applied, work=partial(File.mark_compacted, revision=revision))
        while await self._submit(_as_is, work=File.sweep):
            pass

    async def close(self) -> None:
        """Finish what has been accepted, then let go of everything; a second call waits for the first."""
        if self._closing is None:
            self._closing = asyncio.create_task(self._close(), name="unisono-store-close")
        await asyncio.shield(self._closing)

    async def _close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._compaction is not None:
            self._compaction.cancel()
            await asyncio.wait([self._compaction])
        await self._writer.close()
        self._hub.close()

    def _submit(
        self,
        applied: Callable[[Any], R],
        *,
        changes: Sequence[Change] = (),
        size: int = 0,
        work: Callable[[File], Any] | None = None,
    ) -> asyncio.Future[R]:
        """Queue a job. Its future is only a window on it: cancelling that does not stop the job."""
        self._check_open()  # what comes after the writer's last job would never be answered
        future: asyncio.Future[R] = self._loop.create_future()
        self._waiting_bytes += size
        self._writer.submit(
            Job(era=self._era, future=future, applied=applied, changes=changes, size=size, work=work)
        )
        return future

    def _acknowledge(self, ended: Ended) -> None:
        """A batch has ended: one step, so that nobody sees half of it."""
        self._stopped |= ended.stopped
        if ended.resets:
            self._era += 1
            self._head.fall_back()
        written = 0
        for job in ended.jobs:
            self._waiting_bytes -= job.size
            if ended.fails is None:
                written += job.size
                result = job.applied(job.result)
                if not job.future.done():
                    job.future.set_result(result)
            elif not job.future.done():
                job.future.set_exception(ended.fails())
        if self._applied:
            # Before any of those futures' waiters runs: nobody hears of a change that followers do not have.
            for follower in self._followers:
                follower(self._applied, self._committed.revision)
            self._applied = []
        self._retention.wrote(self._committed.revision, written)
        self._compact_if_due()

    def _apply(self, changes: Sequence[Change], outcome: Outcome) -> Outcome:
        if changes:
            self._take_over(changes)
            self._hub.publish(outcome.revision, changes)
        return outcome

    def _take_over(self, changes: Sequence[Change]) -> None:
        self._committed.apply(changes)
        self._head.settle(changes)
        if self._followers:
            self._applied += changes

    async def _read_on(self, feed: Feed) -> None:
        """
        Give a watch the next page of the history.

        It goes up to the end of the batch in which it is read, and is taken over with that batch: so a watch
        catches up however fast others write.
        """
        after, newest = feed.through, self._committed.revision
        work = partial(File.history, scope=feed.scope, after=after, newest=newest)
        await self._submit(partial(self._hub.extend, feed, after), work=work)

    async def _scan_back(self, prefix: str, revision: int) -> Snapshot:
        """The entries now, with what was changed since ``revision`` taken back."""
        newest = self._committed.revision
        entries = {entry.key: entry for entry in self._committed.scan(prefix)}
        replaced: dict[str, int | None] = {}
        after = revision
        while after < newest:
            work = partial(File.replaced, prefix=prefix, after=after, newest=newest)
            page, after = await self._submit(_as_is, work=work)
            replaced = page | replaced
        self._check_kept(revision)  # what was read while it was being deleted does not count
        for key in replaced:
            entries.pop(key, None)
        rows = [row for row in replaced.values() if row is not None]
        while rows:
            self._check_kept(revision)
            found = await self._submit(_as_is, work=partial(File.entries, rows=rows))
            entries.update((entry.key, entry) for entry in found)
            rows = rows[len(found) :]
        return Snapshot(revision=revision, entries=tuple(entries[key] for key in sorted(entries)))

    def _end_lease(self, lease: int) -> asyncio.Future[Any]:
        changes = self._head.end_lease(lease)
        outcome = Outcome(succeeded=True, revision=self._head.revision)

        def applied(_: object) -> None:
            self._leases.remove(lease)
            self._head.lease_ended(lease)
            self._apply(changes, outcome)

        return self._submit(applied, changes=changes, work=partial(File.end_lease, id=lease))

    def _alive(self, lease: int) -> bool:
        return self._leases.alive(lease, self._clock())

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        deadline = self._leases.next_deadline()
        if deadline is not None:
            self._timer = self._loop.call_later(max(0.0, deadline - self._clock()), self._expire)

    def _expire(self) -> None:
        """End the leases whose time is up. The timer's; harmless at any other moment."""
        for lease in self._leases.due(self._clock()):
            if not self._head.ending(lease):
                self._end_lease(lease).add_done_callback(partial(self._expired, lease))
        self._set_timer()

    def _expired(self, lease: int, end: asyncio.Future[Any]) -> None:
        error = end.exception()
        if error is None or self._closing is not None or self._stopped:
            return
        _log.warning("lease %d has ended, but its keys could not be removed: %s", lease, error)
        self._leases.postpone(lease, self._clock() + _RETRY_SECONDS)
        self._set_timer()

    def _compact_if_due(self) -> None:
        due = self._retention.due(self._committed.revision, self._hub.compacted)
        if due is not None and self._compaction is None and self._closing is None:
            self._compaction = asyncio.create_task(
                self._compact_in_background(due), name="unisono-compaction"
            )

    async def _compact_in_background(self, revision: int) -> None:
        try:
            await self.compact(revision)
        except StoreError as error:
            if self._closing is None:
                _log.warning("old revisions could not be removed: %s", error)
        finally:
            self._compaction = None

    def _check_open(self) -> None:
        if self._closing is not None:
            raise self._closed_error()

    def _check_room(self, size: int) -> None:
        if self._waiting_bytes + size > _WAITING_BYTES_MAX:
            raise NotDone(f"{self._waiting_bytes} bytes wait to be written already: try again later")

    def _check_kept(self, revision: int) -> None:
        if revision < self._hub.compacted:
            raise Compacted(self._hub.compacted)

    def _closed_error(self) -> Broken:
        return Broken(f"{self._path} was closed: open it again")


def _as_is(value: Any) -> Any:
    return value
