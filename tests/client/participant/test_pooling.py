"""Participants behind PgBouncer, whose connections are lent for a transaction or a statement (trap 25)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from functools import partial

import psycopg
import pytest

from tests.client.participant.test_prepared import listed
from tests.client.participant.worlds import EFFECTS, Caller, World
from tests.databases import PgBouncer, Postgres, running
from unisono.client import participant

BRANCHES = 8  # at the same time, over two connections of the server


@pytest.fixture(scope="module")
def database(postgres: Postgres) -> Iterator[str]:
    """A database for the tests here; its name."""
    postgres.execute("CREATE DATABASE pooled")
    yield "pooled"
    postgres.execute("DROP DATABASE pooled WITH (FORCE)")


@asynccontextmanager
async def behind(pool_mode: str, server: Postgres, database: str) -> AsyncIterator[World]:
    """A participant whose connections go through PgBouncer, in a database that is empty."""
    server.execute(f"DROP TABLE IF EXISTS effects, txn_fence; {EFFECTS}", database)
    server.execute(participant.fence_table("postgresql"), database)
    with running(partial(PgBouncer, behind=server, pool_mode=pool_mode)) as bouncer:
        # What is prepared in a connection is not there in the next.
        pool = participant.connections(
            lambda: psycopg.connect(bouncer.url(database), prepare_threshold=None), dialect="postgresql"
        )
        yield World("psycopg-connect", pool, lambda sql: server.execute(sql, database))
        pool.close()


async def test_25_lent_for_a_transaction_the_fence_and_the_work_stay_together(
    postgres: Postgres, database: str
) -> None:
    """Each effect once, however often the calls are made, and what one branch set is not another's."""
    async with behind("transaction", postgres, database) as world:
        call, gids = Caller(world.saga()), [f"t{n}" for n in range(BRANCHES)]

        acted = await asyncio.gather(*(call.until(200, "action", gid=gid) for gid in gids * 2))
        undone = await asyncio.gather(*(call.until(204, "compensate", gid=gid) for gid in gids[:4]))

        assert 2 * BRANCHES + 4 == len(acted) + len(undone)
        assert {(1, 1)} == {(world.effects("action", g), world.effects("compensate", g)) for g in gids[:4]}
        assert {(1, 0)} == {(world.effects("action", g), world.effects("compensate", g)) for g in gids[4:]}


async def test_25_lent_for_a_transaction_what_is_prepared_is_committed_from_another_connection(
    postgres: Postgres, database: str
) -> None:
    """A prepared transaction is nobody's session."""
    async with behind("transaction", postgres, database) as world:
        call, gids = Caller(world.xa()), [f"t{n}" for n in range(BRANCHES)]

        await asyncio.gather(*(call.until(204, "prepare", gid=gid) for gid in gids))
        between = sum(world.effects(gid=gid) for gid in gids), len(listed(world))
        await asyncio.gather(*(call.until(204, "commit", gid=gid) for gid in gids))

        assert (0, BRANCHES) == between
        assert {1} == {world.effects(gid=gid) for gid in gids}
        assert [] == listed(world)


async def test_25_lent_for_a_statement_nothing_is_done_and_nothing_said(
    postgres: Postgres, database: str
) -> None:
    """There are no transactions then, so that no call can be a yes or a no."""
    async with behind("statement", postgres, database) as world:
        answers = [await Caller(world.saga())("action"), await Caller(world.xa())("prepare", gid="t2")]

        assert all(answer.status_code >= 500 for answer in answers)
        assert (0, 0, []) == (world.effects(), world.effects(gid="t2"), listed(world))
