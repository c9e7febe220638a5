"""
Databases through plain DB-API connections: SQLite by path, and what a function opens (PyMySQL, psycopg).

psycopg's own pools are :mod:`unisono.client.participant.drivers.psycopg`'s.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from os import PathLike, fspath
from typing import Any

from unisono.client.participant import dialects
from unisono.client.participant.dialects import Dialect, Name
from unisono.client.participant.drivers.faults import fault_of
from unisono.client.participant.steps import Begin, Fault, Result, Run, Why

SIZE = 8  # connections at a time
WAIT = 5.0  # seconds for one of them
PREPARED = "PREPARE TRANSACTION"  # PostgreSQL's word for it: the session is outside a transaction then


class Plain:
    """A session on a DB-API connection in autocommit."""

    def __init__(self, connection: Any, dialect: Dialect) -> None:
        self.handle = connection
        self.lost = False
        self._dialect = dialect
        self._marker = "?" if dialect.name == "sqlite" else "%s"
        self._open = False

    def begin(self, step: Begin) -> None:
        for statement in dialects.begin(self._dialect, step.lock_ms, step.statement_ms):
            self._execute(statement).close()
        self._open = True

    def run(self, step: Run) -> Result:
        cursor = self._execute(step.sql.replace("?", self._marker), step.parameters)
        try:
            rows = cursor.fetchall() if step.rows else ()
            tag = getattr(cursor, "statusmessage", None)
            if tag == PREPARED:
                self._open = False
            return Result(rows=rows, count=cursor.rowcount, tag=tag)
        finally:
            cursor.close()

    def end(self, *, keep: bool) -> None:
        if not self._open:
            return
        if keep:
            self._execute("COMMIT").close()
            self._open = False
            return
        self._open = False
        if self._dialect.name == "sqlite" and not self.handle.in_transaction:
            return  # SQLite has rolled back by itself
        try:
            self._execute("ROLLBACK").close()
        except Exception:
            self.lost = True

    def fault(self, error: Exception) -> Fault | None:
        found = fault_of(self._dialect, error)
        self.lost = self.lost or (found is not None and found.why is Why.LOST)
        return found

    def _execute(self, sql: str, parameters: tuple[Any, ...] = ()) -> Any:
        cursor = self._cursor()
        try:
            # Without parameters psycopg and PyMySQL leave percent signs alone.
            cursor.execute(sql, parameters) if parameters else cursor.execute(sql)
        except BaseException:
            with suppress(Exception):
                cursor.close()
            raise
        return cursor

    def _cursor(self) -> Any:
        """A cursor that gives tuples, whatever the user likes rows to be."""
        if self._dialect.name == "mysql":
            from pymysql.cursors import Cursor  # noqa: PLC0415 - only for MySQL

            return self.handle.cursor(Cursor)
        cursor = self.handle.cursor()
        if self._dialect.name == "postgresql":
            from psycopg.rows import tuple_row  # noqa: PLC0415 - only for PostgreSQL

            cursor.row_factory = tuple_row
        else:
            cursor.row_factory = None
        return cursor


class Connections:
    """
    A small pool of DB-API connections, without asyncio.

    Args:
        connect: Opens a connection; it need not be in autocommit, that is switched on here.
        dialect: The database's.
        size: How many connections there are at most.
    """

    def __init__(self, connect: Callable[[], Any], dialect: Dialect, size: int = SIZE) -> None:
        self.dialect = dialect
        self._connect = connect
        self._places = threading.BoundedSemaphore(size)
        self._idle: list[Any] = []

    @classmethod
    def sqlite(cls, path: str | PathLike[str]) -> Connections:
        """A SQLite file, in WAL mode with full synchronisation: an answered yes survives power loss."""

        def connect() -> sqlite3.Connection:
            connection = sqlite3.connect(fspath(path), isolation_level=None, check_same_thread=False)
            connection.execute("PRAGMA busy_timeout = 5000")
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")
            return connection

        return cls(connect, dialects.SQLITE)

    @contextmanager
    def session(self) -> Iterator[Plain]:
        """
        A connection for one call.

        Raises:
            TimeoutError: All were taken for ``WAIT`` seconds.
        """
        if not self._places.acquire(timeout=WAIT):
            raise TimeoutError(f"no connection to the database got free within {WAIT:g} s")
        try:
            session = Plain(self._take(), self.dialect)
            try:
                yield session
            finally:
                session.end(keep=False)
                if session.lost:
                    with suppress(Exception):
                        session.handle.close()
                else:
                    self._idle.append(session.handle)
        finally:
            self._places.release()

    def wrap(self, handle: Any) -> Plain:
        return Plain(handle, self.dialect)

    def close(self) -> None:
        """Close the connections that are idle."""
        while self._idle:
            self._idle.pop().close()

    def _take(self) -> Any:
        try:
            return self._idle.pop()
        except IndexError:
            connection = self._connect()
        if self.dialect.name == "sqlite":
            connection.isolation_level = None
        elif self.dialect.name == "mysql":
            connection.autocommit(True)
        else:
            connection.autocommit = True
        return connection


def connections(connect: Callable[[], Any], *, dialect: Name, size: int = SIZE) -> Connections:
    """
    The database to which ``connect`` opens DB-API connections (PyMySQL, psycopg or sqlite3).

    Args:
        connect: Opens a connection. SQLite's need ``check_same_thread=False``.
        dialect: "postgresql", "mysql" (MariaDB as well) or "sqlite".
        size: How many connections there are at most.
    """
    if dialect not in dialects.DIALECTS:
        raise ValueError(f"dialect is one of {', '.join(dialects.DIALECTS)}, not {dialect!r}")
    return Connections(connect, dialects.DIALECTS[dialect], size)
