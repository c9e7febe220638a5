"""
PostgreSQL, MySQL, MariaDB and SQLite through an engine of SQLAlchemy 2, with and without asyncio.

The connection is in SQLAlchemy's AUTOCOMMIT mode and the fence begins and ends its transactions by
statements, since SQLAlchemy knows none that is prepared. Sessions of the ORM can be bound to it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

from unisono.client.participant import dialects
from unisono.client.participant.dialects import DIALECTS, Dialect
from unisono.client.participant.drivers.faults import fault_of
from unisono.client.participant.running import AsyncDriver, Driver
from unisono.client.participant.steps import Begin, Fault, Result, Run

_BY_NAME = {str(name): dialect for name, dialect in DIALECTS.items()} | {"mariadb": DIALECTS["mysql"]}


def of_engine(engine: Any) -> Driver | AsyncDriver:
    """
    The driver for an engine of either kind.

    Raises:
        TypeError: It is none, or of a database that no fence is written for.
    """
    name = getattr(getattr(engine, "dialect", None), "name", type(engine).__name__)
    dialect = _BY_NAME.get(name)
    if dialect is None:
        raise TypeError(f"a participant's engine is of PostgreSQL, MySQL, MariaDB or SQLite, not of {name}")
    return AsyncEngine(engine, dialect) if hasattr(engine, "sync_engine") else Engine(engine, dialect)


class Engine:
    """A ``sqlalchemy.Engine``."""

    def __init__(self, engine: Any, dialect: Dialect) -> None:
        self.dialect = dialect
        self._engine = engine

    @contextmanager
    def session(self) -> Iterator[Session]:
        """A connection of the engine, in autocommit while it is out."""
        with self._engine.connect() as plain:
            connection = plain.execution_options(isolation_level="AUTOCOMMIT")
            session = Session(connection, self.dialect)
            try:
                yield session
            finally:
                session.end(keep=False)

    def wrap(self, handle: Any) -> Session:
        return Session(handle, self.dialect)


class Session:
    """A session on a ``sqlalchemy.Connection``."""

    def __init__(self, connection: Any, dialect: Dialect) -> None:
        self.handle = connection
        self._dialect = dialect
        self._open = False

    def begin(self, step: Begin) -> None:
        for statement in dialects.begin(self._dialect, step.lock_ms, step.statement_ms):
            self.handle.exec_driver_sql(statement).close()
        self._open = True

    def run(self, step: Run) -> Result:
        answered = self.handle.exec_driver_sql(
            marked(step.sql, self.handle.dialect.paramstyle), step.parameters or None
        )
        return read(answered, step)

    def end(self, *, keep: bool) -> None:
        if not self._open:
            return
        if keep:
            self.handle.exec_driver_sql("COMMIT").close()
            self._open = False
            return
        self._open = False
        try:
            self.handle.exec_driver_sql("ROLLBACK").close()
        except Exception:
            self.handle.invalidate()

    def fault(self, error: Exception) -> Fault | None:
        return fault_of(self._dialect, error)


class AsyncEngine:
    """A ``sqlalchemy.ext.asyncio.AsyncEngine``."""

    def __init__(self, engine: Any, dialect: Dialect) -> None:
        self.dialect = dialect
        self._engine = engine

    @asynccontextmanager
    async def session(self) -> AsyncIterator[AsyncSession]:
        """A connection of the engine, in autocommit while it is out."""
        async with self._engine.connect() as plain:
            connection = await plain.execution_options(isolation_level="AUTOCOMMIT")
            session = AsyncSession(connection, self.dialect)
            try:
                yield session
            finally:
                await session.end(keep=False)

    def wrap(self, handle: Any) -> AsyncSession:
        return AsyncSession(handle, self.dialect)


class AsyncSession:
    """A session on an ``AsyncConnection``."""

    def __init__(self, connection: Any, dialect: Dialect) -> None:
        self.handle = connection
        self._dialect = dialect
        self._open = False

    async def begin(self, step: Begin) -> None:
        for statement in dialects.begin(self._dialect, step.lock_ms, step.statement_ms):
            (await self.handle.exec_driver_sql(statement)).close()
        self._open = True

    async def run(self, step: Run) -> Result:
        answered = await self.handle.exec_driver_sql(
            marked(step.sql, self.handle.dialect.paramstyle), step.parameters or None
        )
        return read(answered, step)

    async def end(self, *, keep: bool) -> None:
        if not self._open:
            return
        if keep:
            (await self.handle.exec_driver_sql("COMMIT")).close()
            self._open = False
            return
        self._open = False
        try:
            (await self.handle.exec_driver_sql("ROLLBACK")).close()
        except BaseException as error:
            await self.handle.invalidate()
            if not isinstance(error, Exception):
                raise

    def fault(self, error: Exception) -> Fault | None:
        return fault_of(self._dialect, error)


def marked(sql: str, style: str) -> str:
    """A statement with the parameters of this style in place of the question marks."""
    if style == "qmark":
        return sql
    if style in ("format", "pyformat"):
        return sql.replace("?", "%s")
    parts = sql.split("?")
    sign = "$" if style == "numeric_dollar" else ":"
    return "".join(f"{part}{sign}{number}" for number, part in enumerate(parts[:-1], 1)) + parts[-1]


def read(answered: Any, step: Run) -> Result:
    """What a statement answered; SQLAlchemy does not tell the server's command tag."""
    rows = answered.fetchall() if step.rows else ()
    count = len(rows) if step.rows else answered.rowcount
    answered.close()
    return Result(rows=rows, count=count)
