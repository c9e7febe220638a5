"""Histories of many clients through bad connections, judged by a checker that is shown to find faults."""

from __future__ import annotations

import asyncio
import random

import pytest

from tests.state.virtual import FaultyStore, VirtualStore, now
from tests.store.linearizability import Operation, linearizable
from unisono.state.kv import Consistency, Kv, Read
from unisono.state.tokens import Tokens
from unisono.store.base import Store, StoreError

TOKENS = Tokens(b"secret" * 4)
CLIENTS = 5
STEPS = 8


class History:
    """What clients called and what they were told, in moments of one counter."""

    def __init__(self, store: Store, chance: random.Random) -> None:
        self._store = store
        self._chance = chance
        self._moment = 0
        self.operations: list[Operation] = []
        self.reads: list[list[int]] = []  # of each client, the revisions it saw

    async def record(self, consistency: Consistency) -> None:
        connections = [
            FaultyStore(self._store, random.Random(self._chance.random()), faults=0.1) for _ in range(CLIENTS)
        ]
        await asyncio.gather(
            *(
                self._client(number, Kv(connection, "shop", TOKENS, clock=now), consistency)
                for number, connection in enumerate(connections)
            )
        )
        for connection in connections:
            await connection.close()

    async def _client(self, number: int, kv: Kv, consistency: Consistency) -> None:
        seen: list[int] = []
        token = None
        self.reads.append(seen)
        for step in range(STEPS):
            called = self._tick()
            if self._chance.random() < 0.4:
                value = number * STEPS + step + 1
                token = await self._write(kv, value)
                self.operations.append(Operation("write", value, called, self._tick()))
            else:
                read = await self._read(kv, consistency, token)
                if consistency is Consistency.SESSION:
                    token = read.token
                value = 0 if read.entry is None else int(read.entry.value)
                seen.append(0 if read.entry is None else read.entry.modified)
                self.operations.append(Operation("read", value, called, self._tick()))

    async def _write(self, kv: Kv, value: int) -> str:
        """Until it is known to be done: once, thanks to its request id."""
        while True:
            try:
                return (await kv.put("k", b"%d" % value, request_id=f"{value}")).token
            except StoreError:
                continue

    async def _read(self, kv: Kv, consistency: Consistency, token: str | None) -> Read:
        while True:
            try:
                return await kv.get("k", consistency=consistency, token=token)
            except StoreError:
                continue

    def _tick(self) -> int:
        self._moment += 1
        return self._moment


@pytest.mark.parametrize("seed", range(4))
async def test_reads_and_writes_are_linearizable(store: VirtualStore, seed: int) -> None:
    """Five clients on one key, writes repeated until their outcome is known."""
    history = History(store, random.Random(seed))
    await history.record(Consistency.LINEARIZABLE)

    assert linearizable(history.operations)


@pytest.mark.parametrize("seed", range(4))
async def test_session_reads_never_go_back(store: VirtualStore, seed: int) -> None:
    """Each client sees its own writes, and revisions that only rise."""
    history = History(store, random.Random(seed))
    await history.record(Consistency.SESSION)

    assert all(seen == sorted(seen) for seen in history.reads)


async def test_the_checker_finds_stale_reads(store: VirtualStore) -> None:
    """Reads that may be stale, passed off as linearizable, are found in the first histories."""
    history = History(store, random.Random(0))
    await history.record(Consistency.EVENTUAL)

    assert not linearizable(history.operations)
