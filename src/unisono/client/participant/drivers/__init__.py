"""
The databases that a fence works on: a thin driver for each library. None is imported until it is used.

============================================  ================================================
given                                         the participant's code gets
============================================  ================================================
a path                                        ``sqlite3.Connection``
``connections(connect, dialect="mysql")``     what ``connect()`` returns: PyMySQL, psycopg, sqlite3
``psycopg_pool.ConnectionPool``               ``psycopg.Connection``
``psycopg_pool.AsyncConnectionPool``          ``psycopg.AsyncConnection``
``asyncpg.Pool``                              ``asyncpg.Connection``
``sqlalchemy.Engine``                         ``sqlalchemy.Connection``
``sqlalchemy.ext.asyncio.AsyncEngine``        ``sqlalchemy.ext.asyncio.AsyncConnection``
============================================  ================================================
"""

from __future__ import annotations

import inspect
from os import PathLike
from typing import Any

from unisono.client.participant.drivers.connections import Connections, connections
from unisono.client.participant.running import AsyncDriver, Driver

__all__ = ["Connections", "connections", "driver_of", "is_async"]


def driver_of(database: Any) -> Driver | AsyncDriver:
    """
    The driver for a database as its user has it; see the table above.

    Raises:
        TypeError: There is none for it.
    """
    if isinstance(database, (str, PathLike)):
        return Connections.sqlite(database)
    if hasattr(database, "session") and hasattr(database, "dialect"):
        return database  # type: ignore[no-any-return] # a driver already
    library = {kind.__module__.partition(".")[0] for kind in type(database).__mro__}
    if "psycopg_pool" in library:
        from unisono.client.participant.drivers import psycopg  # noqa: PLC0415 - only if it is used

        return psycopg.of_pool(database)
    if "asyncpg" in library:
        from unisono.client.participant.drivers import asyncpg  # noqa: PLC0415

        return asyncpg.Asyncpg(database)
    if "sqlalchemy" in library:
        from unisono.client.participant.drivers import sqlalchemy  # noqa: PLC0415

        return sqlalchemy.of_engine(database)
    raise TypeError(
        "the database of a participant is a pool of psycopg or asyncpg, an engine of SQLAlchemy,"
        f" participant.connections(...) or the path of a SQLite file, not {type(database).__name__}"
    )


def is_async(driver: Driver | AsyncDriver) -> bool:
    """Whether the participant's code has to be ``async def``."""
    return inspect.isasyncgenfunction(inspect.unwrap(driver.session))
