"""
All records in memory, kept current by one watch, as an informer of Kubernetes: what the API answers from.

A question first asks the store for its revision and waits until the informer has reached it, so an
answer never lags behind a change that was acknowledged before. The records themselves are grouped by
:class:`unisono.control.snapshot.Snapshot`; what a user sees of them is made in :mod:`unisono.api.views`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable

from unisono.control.records import ELSEWHERE, LEADER_KEY
from unisono.control.snapshot import Snapshot
from unisono.store.base import Compacted, NotDone, Store
from unisono.store.base import Snapshot as Stored

_MERGE = 0.1  # seconds: changes closer together than this are shown as one
_RETRY_SECONDS = 0.5

_log = logging.getLogger(__name__)


class Informer:
    """Follows the store while :meth:`run` runs."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._snapshot = Snapshot()
        self._moved = asyncio.Condition()
        self._started = asyncio.Event()
        self._on_services: list[Callable[[], None]] = []

    async def run(self) -> None:
        """
        Follow the store until cancelled; returns only when the store was closed.

        Raises:
            StoreError: It can't be read at first. Later it is waited for.
        """
        stored = await self._store.scan("")
        while True:
            await self._move(Snapshot.of(stored))
            self._started.set()
            try:
                watch = self._store.watch("", after=stored.revision, marks=True, without=ELSEWHERE)
                async for batch in watch:
                    await self._move(self._snapshot.after((batch,)))
            except Compacted:
                stored = await self._read_anew()  # too far behind
                continue
            return

    async def _read_anew(self) -> Stored:
        while True:
            try:
                return await self._store.scan("")
            except NotDone as error:
                _log.warning("the store can't be read anew, trying again: %s", error)
                await asyncio.sleep(_RETRY_SECONDS)

    async def now(self) -> Snapshot:
        """All records, with everything in it that was acknowledged before this call."""
        await self._started.wait()
        revision = (await self._store.scan(LEADER_KEY)).revision
        return await self.reached(revision)

    @property
    def latest(self) -> Snapshot:
        """All records as far as they have been followed: where a moment's delay does no harm."""
        return self._snapshot

    async def reached(self, revision: int) -> Snapshot:
        """All records, once the informer stands at ``revision`` or later."""
        async with self._moved:
            await self._moved.wait_for(lambda: self._snapshot.revision >= revision)
            return self._snapshot

    def on_services(self, changed: Callable[[], None]) -> None:
        """Call ``changed`` each time the records of services have changed, in the step that shows it."""
        self._on_services.append(changed)

    async def changes(self) -> AsyncIterator[Snapshot]:
        """All records now, and again after each change; changes close together come as one."""
        snapshot = await self.now()
        while True:
            yield snapshot
            await asyncio.sleep(_MERGE)
            snapshot = await self.reached(snapshot.revision + 1)

    async def _move(self, snapshot: Snapshot) -> None:
        async with self._moved:
            before, self._snapshot = self._snapshot, snapshot
            if before.services is not snapshot.services:
                for changed in self._on_services:
                    changed()
            self._moved.notify_all()
