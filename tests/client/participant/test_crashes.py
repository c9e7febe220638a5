"""Database servers that are killed under their participants: nothing twice, nothing lost, used again."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import Any

import psycopg_pool
import pytest
from psycopg.pq import TransactionStatus

from tests.client.participant.worlds import ON_MYSQL, ON_POSTGRES, Caller, World, on_mariadb, on_postgres
from tests.databases import MariaDB, Postgres, Server
from unisono.client.participant.drivers import driver_of
from unisono.client.participant.steps import Begin


async def test_a_killed_postgresql_is_used_again_by_every_library(postgres: Postgres) -> None:
    """What was prepared before is committed after; dead connections of the pools are found out."""
    async with AsyncExitStack() as stack:
        worlds = [await stack.enter_async_context(on_postgres(kind, postgres)) for kind in ON_POSTGRES]
        ledgers = {world.kind: Caller(world.xa(prefix=world.kind)) for world in worlds}
        for world in worlds:
            await ledgers[world.kind].until(204, "prepare", gid="t2")

        await _crash(postgres, worlds)
        for world in worlds:
            await ledgers[world.kind].until(204, "commit", gid="t2")

        assert [1] * len(worlds) == [world.effects(gid="t2") for world in worlds]


async def test_a_killed_mariadb_is_used_again_by_every_library(mariadb: MariaDB) -> None:
    """As above, without prepared transactions."""
    async with AsyncExitStack() as stack:
        worlds = [await stack.enter_async_context(on_mariadb(kind, mariadb)) for kind in ON_MYSQL]

        await _crash(mariadb, worlds)


class _Cut:
    """A cursor whose first statement is carried out and cancelled before it can be said so."""

    def __init__(self, cursor: Any) -> None:
        self._cursor = cursor
        self._cuts = iter([asyncio.CancelledError()])

    async def execute(self, sql: str) -> None:
        await self._cursor.execute(sql)
        for cut in self._cuts:
            raise cut


async def test_a_call_that_is_cancelled_while_it_begins_stays_cancelled(
    postgres: Postgres,
) -> None:
    """The server has begun, and nobody has been told: the connection goes back to the pool clean."""
    async with psycopg_pool.AsyncConnectionPool(postgres.url(), min_size=1, max_size=1) as pool:
        driver: Any = driver_of(pool)

        async def begin() -> None:
            async with driver.session() as session:
                session._cursor = _Cut(session._cursor)
                await session.begin(Begin(lock_ms=100, statement_ms=1000))

        with pytest.raises(asyncio.CancelledError):
            await begin()
        async with pool.connection() as connection:
            status = connection.info.transaction_status

    assert TransactionStatus.IDLE == status


async def _crash(server: Server, worlds: list[World]) -> None:
    """Kill the server while calls are under way in every world, and ask them again afterwards."""
    branches = [f"b{number}" for number in range(8)]
    calls = {world.kind: Caller(world.saga()) for world in worlds}
    for world in worlds:  # connections in the pools, and a branch that was done before
        await asyncio.gather(
            *(calls[world.kind].until(200, "action", gid="warm", branch=one) for one in branches)
        )

    under_way = [
        asyncio.create_task(calls[world.kind]("action", branch=one)) for world in worlds for one in branches
    ]
    await asyncio.sleep(0.02)
    await asyncio.to_thread(server.kill)
    answers = [answer.status_code for answer in await asyncio.gather(*under_way)]
    await asyncio.to_thread(server.start)
    for world in worlds:
        await asyncio.gather(*(calls[world.kind].until(200, "action", branch=one) for one in branches))
        await asyncio.gather(
            *(calls[world.kind].until(204, "compensate", branch=one) for one in branches[:4])
        )

    assert {200, 425, 500, 503} >= set(answers)
    assert [(8, 4, 8)] * len(worlds) == [
        (world.effects("action"), world.effects("compensate"), world.effects(gid="warm")) for world in worlds
    ]
