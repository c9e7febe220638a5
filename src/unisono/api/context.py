"""
What the API's handlers work with: the store, its records in memory, and what the node says of itself.

The composition root (:mod:`unisono.daemon`) makes one Context; nothing here starts or owns anything.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unisono.api.informer import Informer
from unisono.api.views import Load
from unisono.control.plan import AllocatePort
from unisono.spec.shared import DEFAULT_NODE_BYTES
from unisono.store.base import Store
from unisono.timestamps.hybrid import HybridClock
from unisono.transactions.coordinator import Coordinator

if TYPE_CHECKING:
    from unisono.api.state.rooms import States

MEASURE_TIMEOUT = 0.5  # seconds: figures are an extra, an answer does not wait for them


@dataclass(frozen=True, kw_only=True)
class NodeFacts:
    """What does not change while a node runs."""

    id: str
    host: str
    version: str
    pid: int
    started_at: float
    state_folder: Path
    listen: str
    api: str | None
    ends_when_empty: bool
    shared_memory: int = DEFAULT_NODE_BYTES  # of all tables in shared memory


@dataclass(frozen=True, kw_only=True)
class GatewayState:
    """
    How the gateway stands, as the node knows it without asking it.

    ``current``: it runs, and follows all that is to be routed. ``problem``: why none can be started, else
    empty. ``unbound``: at which addresses it can't listen, and why.
    """

    current: bool = False
    problem: str = ""
    unbound: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Context:
    """
    Everything a handler needs.

    ``measure`` asks the gateway for its figures, ``metrics`` for those that Prometheus reads; ``stop``
    begins the node's end, which ``stopping`` tells to streams, so that they end.
    """

    store: Store
    informer: Informer
    facts: NodeFacts
    logs: Path
    measure: Callable[[], Awaitable[Mapping[str, Any]]]
    metrics: Callable[[], Awaitable[str]]
    allocate_port: AllocatePort
    stop: Callable[[], None]
    gateway: Callable[[], GatewayState] = GatewayState
    coordinator: Coordinator | None = None  # of transactions
    clock: HybridClock = field(default_factory=HybridClock)
    stopping: asyncio.Event = field(default_factory=asyncio.Event)

    @cached_property
    def states(self) -> States:
        """What services share."""
        from unisono.api.state.rooms import States  # noqa: PLC0415 - the frameworks come with it: see endpoints

        return States(self.store, self.facts.id)

    async def measurements(self) -> Mapping[str, Any]:
        """The gateway's figures; empty if it does not answer at once."""
        try:
            async with asyncio.timeout(MEASURE_TIMEOUT):
                return await self.measure()
        except (OSError, TimeoutError, ValueError):
            return {}

    async def load(self) -> Load:
        """The gateway's figures of services."""
        return Load(services=(await self.measurements()).get("services", {}))
