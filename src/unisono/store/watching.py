"""
Watches: each is fed from the history until it has caught up, then live, without gap or repeat between.

The Hub knows who watches what and feeds them each revision, in order; a Watch is what a caller iterates.
Both live on the event loop, so that "have I caught up?" and "feed me from now on" are one step. Where
revisions come from is the engine's: it publishes what is new, and hands in a function that reads the history.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import NamedTuple, Protocol

from unisono.store.base import Batch, Compacted, Entry, Event

FEED_BATCHES_MAX = 256
FEED_BYTES_MAX = 16 * 1024 * 1024


class Change(Protocol):
    """What a revision did to one key; ``entry`` is ``None`` when the key was removed."""

    @property
    def key(self) -> str: ...  # noqa: D102
    @property
    def entry(self) -> Entry | None: ...  # noqa: D102


class Scope(NamedTuple):
    """The keys that a watch is about: all that begin with ``prefix``, but those under ``without``."""

    prefix: str
    without: tuple[str, ...] = ()

    def covers(self, key: str) -> bool:
        """Whether a key is one of them."""
        return key.startswith(self.prefix) and not key.startswith(self.without)


class Page(NamedTuple):
    """A piece of history: all batches of a scope above some revision and up to ``through``."""

    batches: Sequence[Batch]
    through: int


class Feed:
    """
    What one watch has not taken yet.

    Invariant: every batch up to ``through`` has been taken or is here, and none above it.
    """

    def __init__(self, scope: Scope, after: int, marks: bool) -> None:
        self.scope = scope
        self.through = after
        self.marks = marks  # also wants to be told of revisions that did not touch the scope
        self.told = after  # the revision of the last batch or mark taken
        self.live = False  # the hub feeds it
        self.batches: deque[Batch] = deque()
        self._size = 0
        self._waiter: asyncio.Future[None] | None = None

    def full(self) -> bool:
        """Whether what waits here is at its limit."""
        return len(self.batches) >= FEED_BATCHES_MAX or self._size >= FEED_BYTES_MAX

    def add(self, batch: Batch, size: int) -> None:
        """One more, and ``through`` moves to it."""
        self.batches.append(batch)
        self._size += size
        self.through = batch.revision
        self.wake()

    def take(self) -> Batch:
        """The oldest; there must be one."""
        batch = self.batches.popleft()
        self.told = batch.revision
        if not self.batches:
            self._size = 0  # good enough: it is a brake, and it frees itself whenever the watch catches up
        return batch

    def wake(self) -> None:
        """Whoever waits looks again."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def changed(self) -> None:
        """Wait for :meth:`wake`."""
        self._waiter = asyncio.get_running_loop().create_future()
        await self._waiter


class Hub:
    """Feeds each revision to those who watch it. ``revision`` is the last one published."""

    def __init__(self, revision: int) -> None:
        self.revision = revision
        self.compacted = 0
        self.closed = False
        self._open: set[Feed] = set()
        # A watch that nobody refers to any more may be collected on any thread and at any moment: it only
        # leaves its feed here, for the loop to drop.
        self.abandoned: deque[Feed] = deque()
        # Feeds by prefix and scope, and how many prefixes have each length: a key is looked up once per
        # length, however many watch.
        self._groups: dict[str, dict[Scope, set[Feed]]] = {}
        self._lengths: Counter[int] = Counter()
        self._marked: set[Feed] = set()  # those fed that want marks

    @property
    def marking(self) -> bool:
        """Whether anyone wants marks."""
        return any(feed.marks for feed in self._open)

    def open(self, feed: Feed) -> None:
        """Count a feed among those that :meth:`close` wakes."""
        self._open.add(feed)

    def drop(self, feed: Feed) -> None:
        """Forget a feed."""
        self._open.discard(feed)
        self._leave(feed)

    def join(self, feed: Feed) -> bool:
        """
        Feed it from now on, if it lacks nothing that was published.

        Raises:
            Compacted: It lacks what is no longer kept.
        """
        if feed.through < self.revision:
            if feed.through < self.compacted:
                raise Compacted(self.compacted)
            return False
        prefix = feed.scope.prefix
        if prefix not in self._groups:
            self._groups[prefix] = {}
            self._lengths[len(prefix)] += 1
        self._groups[prefix].setdefault(feed.scope, set()).add(feed)
        if feed.marks:
            self._marked.add(feed)
        feed.live = True
        return True

    def extend(self, feed: Feed, after: int, page: Page) -> None:
        """Give it a page of what comes after ``after``; if that was all, feed it from now on."""
        if feed not in self._open or feed.through != after:
            return  # closed meanwhile, or the step that asked was cancelled and another has asked again
        for batch in page.batches:
            feed.add(batch, 0)
        feed.through = page.through
        if feed.through >= self.revision:
            self.join(feed)

    def publish(self, revision: int, changes: Iterable[Change]) -> None:
        """Feed one transaction's changes to all who watch one of its keys."""
        self.revision = revision
        while self.abandoned:
            self.drop(self.abandoned.popleft())
        for scope, events in self._match(revision, changes).items():
            batch = Batch(revision=revision, events=tuple(events))
            size = sum(len(event.entry.value) for event in events if event.entry is not None)
            for feed in tuple(self._groups[scope.prefix][scope]):
                self._feed(feed, batch, size)
        for feed in self._marked:
            feed.wake()

    def interrupt(self) -> None:
        """Feed nobody any more: what comes next does not follow on what was published last."""
        for feed in [feed for scopes in self._groups.values() for group in scopes.values() for feed in group]:
            feed.through = max(feed.through, self.revision)
            self._leave(feed)
            feed.wake()

    def close(self) -> None:
        """End all watches, after what they have waiting."""
        self.closed = True
        for feed in self._open:
            feed.wake()

    def _match(self, revision: int, changes: Iterable[Change]) -> dict[Scope, list[Event]]:
        matched: dict[Scope, list[Event]] = {}
        groups = self._groups
        for change in changes:
            key = change.key
            event: Event | None = None  # made when somebody wants it: most changes nobody watches
            for length in self._lengths:
                for scope in groups.get(key[:length], ()) if length <= len(key) else ():
                    if not key.startswith(scope.without):
                        event = event or Event(key=key, revision=revision, entry=change.entry)
                        matched.setdefault(scope, []).append(event)
        return matched

    def _feed(self, feed: Feed, batch: Batch, size: int) -> None:
        if batch.revision <= feed.through:
            return  # it asked for later ones only
        if feed.full():
            # Too slow. It keeps what it has and reads the rest from the history, so that neither
            # memory grows nor the writer waits. All before this batch it has seen: go on from there.
            feed.through = batch.revision - 1
            self._leave(feed)
            return
        feed.add(batch, size)

    def _leave(self, feed: Feed) -> None:
        if not feed.live:
            return
        feed.live = False
        self._marked.discard(feed)
        scopes = self._groups[feed.scope.prefix]
        scopes[feed.scope].discard(feed)
        if scopes[feed.scope]:
            return
        del scopes[feed.scope]
        if scopes:
            return
        del self._groups[feed.scope.prefix]
        length = len(feed.scope.prefix)
        self._lengths[length] -= 1
        if not self._lengths[length]:
            del self._lengths[length]


class Watch:
    """
    An endless iterator over batches; ends when the store is closed. Made by the store.

    ``read`` asks the history for what a feed lacks, and returns when :meth:`Hub.extend` was given it.
    Only one task at a time may iterate it. Dropping the last reference lets go of it, and so does
    :meth:`aclose`.
    """

    def __init__(
        self, hub: Hub, scope: Scope, after: int, marks: bool, read: Callable[[Feed], Awaitable[None]]
    ) -> None:
        self._hub = hub
        self._read = read
        self._feed = Feed(scope, after, marks)
        self._busy = False
        self._closed = False
        hub.open(self._feed)

    def __aiter__(self) -> Watch:
        return self

    async def __anext__(self) -> Batch:
        if self._busy:
            raise RuntimeError("two tasks iterate one watch; each needs its own")
        self._busy = True
        try:
            return await self._next()
        finally:
            self._busy = False

    async def aclose(self) -> None:
        """End it; what waits in it is lost."""
        self._closed = True
        self._feed.batches.clear()
        self._hub.drop(self._feed)
        self._feed.wake()

    def __del__(self) -> None:
        self._hub.abandoned.append(self._feed)

    async def _next(self) -> Batch:
        feed = self._feed
        while not feed.batches:
            if self._closed or self._hub.closed:
                raise StopAsyncIteration
            if feed.live:
                if feed.marks and feed.told < self._hub.revision:
                    feed.told = self._hub.revision
                    return Batch(revision=feed.told, events=())
                await feed.changed()
            elif not self._hub.join(feed):
                await self._read(feed)
        return feed.take()
