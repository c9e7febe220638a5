"""A real store for the tests of what reads and writes one."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from unisono.store.sqlite import SqliteStore


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    opened = await SqliteStore.open(tmp_path / "store.db")
    yield opened
    await opened.close()
