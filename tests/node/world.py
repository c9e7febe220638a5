"""A whole node without its gateway: a real store, a real agent, real processes, and a controller's hand."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil

from tests.node.fake_gateway import FakeGateway
from unisono.control.records import (
    Goal,
    Happening,
    Instance,
    Phase,
    Revision,
    Service,
    Status,
    decode,
    encode,
    instance_key,
    revision_key,
    service_key,
    status_key,
)
from unisono.node import logger, processes
from unisono.node.agent import Agent
from unisono.node.paths import StateFolder
from unisono.spec.model import ServiceSpec
from unisono.store.base import Delete, Put
from unisono.store.sqlite import SqliteStore

SERVER = """
import http.server, os, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.end_headers(); self.wfile.write(b"well")
    def log_message(self, *args): pass
http.server.HTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
"""
SECONDS = 20.0  # generous: a limit for what is broken, not a measure of speed


def python(code: str) -> tuple[str, ...]:
    """A command that runs this Python code."""
    return (sys.executable, "-S", "-c", code)


def spec_of(command: tuple[str, ...] = python(SERVER), **changes: Any) -> ServiceSpec:
    """A service "web" whose instances are restarted and stopped fast."""
    return replace(
        ServiceSpec(name="web", command=command, inherited={"PATH": os.environ["PATH"]}, drain_period=5.0),
        **changes,
    )


class World:
    """One node and its store; ``folder`` and store outlive the agent, as they do in life."""

    def __init__(self, folder: StateFolder, store: SqliteStore, gateway: FakeGateway) -> None:
        self.folder = folder
        self.store = store
        self.gateway = gateway
        self.agent: Agent | None = None
        self._task: asyncio.Task[None] | None = None
        self.pids: set[int] = set()

    async def start_agent(self) -> Agent:
        self.agent = Agent(self.store, "here", self.folder, self.gateway, "127.0.0.1:8080")
        self._task = asyncio.create_task(self.agent.run())
        ready = asyncio.create_task(self.agent.ready.wait())
        await asyncio.wait({self._task, ready}, return_when=asyncio.FIRST_COMPLETED, timeout=SECONDS)
        if self._task.done():
            self._task.result()
        assert ready.done()
        return self.agent

    async def stop_agent(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None

    async def want(self, spec: ServiceSpec, *ids: str, revision: int = 1, job: tuple[str, ...] = ()) -> None:
        """Write down a service and instances of it; with ``job`` they run this, once."""
        records = [
            Put(
                key=service_key("shop", spec.name),
                value=encode(
                    Service(
                        application="shop",
                        name=spec.name,
                        revision=revision,
                        stable=None,
                        replicas=len(ids),
                        internal_port=20000,
                    )
                ),
            ),
            Put(
                key=revision_key("shop", spec.name, revision),
                value=encode(
                    Revision(
                        application="shop",
                        service=spec.name,
                        number=revision,
                        digest=spec.revision_hash(),
                        spec=spec,
                        created_at=0.0,
                    )
                ),
            ),
        ]
        for id in ids:
            instance = Instance(
                application="shop",
                service=spec.name,
                id=id,
                revision=revision,
                node="here",
                job=bool(job),
                command=job,
            )
            records.append(Put(key=instance_key("shop", spec.name, id), value=encode(instance)))
        await self.store.transact(success=records)

    async def aim(self, id: str, goal: Goal, service: str = "web") -> None:
        key = instance_key("shop", service, id)
        entry = await self.store.get(key)
        assert entry is not None
        instance = replace(decode(Instance, entry.value), goal=goal)
        await self.store.transact(success=[Put(key=key, value=encode(instance))])

    async def remove(self, id: str, service: str = "web") -> None:
        await self.store.transact(success=[Delete(key=instance_key("shop", service, id))])

    async def status(self, id: str, service: str = "web") -> Status | None:
        entry = await self.store.get(status_key("shop", service, id))
        status = decode(Status, entry.value) if entry else None
        if status and status.pid:
            self.pids.add(status.pid)
        return status

    async def until(self, id: str, condition: Callable[[Status], bool], service: str = "web") -> Status:
        """Wait until the status of an instance meets the condition; every status is looked at."""
        key = status_key("shop", service, id)
        async with asyncio.timeout(SECONDS):
            seen = await self.store.scan(key)
            last = None
            for entry in seen.entries:
                last = decode(Status, entry.value)
                self._note(last)
                if condition(last):
                    return last
            try:
                async for batch in self.store.watch(key, after=seen.revision):
                    for event in batch.events:
                        if event.entry is not None:
                            last = decode(Status, event.entry.value)
                            self._note(last)
                            if condition(last):
                                return last
            except asyncio.CancelledError:
                print("last status:", last)
                raise
        raise AssertionError("the store was closed")

    async def until_phase(self, id: str, phase: Phase, service: str = "web") -> Status:
        return await self.until(id, lambda status: status.phase is phase, service)

    async def until_gone(self, key: str) -> None:
        async with asyncio.timeout(SECONDS):
            seen = await self.store.scan(key)
            if not seen.entries:
                return
            async for batch in self.store.watch(key, after=seen.revision):
                if any(event.entry is None for event in batch.events):
                    return

    async def happenings(self) -> list[Happening]:
        scanned = await self.store.scan("event/")
        return [decode(Happening, entry.value) for entry in scanned.entries]

    def _note(self, status: Status) -> None:
        if status.pid:
            self.pids.add(status.pid)


@asynccontextmanager
async def world(path: Path) -> AsyncIterator[World]:
    """A node in ``path``; whatever it has started is gone at the end."""
    folder = StateFolder(path)
    folder.prepare()
    store = await SqliteStore.open(folder.store_file)
    it = World(folder, store, FakeGateway())
    try:
        yield it
    finally:
        await it.stop_agent()
        await store.close()
        sweep(folder)


def sweep(folder: StateFolder) -> None:
    """Kill every process that bears the marks of this folder, and its log process."""
    for pid in list(processes.all_pids()):
        if processes.environment(pid).get("UNISONO_STATE") == str(folder.path):
            processes.send(pid, signal.SIGKILL)
    for process in psutil.process_iter():  # not by its lock: one that has just been started has none yet
        with suppress(psutil.Error):
            if process.cmdline()[-2:] == [logger.__file__, str(folder.path)]:
                process.kill()


async def gone(pid: int) -> None:
    """Wait until no process has this pid, or only a zombie."""
    async with asyncio.timeout(SECONDS):
        while processes.start_time(pid) is not None:  # noqa: ASYNC110 - another's process, so no event
            await asyncio.sleep(0.01)
