"""A gateway that takes every table, remembers it, and says what it is told to of requests in flight."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

from unisono.gateway.errors import GatewayError
from unisono.gateway.link import GatewayEvent
from unisono.gateway.table import Table, Target


class FakeGateway:
    """Implements GatewayControl."""

    def __init__(self) -> None:
        self.tables: list[Table] = []
        self.calls: list[str] = []  # "table" and "drained ID", in the order they came
        self.lives = True
        self.refusals: list[GatewayError] = []  # raised by the next pushes, one each
        self.in_flight: dict[str, int] = {}
        self.changed = asyncio.Condition()
        self.told: asyncio.Queue[GatewayEvent] = asyncio.Queue()  # what it tells the node

    async def events(self) -> AsyncGenerator[GatewayEvent, None]:
        while True:
            yield await self.told.get()

    def alive(self) -> bool:
        return self.lives

    async def put_table(self, table: Table) -> None:
        if self.refusals:
            raise self.refusals.pop(0)
        self.tables.append(table)
        self.calls.append("table")
        async with self.changed:
            self.changed.notify_all()

    async def drained(self, instance: str, generation: int, timeout: float) -> int:  # noqa: ASYNC109
        self.calls.append(f"drained {instance}")
        async with self.changed:
            try:
                async with asyncio.timeout(timeout):
                    await self.changed.wait_for(lambda: not self.in_flight.get(instance))
            except TimeoutError:
                pass
        return self.in_flight.get(instance, 0)

    async def finish(self, instance: str) -> None:
        """The instance's requests are done."""
        async with self.changed:
            self.in_flight.pop(instance, None)
            self.changed.notify_all()

    def targets(self, service: str = "shop/web") -> tuple[Target, ...]:
        """Those of the last table."""
        if not self.tables:
            return ()
        backend = (self.tables[-1].services or {}).get(service)
        return backend.targets if backend else ()

    async def until(self, condition: object, *, seconds: float = 20.0) -> None:
        """Wait until ``condition()`` holds, looking whenever a table comes."""
        async with asyncio.timeout(seconds), self.changed:
            await self.changed.wait_for(condition)  # type: ignore[arg-type]
