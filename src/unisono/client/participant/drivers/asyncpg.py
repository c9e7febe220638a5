"""PostgreSQL through a pool of asyncpg."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from unisono.client.participant import dialects
from unisono.client.participant.drivers.faults import fault_of
from unisono.client.participant.steps import Begin, Fault, Result, Run

_DIALECT = dialects.POSTGRESQL


class Asyncpg:
    """An ``asyncpg.Pool``. It discards connections that are lost by itself."""

    dialect = _DIALECT

    def __init__(self, pool: Any) -> None:
        self._pool = pool

    @asynccontextmanager
    async def session(self) -> AsyncIterator[Session]:
        """A connection of the pool."""
        async with self._pool.acquire() as connection:
            session = Session(connection)
            try:
                yield session
            finally:
                await session.end(keep=False)

    def wrap(self, handle: Any) -> Session:
        return Session(handle)


class Session:
    """A session on an ``asyncpg.Connection``, whose own transactions nest in that of the fence."""

    def __init__(self, connection: Any) -> None:
        self.handle = connection
        self._transaction: Any = None

    async def begin(self, step: Begin) -> None:
        transaction = self.handle.transaction(isolation="read_committed")
        await transaction.start()
        self._transaction = transaction
        for statement in dialects.begin(_DIALECT, step.lock_ms, step.statement_ms)[1:]:
            await self.handle.execute(statement)

    async def run(self, step: Run) -> Result:
        sql = _numbered(step.sql)
        if step.rows:
            rows = await self.handle.fetch(sql, *step.parameters)
            return Result(rows=[tuple(row) for row in rows], count=len(rows))
        tag: str = await self.handle.execute(sql, *step.parameters)
        last = tag.rpartition(" ")[2]
        return Result(count=int(last) if last.isdigit() else 0, tag=tag)

    async def end(self, *, keep: bool) -> None:
        if self._transaction is None:
            return
        if keep:
            await self._transaction.commit()
            self._transaction = None
            return
        transaction, self._transaction = self._transaction, None
        try:
            await transaction.rollback()  # also after PREPARE TRANSACTION: there it only warns
        except BaseException as error:
            self.handle.terminate()
            if not isinstance(error, Exception):
                raise

    def fault(self, error: Exception) -> Fault | None:
        return fault_of(_DIALECT, error)


def _numbered(sql: str) -> str:
    """``$1`` and so on for the question marks."""
    parts = sql.split("?")
    return "".join(f"{part}${number}" for number, part in enumerate(parts[:-1], 1)) + parts[-1]
