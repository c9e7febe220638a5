"""A store in a file; and the suite's modules, whose asserts should explain themselves like a test's."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.store.sqlite_files import SqliteHarness

pytest.register_assert_rewrite(
    "tests.store.conforming_entries", "tests.store.conforming_leases", "tests.store.conforming_watches"
)


@pytest.fixture
async def harness(tmp_path: Path) -> AsyncIterator[SqliteHarness]:
    harness = SqliteHarness(tmp_path / "store.db")
    await harness.open()
    yield harness
    await harness.store.close()
