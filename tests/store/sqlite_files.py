"""A store on SQLite in a file, on a clock that the test moves."""

from __future__ import annotations

from pathlib import Path

from unisono.store.sqlite import SqliteStore


class Clock:
    """Time as a value."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class SqliteHarness:
    """A store in a file, on a clock that the test moves."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.clock = Clock()
        self.store: SqliteStore

    async def open(self) -> SqliteStore:
        self.store = await SqliteStore.open(self.path, clock=self.clock)
        return self.store

    async def reopen(self) -> SqliteStore:
        await self.store.close()
        return await self.open()

    async def pass_time(self, seconds: float) -> None:
        self.clock.now += seconds
        self.store._expire()  # what the timer does; that it does so has a test with the real clock
