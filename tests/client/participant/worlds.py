"""
One participant on each kind of database, driven over ASGI, with its effects counted in the database.

The code of the participant does what the payload tells it: refuse, fail, wait, end the transaction itself.
"""

from __future__ import annotations

import asyncio
import sqlite3
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx

from tests.databases import LIMIT, MariaDB, Postgres
from unisono.client import participant
from unisono.client.participant import Participant

SYNC = (
    "sqlite",
    "sqlalchemy-sqlite",
    "psycopg",
    "psycopg-connect",
    "sqlalchemy-psycopg",
    "pymysql",
    "sqlalchemy-mysql",
)
ASYNC = ("psycopg-async", "asyncpg", "sqlalchemy-asyncpg", "sqlalchemy-aiomysql")
KINDS = (*SYNC, *ASYNC)
ON_POSTGRES = tuple(kind for kind in KINDS if "psycopg" in kind or "asyncpg" in kind)
ON_MYSQL = tuple(kind for kind in KINDS if "mysql" in kind)

EFFECTS = "CREATE TABLE IF NOT EXISTS effects (gid varchar(100), op varchar(16), n int)"


class World:
    """A database, a participant on it, and a client that calls it."""

    def __init__(self, kind: str, database: Any, read: Callable[[str], list[Any]]) -> None:
        self.kind = kind
        self.database = database
        self.read = read  # SQL outside the participant, in autocommit
        self.entered = threading.Event()  # the code waits
        self.go_on = threading.Event()
        self.is_async = kind in ASYNC

    @property
    def dialect(self) -> str:
        return "mysql" if self.kind in ON_MYSQL else "postgresql" if self.kind in ON_POSTGRES else "sqlite"

    def effects(self, op: str | None = None, gid: str = "t1") -> int:
        """How many effects there are, of one operation or of all."""
        which = f" AND op = '{op}'" if op else ""
        return int(self.read(f"SELECT count(*) FROM effects WHERE gid = '{gid}'{which}")[0][0])

    def row(self, gid: str = "t1", branch: str = "b1") -> tuple[Any, ...] | None:
        """State, epoch and op of a branch in the fence."""
        rows = self.read(
            f"SELECT state, epoch, op FROM txn_fence WHERE gid = '{gid}' AND branch = '{branch}'"
        )
        return tuple(rows[0]) if rows else None

    def age(self) -> None:
        """Make all rows of the fence a hundred days older."""
        self.read(f"UPDATE txn_fence SET created = created - {100 * 86_400_000}")

    async def purge(self) -> int:
        """Purge the fence; how many rows."""
        if self.is_async:
            return await participant.purge_fence_async(self.database)
        return participant.purge_fence(self.database)

    # -- the participant ---------------------------------------------------------------------------

    def saga(self, **settings: Any) -> Participant:
        return participant.saga(self.database, **settings)(self._class("action", "compensate"))

    def tcc(self, **settings: Any) -> Participant:
        return participant.tcc(self.database, **settings)(self._class("try_", "confirm", "cancel"))

    def xa(self, prefix: str = "test") -> Participant:
        return participant.xa(self.database, prefix=prefix)(self._code("prepare"))

    def _class(self, *methods: str) -> type:
        return type("Branch", (), {name: staticmethod(self._code(name.rstrip("_"))) for name in methods})

    def _code(self, op: str) -> Callable[..., Any]:
        async def asynchronous(tx: Any, payload: Any) -> Any:
            asked = (payload or {}).get(op, {})
            if "hold" in asked:
                self.entered.set()
                assert await asyncio.to_thread(self.go_on.wait, LIMIT)
            for statement in self._statements(op, asked):
                if self.kind.startswith("sqlalchemy"):
                    await tx.exec_driver_sql(statement)
                else:
                    await tx.execute(statement)
            return _outcome(op, asked)

        def synchronous(tx: Any, payload: Any) -> Any:
            asked = (payload or {}).get(op, {})
            if "hold" in asked:
                self.entered.set()
                assert self.go_on.wait(LIMIT)
            for statement in self._statements(op, asked):
                if self.kind.startswith("sqlalchemy"):
                    tx.exec_driver_sql(statement)
                else:
                    tx.cursor().execute(statement)
            return _outcome(op, asked)

        return asynchronous if self.is_async else synchronous

    def _statements(self, op: str, asked: dict[str, Any]) -> list[str]:
        gid = participant.current_call().gid
        return [f"INSERT INTO effects VALUES ('{gid}', '{op}', 1)", *asked.get("sql", ())]


def _outcome(op: str, asked: dict[str, Any]) -> Any:
    if "refuse" in asked:
        raise participant.Refused(asked["refuse"], code="insufficient")
    if "fail" in asked:
        raise RuntimeError(asked["fail"])
    return asked.get("reply", f"{op} at {time.time_ns()}")


class Caller:
    """Calls a participant as a coordinator does."""

    def __init__(self, app: Participant) -> None:
        self._http = httpx.AsyncClient(
            transport=httpx.ASGITransport(app), base_url="http://participant", timeout=LIMIT
        )

    async def __call__(
        self,
        op: str,
        payload: Any = None,
        *,
        gid: str = "t1",
        branch: str = "b1",
        epoch: int = 1,
        **headers: str,
    ) -> httpx.Response:
        sent = {
            "Transaction-Id": gid,
            "Transaction-Branch": branch,
            "Transaction-Op": op,
            "Transaction-Epoch": str(epoch),
            "Idempotency-Key": f"{gid}/{branch}/{op}",
            **{name.replace("_", "-"): value for name, value in headers.items()},
        }
        return await self._http.post(f"/{op}", json=payload, headers=sent)

    async def until(self, wanted: int, op: str, payload: Any = None, **more: Any) -> httpx.Response:
        """Ask again, as a coordinator does, until the answer is this."""
        end = time.monotonic() + LIMIT
        while (answer := await self(op, payload, **more)).status_code != wanted:
            assert time.monotonic() < end, f"{op} still answers {answer.status_code}: {answer.text}"
            await asyncio.sleep(0.02)
        return answer


# -- databases -----------------------------------------------------------------------------------------

_made_before: set[str] = set()  # databases; a test gets fresh tables, which is much quicker


@asynccontextmanager
async def on_sqlite(kind: str, folder: Path) -> AsyncIterator[World]:
    """A SQLite file of its own."""
    path = folder / "bank.db"
    sqlite3.connect(path).execute(EFFECTS).connection.close()

    def read(sql: str) -> list[Any]:
        with sqlite3.connect(path, isolation_level=None) as connection:
            return connection.execute(sql).fetchall()

    if kind == "sqlite":
        yield _made(World(kind, str(path), read))
        return
    import sqlalchemy

    engine = sqlalchemy.create_engine(f"sqlite:///{path}")
    yield _made(World(kind, engine, read))
    engine.dispose()


@asynccontextmanager
async def on_postgres(kind: str, server: Postgres) -> AsyncIterator[World]:
    """A database of this kind's own in the server, empty."""
    name = kind.replace("-", "_")
    if f"{server.port} {name}" not in _made_before:
        server.execute(f"CREATE DATABASE {name}")
        _made_before.add(f"{server.port} {name}")
    for (left,) in server.execute(
        f"SELECT gid FROM pg_prepared_xacts WHERE database = '{name}'", name
    ):  # of a test that failed
        server.execute(f"ROLLBACK PREPARED '{left}'", name)
    server.execute(f"DROP TABLE IF EXISTS effects, txn_fence; {EFFECTS}", name)
    url = server.url(name)
    async with _pool(kind, url) as database:
        world = World(kind, database, lambda sql: server.execute(sql, name))
        if world.is_async:
            await participant.create_fence_async(database)
            yield world
        else:
            yield _made(world)


@asynccontextmanager
async def _pool(kind: str, url: str) -> AsyncIterator[Any]:
    if kind == "psycopg":
        import psycopg_pool

        with psycopg_pool.ConnectionPool(url, min_size=1, max_size=8, timeout=LIMIT) as pool:
            yield pool
    elif kind == "psycopg-connect":
        import psycopg

        pool = participant.connections(lambda: psycopg.connect(url), dialect="postgresql")
        yield pool
        pool.close()
    elif kind == "psycopg-async":
        import psycopg_pool

        async with psycopg_pool.AsyncConnectionPool(url, min_size=1, max_size=8, timeout=LIMIT) as apool:
            yield apool
    elif kind == "asyncpg":
        import asyncpg

        async with asyncpg.create_pool(url, min_size=1, max_size=8) as asyncpg_pool:
            yield asyncpg_pool
    elif kind == "sqlalchemy-psycopg":
        import sqlalchemy

        engine = sqlalchemy.create_engine(url.replace("postgresql:", "postgresql+psycopg:"), pool_size=8)
        yield engine
        engine.dispose()
    else:
        from sqlalchemy.ext.asyncio import create_async_engine

        aengine = create_async_engine(url.replace("postgresql:", "postgresql+asyncpg:"), pool_size=8)
        yield aengine
        await aengine.dispose()


@asynccontextmanager
async def on_mariadb(kind: str, server: MariaDB) -> AsyncIterator[World]:
    """A database of this kind's own in the server, empty."""
    name = kind.replace("-", "_")

    def read(sql: str, database: str | None = name) -> list[Any]:
        with server.connect(database) as connection, connection.cursor() as cursor:
            connection.autocommit(True)
            cursor.execute(sql)
            return list(cursor.fetchall())

    if f"{server.port} {name}" not in _made_before:
        read(f"CREATE DATABASE {name}", None)
        _made_before.add(f"{server.port} {name}")
    read(EFFECTS)
    read(participant.fence_table("mysql").partition(";")[0])
    for table in ("effects", "txn_fence"):  # much quicker here than to make them anew
        read(f"DELETE FROM {table}")
    if kind == "pymysql":
        pool = participant.connections(lambda: server.connect(name), dialect="mysql")
        yield _made(World(kind, pool, read))
        pool.close()
        return
    address = f"root@127.0.0.1:{server.port}/{name}"
    if kind == "sqlalchemy-mysql":
        import sqlalchemy

        engine = sqlalchemy.create_engine(f"mysql+pymysql://{address}", pool_size=8)
        yield _made(World(kind, engine, read))
        engine.dispose()
        return
    from sqlalchemy.ext.asyncio import create_async_engine

    aengine = create_async_engine(f"mysql+aiomysql://{address}", pool_size=8)
    await participant.create_fence_async(aengine)
    yield World(kind, aengine, read)
    await aengine.dispose()


def _made(world: World) -> World:
    participant.create_fence(world.database)
    return world
