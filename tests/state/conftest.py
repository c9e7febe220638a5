"""Every test here runs in virtual time, on the real SQLite store; see tests/state/virtual.py."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path

import pytest

from tests.state.virtual import VirtualLoop, VirtualStore, opened


def pytest_asyncio_loop_factories() -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    return {"virtual": VirtualLoop}


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[VirtualStore]:
    async with opened(tmp_path / "store.db") as store:
        yield store
