"""
Watches that need no care: nothing missed, nothing twice, and never stuck behind a compaction.

A store's watch ends with Compacted when it has fallen too far behind, and after a failover some engines
send old events again. Here the first becomes a *resync*: one batch with all there is, and a removal for
each key that this watch had shown and that is gone. A store that was set back leads to one, too.
The second is dropped.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass

from unisono.state.names import END
from unisono.store.base import Batch, Compacted, Event, Store


@dataclass(frozen=True, kw_only=True)
class Changes:
    """
    All that happened at one revision under the watched prefix, or with ``resync`` all there is.

    After a resync, whatever is not among its events does not exist. It stands for all changes up to
    ``revision``; its events bear the revision that last changed their key, removals ``revision``.
    """

    revision: int
    events: tuple[Event, ...]
    resync: bool = False


class ResyncingWatch:
    """
    An endless iterator over the changes under ``prefix``; ends when the store is closed.

    Args:
        after: Begin with what came after this revision; ``None``: begin with a resync.

    Cancelling one step loses nothing: the next goes on from there. Only one task at a time may iterate.
    """

    def __init__(self, store: Store, prefix: str, *, after: int | None = None) -> None:
        self._store = store
        self._prefix = prefix
        self._keys: set[str] = set()  # shown and not removed since
        self._seen = after  # the revision up to which all has been shown; None: nothing has
        self._watch: AsyncIterator[Batch] | None = None

    def __aiter__(self) -> ResyncingWatch:
        return self

    async def __anext__(self) -> Changes:
        while True:
            if self._seen is None:
                return await self._resync()
            if self._watch is None:
                # A cheap look, for it finds one key at most: is what was seen still in the past?
                if (await self._store.scan(self._prefix + END)).revision < self._seen:
                    self._seen = None
                    continue
                self._watch = self._store.watch(self._prefix, after=self._seen)
            try:
                batch = await anext(self._watch)
            except Compacted:
                self._watch = None
                self._seen = None
                continue
            if batch.revision <= self._seen:
                continue  # an old one, sent again
            return self._show(Changes(revision=batch.revision, events=batch.events))

    async def aclose(self) -> None:
        """Let go of it; dropping the last reference does the same, later."""
        watch, self._watch = self._watch, None
        aclose = getattr(watch, "aclose", None)
        if aclose is not None:
            await aclose()

    async def _resync(self) -> Changes:
        snapshot = await self._store.scan(self._prefix)
        there = {entry.key for entry in snapshot.entries}
        removed = sorted(self._keys - there)
        events = [Event(key=key, revision=snapshot.revision, entry=None) for key in removed]
        events += [Event(key=entry.key, revision=entry.modified, entry=entry) for entry in snapshot.entries]
        return self._show(Changes(revision=snapshot.revision, events=tuple(events), resync=True))

    def _show(self, changes: Changes) -> Changes:
        self._seen = changes.revision
        for event in changes.events:
            if event.entry is None:
                self._keys.discard(event.key)
            else:
                self._keys.add(event.key)
        return changes
