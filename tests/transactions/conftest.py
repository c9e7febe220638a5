"""A coordinator on a real store, calling real participants over HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.transactions.participants import Party, serving
from unisono.spec.outside import Outside
from unisono.store.base import Store
from unisono.store.sqlite import SqliteStore
from unisono.timestamps.hybrid import HybridClock
from unisono.transactions.calls import HttpCaller
from unisono.transactions.coordinator import Begun, Coordinator
from unisono.transactions.submission import BranchSpec, Submission

WAIT = 20.0  # seconds: a net, not a measurement


class Services:
    """The services of all applications: ports by name, and what may be called besides."""

    def __init__(self) -> None:
        self.ports: dict[str, int] = {}
        self.outside = Outside()

    def port_of(self, application: str, service: str) -> int | None:
        return self.ports.get(service)

    def has_port(self, application: str, port: int) -> bool:
        return port in self.ports.values()

    def allows(self, application: str, url: str) -> bool:
        return self.outside.permits(url)


class Bench:
    """What a test holds: the coordinator, its store and a participant."""

    def __init__(self, store: Store, party: Party, services: Services, coordinator: Coordinator) -> None:
        self.store = store
        self.party = party
        self.services = services
        self.coordinator = coordinator

    def given(self, mode: str, *branches: str | dict[str, Any], **more: Any) -> Submission:
        listed = [b if isinstance(b, dict) else {"id": b} for b in branches]
        for branch in listed:
            branch.setdefault("url", f"{self.party.url}/{branch['id']}")
        return Submission.of({"mode": mode, "branches": listed, **more})

    async def begin(self, mode: str, *branches: str | dict[str, Any], **more: Any) -> Begun:
        return await self.coordinator.begin("shop", self.given(mode, *branches, **more), trusted=True)

    async def run(self, mode: str, *branches: str | dict[str, Any], **more: Any) -> dict[str, Any]:
        """Begin, and wait for the end."""
        begun = await self.begin(mode, *branches, **more)
        return await self.end(begun.record.gid)

    async def end(self, gid: str) -> dict[str, Any]:
        view = await self.coordinator.get("shop", gid, wait=WAIT)
        assert view["ended_at"] is not None, view
        return view

    async def enrol(self, gid: str, id: str, **more: Any) -> dict[str, Any]:
        spec = BranchSpec.of({"id": id, "url": f"{self.party.url}/{id}", **more}, "")
        _, branch = await self.coordinator.enrol("shop", gid, spec, wait=WAIT)
        return branch


@asynccontextmanager
async def coordinating(store: Store, services: Services, node: str = "n1") -> AsyncIterator[Coordinator]:
    """A coordinator at work; leaving it is like a crash: what is under way stays as it is."""
    caller = HttpCaller()
    coordinator = Coordinator(store, node, caller, services, stamp=HybridClock().now)
    task = asyncio.create_task(coordinator.run())
    try:
        async with asyncio.timeout(WAIT):
            await coordinator.ready.wait()
        yield coordinator
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await caller.close()


async def until(is_so: Any) -> None:
    """Wait for an event that nothing tells of."""
    async with asyncio.timeout(WAIT):
        while not is_so():  # noqa: ASYNC110 - nothing tells of it
            await asyncio.sleep(0.005)


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    opened = await SqliteStore.open(tmp_path / "store.db")
    yield opened
    await opened.close()


@pytest.fixture
async def bench(store: SqliteStore) -> AsyncIterator[Bench]:
    services = Services()
    async with serving() as party, coordinating(store, services) as coordinator:
        yield Bench(store, party, services, coordinator)
