"""
What happens in etcd, told to this store's watches: one etcd watch feeds them all.

The Follower watches all keys of the store from where the first watch begins, publishes each revision to the
hub of :mod:`unisono.store.watching`, and remembers the last ones for watches that begin a little in the past.
Whatever is older is read with an etcd watch of its own.

A watch of etcd is opened at the last revision that was seen, that one included, and what was seen is dropped:
so nothing is missed where a compaction took place at just that revision, nothing comes twice, and a member
that sends old events again (etcd 15271, 20221) does no harm. When the etcd watch breaks it is opened again
at another member. When it has fallen behind a compaction, all watches fall back to what they have seen, find
out that it is gone, and end with Compacted.

How far a watch is, etcd says only now and then. When somebody needs to know, the Follower writes the *mark*,
a key that no caller sees, and waits for that to come by.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from itertools import groupby

from unisono.store.base import Batch, Event, NotDone, StoreError
from unisono.store.etcd import wire_pb2 as wire
from unisono.store.etcd.connection import CallFailed, Connection, Patience
from unisono.store.etcd.keys import Keys
from unisono.store.watching import Feed, Hub, Page, Scope

_RECENT_BATCHES_MAX = 4096
_RECENT_BYTES_MAX = 16 * 1024 * 1024
_PAGE_BATCHES = 2048
_MARK_SECONDS = 0.05  # until the mark is written for who waits for one
_SILENCE_SECONDS = 0.25  # without history, after which the mark is written, to see whether that was all
_PAUSE_MIN, _PAUSE_MAX = 0.02, 1.0
_NEVER = 1 << 63  # a revision that none reaches: before the first is known, nobody is up to date

_log = logging.getLogger("unisono.store")


class _Gap(Exception):
    """The etcd watch can't go on from where it was; ``revision`` is the oldest that is left."""

    def __init__(self, revision: int) -> None:
        super().__init__(revision)
        self.revision = revision


class Follower:
    """Feeds a hub from etcd; begins when first asked, and goes on until :meth:`end`."""

    def __init__(self, connection: Connection, keys: Keys, hub: Hub) -> None:
        self._connection = connection
        self._keys = keys
        self._hub = hub
        hub.revision = _NEVER
        self._begun: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._task: asyncio.Task[None] | None = None
        self._recent = _Recent()
        self._wanted = _NEVER  # where the first watches want to begin
        self._newest = 0  # the highest revision that etcd told anyone here
        self._timer: asyncio.TimerHandle | None = None
        self._marking: asyncio.Task[None] | None = None
        self._moved = asyncio.Event()

    def learn(self, revision: int) -> None:
        """etcd answered with this revision: who wants marks shall be told up to it."""
        self._newest = max(self._newest, revision)
        self.look()

    def look(self) -> None:
        """See in a moment whether somebody waits for a mark."""
        if self._hub.revision < self._newest and self._timer is None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(_MARK_SECONDS, self._mark_if_behind, self._newest)

    async def read_on(self, feed: Feed) -> None:
        """Give a watch what it lacks, or a part of it."""
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name="unisono-etcd-follower")
        if not self._begun.done():
            self._wanted = min(self._wanted, feed.through)
            await asyncio.wait([self._begun])
            return
        after = feed.through
        if after >= self._recent.floor:
            self._hub.extend(feed, after, self._recent.page(feed.scope, after, self._hub.revision))
            return
        try:
            page = await self._history(feed.scope, after, self._recent.floor)
        except _Gap as gap:
            self._hub.compacted = max(self._hub.compacted, gap.revision)
        except CallFailed as failed:
            _log.debug("history could not be read: %s", failed.reason)
            await asyncio.sleep(_PAUSE_MIN)
        else:
            self._hub.extend(feed, after, page)

    async def reach(self, revision: int) -> None:
        """Wait until watches have been fed up to ``revision``; not at all if there were none."""
        while self._task is not None and not (self._begun.done() and self._hub.revision >= revision):
            self._moved.clear()
            await self._moved.wait()

    async def oldest(self) -> int:
        """The revision up to which etcd has been compacted; 0: it has not been."""
        patience = Patience()
        while True:
            try:
                await self._history(Scope(""), 1, 1)
            except _Gap as gap:
                return gap.revision
            except CallFailed as failed:
                if not await patience.pause():
                    raise NotDone(self._connection.silence(failed)) from failed
            else:
                return 0

    async def end(self) -> None:
        """Stop; watches are fed no more."""
        if self._timer is not None:
            self._timer.cancel()
        for task in (self._task, self._marking):
            if task is not None:
                task.cancel()
                await asyncio.wait([task])
        if not self._begun.done():
            self._begun.set_result(None)

    async def _run(self) -> None:
        pause = _PAUSE_MIN
        told = False
        while True:
            before = self._hub.revision
            try:
                if self._hub.revision == _NEVER:
                    current = await self._current()
                    self._start_at(min(current, self._wanted))
                await self._stream(self._hub.revision, self._publish)
            except _Gap as gap:
                self._start_over(gap)
            except (CallFailed, StoreError) as error:
                if not told and pause > _PAUSE_MAX / 4:
                    _log.warning("watches of the etcd at %s wait: %s", self._connection, error)
                    told = True
            if self._hub.revision != before:
                pause, told = _PAUSE_MIN, False
            await asyncio.sleep(pause)
            pause = min(pause * 2, _PAUSE_MAX)

    def _start_over(self, gap: _Gap) -> None:
        """What was compacted before it was seen is lost: all watches have to know."""
        self._hub.compacted = max(self._hub.compacted, gap.revision)
        self._hub.interrupt()
        self._hub.revision = self._wanted = _NEVER
        self._begun = asyncio.get_running_loop().create_future()

    def _start_at(self, revision: int) -> None:
        self._recent.clear(revision)
        self._hub.revision = revision
        self._moved.set()
        if not self._begun.done():
            self._begun.set_result(None)
        self.look()

    async def _current(self) -> int:
        answer = await self._connection.ask("range", wire.RangeRequest(key=self._keys.mark))
        return int(answer.header.revision)

    async def _stream(self, revision: int, publish: Callable[[wire.WatchResponse], bool]) -> None:
        """
        Watch all keys from ``revision`` on, until ``publish`` returns true.

        Raises:
            CallFailed: The stream ended.
            _Gap: That revision has been compacted.
        """
        first, end = self._keys.everything()
        request = wire.WatchCreateRequest(
            key=first, range_end=end, start_revision=max(1, revision), progress_notify=True, fragment=True
        )
        whole = wire.WatchResponse()

        async def consume(answer: wire.WatchResponse) -> bool:
            if answer.compact_revision:
                raise _Gap(answer.compact_revision)
            if answer.fragment or whole.events:
                whole.events.extend(answer.events)
                if answer.fragment:
                    return False
                whole.header.CopyFrom(answer.header)
                answer = wire.WatchResponse()
                answer.CopyFrom(whole)
                whole.Clear()
            # Without a watch's own id it is an answer to a request for progress, which says nothing here.
            return not answer.created and answer.watch_id >= 0 and publish(answer)

        await self._connection.watching(request, consume)

    def _publish(self, answer: wire.WatchResponse) -> bool:
        if not answer.events and answer.header.revision > self._hub.revision:
            self._hub.publish(answer.header.revision, ())  # progress: all up to there has been sent
        for revision, events in self._revisions(answer.events, self._hub.revision):
            self._recent.add(Batch(revision=revision, events=tuple(events)))
            self._hub.publish(revision, events)
        self._moved.set()
        return False

    def _revisions(self, events: Iterable[wire.Event], after: int) -> Iterator[tuple[int, list[Event]]]:
        """The events of each revision above ``after``; without the mark, which may leave none."""
        for revision, group in groupby(events, key=lambda event: event.kv.mod_revision):
            if revision > after:
                yield revision, [self._event(event) for event in group if event.kv.key != self._keys.mark]

    def _event(self, event: wire.Event) -> Event:
        removed = event.type == wire.Event.DELETE
        return Event(
            key=self._keys.name(event.kv.key),
            revision=event.kv.mod_revision,
            entry=None if removed else self._keys.entry(event.kv),
        )

    async def _history(self, scope: Scope, after: int, until: int) -> Page:
        """
        The batches of ``scope`` above ``after``, up to ``until`` or to where a page is full.

        Raises:
            CallFailed: The stream ended.
            _Gap: They have been compacted.
        """
        batches: list[Batch] = []
        through = after
        size = 0

        def collect(answer: wire.WatchResponse) -> bool:
            nonlocal through, size
            for revision, events in self._revisions(answer.events, through):
                matching = tuple(event for event in events if scope.covers(event.key))
                if matching:
                    batches.append(Batch(revision=revision, events=matching))
                    size += _size(matching)
                through = revision
            timer.restart()
            return through >= until or len(batches) >= _PAGE_BATCHES or size >= _RECENT_BYTES_MAX

        timer = _Timer(_SILENCE_SECONDS, self._write_mark)
        timer.restart()
        try:
            await self._stream(after, collect)
        finally:
            timer.cancel()
        return Page(batches, through)

    def _mark_if_behind(self, revision: int) -> None:
        self._timer = None
        if self._hub.revision >= revision:
            self.look()
        elif self._hub.marking:
            self._write_mark()

    def _write_mark(self) -> None:
        if self._marking is None or self._marking.done():
            self._marking = asyncio.create_task(self._put_mark(), name="unisono-etcd-mark")

    async def _put_mark(self) -> None:
        """Make a revision that all watches of this store see. Doing so twice does no harm."""
        try:
            answer = await self._connection.ask("put", wire.PutRequest(key=self._keys.mark))
            self.learn(answer.header.revision)
        except (CallFailed, StoreError, ValueError) as error:
            _log.debug("the mark could not be written: %s", error)
            self.look()


class _Timer:
    """Calls back once nothing has happened for a while, and again as long as nothing does."""

    def __init__(self, seconds: float, call: Callable[[], None]) -> None:
        self._seconds = seconds
        self._call = call
        self._handle: asyncio.TimerHandle | None = None

    def restart(self) -> None:
        """Something has happened."""
        self.cancel()
        self._handle = asyncio.get_running_loop().call_later(self._seconds, self._due)

    def cancel(self) -> None:
        """Call no more."""
        if self._handle is not None:
            self._handle.cancel()

    def _due(self) -> None:
        self._call()
        self.restart()


class _Recent:
    """The last batches, all of the store above the revision ``floor``."""

    def __init__(self) -> None:
        self.floor = _NEVER
        self._batches: deque[Batch] = deque()
        self._bytes = 0

    def clear(self, floor: int) -> None:
        """Forget all; what comes is above ``floor``."""
        self.floor = floor
        self._batches.clear()
        self._bytes = 0

    def add(self, batch: Batch) -> None:
        """One more; the oldest go when there are too many."""
        self._batches.append(batch)
        self._bytes += _size(batch.events)
        while len(self._batches) > _RECENT_BATCHES_MAX or self._bytes > _RECENT_BYTES_MAX:
            oldest = self._batches.popleft()
            self._bytes -= _size(oldest.events)
            self.floor = oldest.revision

    def page(self, scope: Scope, after: int, newest: int) -> Page:
        """What came after ``after`` in ``scope``, up to ``newest``, the last revision, or a page full."""
        found: list[Batch] = []
        for batch in self._batches:
            if batch.revision <= after:
                continue
            events = tuple(event for event in batch.events if scope.covers(event.key))
            if events:
                found.append(Batch(revision=batch.revision, events=events))
            if len(found) >= _PAGE_BATCHES:
                return Page(found, batch.revision)
        return Page(found, newest)


def _size(events: Iterable[Event]) -> int:
    return sum(len(event.key) + (len(event.entry.value) if event.entry else 0) for event in events) + 64
