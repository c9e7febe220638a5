"""
What was open is found again: after a restart a node's own, and what another left whose term has ended.

A node finds its own by reading the log when its term begins, and goes on without writing anything: its new
term keeps the one before from writing. Those of a node that is gone are claimed, each by one node alone.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing
from dataclasses import replace
from typing import Any

from unisono.store.base import Compare, Entry, Field, Put, Store
from unisono.transactions import records
from unisono.transactions.log import BATCH_BYTES, Deposed, Log
from unisono.transactions.records import Record
from unisono.transactions.retention import Retention

_CLAIMS = 50  # transactions that are claimed with one write
_STRETCH_SECONDS = 0.05  # for which taking up what was open keeps others of this node waiting

_log = logging.getLogger("unisono.transactions")


class Takeover:
    """
    What a node takes up in one term, ``log``'s; each is handed to ``resume`` as this node's.

    ``taken_up`` counts them. To be cancelled leaves each with the owner that the store names by then.
    """

    def __init__(
        self, store: Store, node: str, log: Log, retention: Retention, resume: Callable[[Record], None]
    ) -> None:
        self._store = store
        self._node = node
        self._log = log
        self._retention = retention
        self._resume = resume
        self.taken_up = 0

    async def recover(self) -> int:
        """
        Find everything again: our own open ones go on, those of nodes that are gone become ours.

        Returns:
            The revision of the store after which :meth:`follow` goes on.

        Raises:
            StoreError: As the store says, or Deposed; some may have been resumed.
        """
        self._retention.clear()
        # In this order: what a node that is alive now leaves later, the watch of nodes tells of.
        nodes = await self._store.scan(records.NODES)
        stored = await self._store.scan(records.ROOT)
        for floor in (await self._store.scan(records.FLOOR)).entries:
            self._retention.learn(floor.key, floor.value)
        alive = {entry.key.removeprefix(records.NODES) for entry in nodes.entries}
        final: list[tuple[float, str]] = []
        left: list[tuple[Entry, Record]] = []
        loop = asyncio.get_running_loop()
        rested = loop.time()
        for entry in stored.entries:
            if loop.time() - rested > _STRETCH_SECONDS:
                # Others of this node have work, too; but what goes on already waits for those still to come.
                await asyncio.sleep(0)
                rested = loop.time()
            record = records.readable(entry.key, entry.value)
            if record is None:
                continue
            if not records.is_open(entry.value):
                ours = record.owner == self._node or record.owner not in alive
                if ours and record.heuristic is None:  # those in doubt are kept for good
                    final.append((record.ended or record.began, entry.key))
            elif record.owner == self._node:
                self._take_up(record)
            elif record.owner not in alive:
                left.append((entry, record))
        self._retention.found(final)
        await self._claim_all(left)
        return nodes.revision

    async def follow(self, revision: int) -> None:
        """
        When another node's term ends, take over what it left; until cancelled.

        Raises:
            Deposed: This node's own key is gone.
            StoreError: As the store says.
        """
        changes: AsyncIterator[Any] = self._store.watch(records.COORDINATOR, after=revision)
        async with aclosing(changes):  # type: ignore[type-var]
            async for batch in changes:
                for event in batch.events:
                    if event.key.startswith(records.FLOOR):
                        if event.entry is not None:
                            self._retention.learn(event.key, event.entry.value)
                    elif event.entry is None:
                        node = event.key.removeprefix(records.NODES)
                        if node == self._node:
                            raise Deposed("this node's key is gone")
                        await self._inherit(node)

    async def claim(self, part: list[tuple[Entry, Record]]) -> bool:
        """
        Take over some that nobody has changed since, while their owners are gone; all of them or none.

        An owner that is back goes on without writing, so its absence is part of the same step. And so is our
        term: participants refuse an epoch below one that they have seen, so ours must lie above every one
        that an owner before us can have had.
        """
        owners = {record.owner for _, record in part}
        compares = [Compare(key=f"{records.NODES}{o}", field=Field.CREATED, target=0) for o in sorted(owners)]
        puts = []
        for entry, record in part:
            compares.append(Compare(key=entry.key, field=Field.MODIFIED, target=entry.modified))
            puts.append(Put(key=entry.key, value=replace(record, owner=self._node).encode()))
        if await self._log.take(compares, puts) is None:
            return False
        for _, record in part:
            record.owner = self._node
            self._take_up(record)
        return True

    async def _inherit(self, node: str) -> None:
        if await self._store.get(f"{records.NODES}{node}") is not None:
            return  # it is back
        stored = await self._store.scan(records.ROOT)
        left = []
        for entry in stored.entries:
            if records.is_open(entry.value):
                record = records.readable(entry.key, entry.value)
                if record is not None and record.owner == node:
                    left.append((entry, record))
        if left:
            _log.warning("taking over what the node %s left: open transactions, %d", node, len(left))
            await self._claim_all(left)

    async def _claim_all(self, left: list[tuple[Entry, Record]]) -> None:
        """As far as nobody else is quicker: what spoils a part does not keep us from the others of it."""
        for part in _parts(left):
            if not await self.claim(part):
                for one in part:
                    await self.claim([one])

    def _take_up(self, record: Record) -> None:
        self._resume(record)
        self.taken_up += 1


def _parts(left: list[tuple[Entry, Record]]) -> Iterator[list[tuple[Entry, Record]]]:
    """As few parts as may be, each no larger than one write of the log."""
    part: list[tuple[Entry, Record]] = []
    size = 0
    for one in left:
        size += len(one[0].value)
        if part and (len(part) == _CLAIMS or size > BATCH_BYTES):
            yield part
            part, size = [], len(one[0].value)
        part.append(one)
    if part:
        yield part
