"""Servers that live as long as the tests of one process, and a fresh world on them for each test."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest

from tests.client.participant.worlds import (
    KINDS,
    ON_MYSQL,
    ON_POSTGRES,
    World,
    on_mariadb,
    on_postgres,
    on_sqlite,
)
from tests.databases import MariaDB, Postgres, running


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A PostgreSQL server."""
    with running(Postgres) as server:
        yield server


@pytest.fixture(scope="session")
def mariadb() -> Iterator[MariaDB]:
    """A MariaDB server."""
    with running(MariaDB) as server:
        yield server


def enter(kind: str, request: pytest.FixtureRequest, folder: Path) -> AbstractAsyncContextManager[World]:
    """The world of this kind."""
    if kind in ON_POSTGRES:
        return on_postgres(kind, request.getfixturevalue("postgres"))
    if kind in ON_MYSQL:
        return on_mariadb(kind, request.getfixturevalue("mariadb"))
    return on_sqlite(kind, folder)


@pytest.fixture(params=KINDS)
async def world(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[World]:
    """A world of every kind."""
    async with enter(request.param, request, tmp_path) as made:
        yield made


@pytest.fixture(params=ON_POSTGRES)
async def on_pg(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[World]:
    """A world of every kind on PostgreSQL."""
    async with enter(request.param, request, tmp_path) as made:
        yield made
