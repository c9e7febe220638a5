"""What tests of stores ask with, and how long they wait."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Protocol

from unisono.store.base import (
    Batch,
    Delete,
    Entry,
    Put,
    Store,
)

LIMIT = 30.0  # seconds, generous: it is reached only when something is wrong


class Harness(Protocol):
    """What the suite needs of an engine."""

    store: Store

    async def reopen(self) -> Store:
        """Close the store in an orderly way, and open it again."""

    async def pass_time(self, seconds: float) -> None:
        """Let so much time pass for leases."""


def put(key: str, value: bytes = b"", lease: int | None = None) -> Put:
    return Put(key=key, value=value, lease=lease)


async def write(store: Store, *operations: Put | Delete) -> int:
    """Run operations without a condition; returns the revision."""
    return (await store.transact(success=operations)).revision


async def take(watch: AsyncIterator[Batch], count: int) -> list[Batch]:
    """The next ``count`` batches."""
    async with asyncio.timeout(LIMIT):
        return [await anext(watch) for _ in range(count)]


async def gone(store: Store, key: str, revision: int) -> Batch:
    """Wait for the first change of ``key`` after ``revision``."""
    return (await take(store.watch(key, after=revision), 1))[0]


def keys(entries: tuple[Entry, ...]) -> list[str]:
    return [entry.key for entry in entries]
