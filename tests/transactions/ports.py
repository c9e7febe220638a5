"""
What a simulated process has of the world: its store and its network, each passage of which is a step.

What was sent stays sent: a killed process's writes and calls still arrive. Store and network also fail by
themselves: refuse, lose the question or the answer, repeat, deliver much later.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from random import Random
from typing import Any, Protocol, TypeVar

from tests.state.virtual import now
from tests.transactions.bank import Bank
from tests.transactions.disk import Disk
from unisono.store.base import (
    Batch,
    Compare,
    Delete,
    Entry,
    MaybeDone,
    NotDone,
    Outcome,
    Put,
    Snapshot,
    StoreError,
)
from unisono.transactions.calls import Reply
from unisono.transactions.coordinator import Coordinator
from unisono.transactions.targets import Address

R = TypeVar("R")

EPOCH = 1_700_000_000.0


class World(Protocol):
    """What is around a process: who is asked, what fails, and the directory of services."""

    disk: Disk
    bank: Bank
    chance: Random

    def step(self, process: Process) -> None:
        """One passage: here the process may be killed or stopped."""

    def fault(self, *kinds: str) -> str | None: ...
    def delay(self) -> float: ...
    def spawn(self, work: Any) -> asyncio.Task[Any]: ...
    def tick(self) -> int: ...
    def port_of(self, application: str, service: str) -> int | None: ...
    def has_port(self, application: str, port: int) -> bool: ...
    def allows(self, application: str, url: str) -> bool: ...


class Process:
    """One life of a node's process, from its start to its end."""

    def __init__(self, world: World, node: str) -> None:
        self.world = world
        self.node = node
        self.dead = False
        self.died = asyncio.Event()
        self.going = asyncio.Event()
        self.going.set()
        self.coordinator = Coordinator(
            Wire(self),
            node,
            Net(self),
            world,
            stamp=world.tick,
            chance=world.chance,
            now=lambda: EPOCH + now(),
        )
        self.task = asyncio.create_task(self.coordinator.run())

    async def passes(self) -> None:
        """One step: here it may be killed or stopped."""
        self.world.step(self)
        await self.lives()

    async def lives(self) -> None:
        """Go on, if there is still somebody to go on."""
        await self.going.wait()
        if self.dead:
            await asyncio.Event().wait()


class Wire:
    """A process's connection to the store."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self._world = process.world
        self._disk = process.world.disk

    async def get(self, key: str) -> Entry | None:
        return await self._read(lambda: self._disk.get(key))

    async def scan(self, prefix: str, *, revision: int | None = None) -> Snapshot:
        return await self._read(lambda: self._disk.scan(prefix))

    async def transact(
        self,
        *,
        compares: Sequence[Compare] = (),
        success: Sequence[Put | Delete] = (),
        failure: Sequence[Put | Delete] = (),
    ) -> Outcome:
        return await self._write(
            lambda: self._disk.transact(compares=compares, success=success, failure=failure)
        )

    async def watch(self, prefix: str, *, after: int, marks: bool = False) -> AsyncIterator[Batch]:
        async for batch in self._disk.watch(prefix, after=after):
            await self._process.passes()
            yield batch

    async def grant(self, ttl: float) -> int:
        return await self._write(lambda: self._disk.grant(ttl))

    async def keep_alive(self, lease: int) -> None:
        await self._write(lambda: self._disk.keep_alive(lease))

    async def revoke(self, lease: int) -> None:
        await self._write(lambda: self._disk.revoke(lease))

    async def compact(self, revision: int) -> None:
        raise AssertionError("the coordinator does not compact")

    async def close(self) -> None:
        raise AssertionError("the coordinator does not close the store")

    async def _read(self, operation: Callable[[], Awaitable[R]]) -> R:
        await self._process.passes()
        await asyncio.sleep(self._world.delay())
        result = await operation()
        await self._process.passes()
        return result

    async def _write(self, operation: Callable[[], Awaitable[R]]) -> R:
        await self._process.passes()
        # What has left arrives, whatever becomes of the process: a task of the world's own.
        result = await asyncio.shield(self._world.spawn(self._carry(operation)))
        await self._process.passes()
        if isinstance(result, StoreError):
            raise result
        return result

    async def _carry(self, operation: Callable[[], Awaitable[R]]) -> R | StoreError:
        world = self._world
        fault = world.fault("refused", "lost", "unheard", "late")
        await asyncio.sleep(world.delay())
        if fault == "refused":
            return NotDone("refused")
        if fault == "late":
            await asyncio.sleep(world.chance.uniform(0, 8))
        if fault == "lost":
            return MaybeDone("the question was lost")
        try:
            result = await operation()
        except StoreError as error:
            return error
        await asyncio.sleep(world.delay())
        return MaybeDone("the answer was lost") if fault in ("unheard", "late") else result


class Net:
    """How a process's calls reach participants."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self._world = process.world

    def call(self, address: Address, request: bytes, timeout: float, done: Callable[[Reply], None]) -> None:
        world, process = self._world, self._process
        world.step(process)
        if process.dead:
            return
        answered: list[bool] = []

        def end(reply: Reply) -> None:
            if not answered:
                answered.append(True)
                world.spawn(self._bring(done, reply))

        loop = asyncio.get_running_loop()
        loop.call_later(timeout, end, Reply(error="no answer"))
        fault = world.fault("lost", "unheard", "broken", "again", "late")
        if fault == "lost":
            return
        delay = world.chance.uniform(0, 20) if fault == "late" else world.delay()
        loop.call_later(delay, self._arrive, address, request, fault, end)
        if fault == "again":
            loop.call_later(world.chance.uniform(0, 20), self._arrive, address, request, "unheard", end)

    def _arrive(
        self, address: Address, request: bytes, fault: str | None, end: Callable[[Reply], None]
    ) -> None:
        if fault == "broken":
            end(Reply(500))
            return
        reply = self._world.bank.asked(self._process, address.path, request)
        if fault != "unheard":
            asyncio.get_running_loop().call_later(self._world.delay(), end, reply)

    async def _bring(self, done: Callable[[Reply], None], reply: Reply) -> None:
        await self._process.passes()
        done(reply)
