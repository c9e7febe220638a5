"""What the API knows of the store after that was away: a node that runs waits for it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from unisono.api.informer import Informer
from unisono.control.records import Application, application_key, encode
from unisono.store.base import Batch, Compacted, NotDone, Put, Snapshot
from unisono.store.sqlite import SqliteStore

LIMIT = 30.0


class Away(SqliteStore):
    """A store that compacts its first watch away, and then does not answer so many scans."""

    silent = 0
    watches = 0

    def watch(self, prefix: str, **options: Any) -> AsyncIterator[Batch]:  # type: ignore[override]
        self.watches += 1
        return self._lost() if self.watches == 1 else super().watch(prefix, **options)

    async def scan(self, prefix: str, **options: Any) -> Snapshot:
        if prefix == "" and self.watches and self.silent:
            self.silent -= 1
            raise NotDone("no member answered")
        return await super().scan(prefix, **options)

    async def _lost(self) -> AsyncIterator[Batch]:
        application = Application(name="shop", source="", services=())
        await self.transact(success=(Put(key=application_key("shop"), value=encode(application)),))
        raise Compacted(1)
        yield


async def test_a_store_that_is_away_when_all_is_read_anew_is_waited_for(tmp_path: Path) -> None:
    """The watch fell behind a compaction, nobody answers twice, and then all is known."""
    store = await Away.open(tmp_path / "store.db")
    assert isinstance(store, Away)
    store.silent = 2
    informer = Informer(store)
    running = asyncio.create_task(informer.run())
    try:
        async with asyncio.timeout(LIMIT):
            await informer.now()
            async for snapshot in informer.changes():
                if snapshot.applications:
                    break
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await store.close()

    assert ["shop"] == list(snapshot.applications)
    assert 0 == store.silent


async def test_a_store_that_can_not_be_read_at_first_is_told(tmp_path: Path) -> None:
    """A node that starts then ends, and says why."""
    store = await Away.open(tmp_path / "store.db")
    assert isinstance(store, Away)
    store.silent = store.watches = 1
    try:
        with pytest.raises(NotDone, match="no member answered"):
            await Informer(store).run()
    finally:
        await store.close()
