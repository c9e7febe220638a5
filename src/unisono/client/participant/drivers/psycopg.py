"""PostgreSQL through the pools of psycopg 3, with and without asyncio."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

from psycopg.rows import tuple_row

from unisono.client.participant import dialects
from unisono.client.participant.drivers.connections import PREPARED, Plain
from unisono.client.participant.drivers.faults import fault_of
from unisono.client.participant.running import AsyncDriver, Driver
from unisono.client.participant.steps import Begin, Fault, Result, Run

_DIALECT = dialects.POSTGRESQL


def of_pool(pool: Any) -> Driver | AsyncDriver:
    """The driver for a pool of either kind."""
    return AsyncPool(pool) if type(pool).__name__.startswith("Async") else Pool(pool)


class Pool:
    """A ``psycopg_pool.ConnectionPool``. It discards connections that are lost by itself."""

    dialect = _DIALECT

    def __init__(self, pool: Any) -> None:
        self._pool = pool

    @contextmanager
    def session(self) -> Iterator[Plain]:
        """A connection of the pool, in autocommit while it is out."""
        with self._pool.connection() as connection:
            before = connection.autocommit
            connection.autocommit = True
            session = Plain(connection, _DIALECT)
            try:
                yield session
            finally:
                session.end(keep=False)
                if session.lost or connection.closed:
                    connection.close()
                else:
                    connection.autocommit = before

    def wrap(self, handle: Any) -> Plain:
        return Plain(handle, _DIALECT)


class AsyncPool:
    """A ``psycopg_pool.AsyncConnectionPool``."""

    dialect = _DIALECT

    def __init__(self, pool: Any) -> None:
        self._pool = pool

    @asynccontextmanager
    async def session(self) -> AsyncIterator[Session]:
        """A connection of the pool, in autocommit while it is out."""
        async with self._pool.connection() as connection:
            before = connection.autocommit
            await connection.set_autocommit(True)
            session = Session(connection)
            try:
                yield session
            finally:
                await session.end(keep=False)
                if not connection.closed:
                    await connection.set_autocommit(before)

    def wrap(self, handle: Any) -> Session:
        return Session(handle)


class Session:
    """A session on an ``AsyncConnection`` in autocommit."""

    def __init__(self, connection: Any) -> None:
        self.handle = connection
        self._cursor = connection.cursor(row_factory=tuple_row)
        self._open = False

    async def begin(self, step: Begin) -> None:
        self._open = True  # cancelled under way it may have begun, and a rollback of nothing harms nobody
        await self._cursor.execute("; ".join(dialects.begin(_DIALECT, step.lock_ms, step.statement_ms)))

    async def run(self, step: Run) -> Result:
        cursor = await self._cursor.execute(step.sql.replace("?", "%s"), step.parameters or None)
        rows = await cursor.fetchall() if step.rows else ()
        if cursor.statusmessage == PREPARED:
            self._open = False
        return Result(rows=rows, count=cursor.rowcount, tag=cursor.statusmessage)

    async def end(self, *, keep: bool) -> None:
        if not self._open:
            return
        if keep:
            await self._cursor.execute("COMMIT")
            self._open = False
            return
        self._open = False
        try:
            await self._cursor.execute("ROLLBACK")
        except BaseException as error:
            await self.handle.close()
            if not isinstance(error, Exception):
                raise

    def fault(self, error: Exception) -> Fault | None:
        return fault_of(_DIALECT, error)
