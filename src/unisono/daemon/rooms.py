"""
The rest of a running node: gateway, agent, controller and API, in the order in which they are needed.

What went before them, and made this module be imported, is :mod:`.first`'s.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from functools import cached_property
from typing import Any, TypeVar

from unisono import __version__
from unisono.api.context import Context, GatewayState, NodeFacts
from unisono.api.endpoints import Endpoints
from unisono.api.informer import Informer
from unisono.control.loop import Controller
from unisono.daemon.first import Beginning, Work
from unisono.daemon.settings import Settings
from unisono.gateway.errors import GatewayError
from unisono.gateway.link import GatewayLink
from unisono.gateway.process import GatewayProcess
from unisono.gateway.table import AccessLog
from unisono.node import sharing
from unisono.node.agent import Agent
from unisono.node.measuring import measured
from unisono.node.paths import StateFolderError
from unisono.spec.units import format_size
from unisono.state.shared_memory import SharedMemory
from unisono.transactions import figures
from unisono.transactions.records import Record

_log = logging.getLogger("unisono")

_YOUNG = 20_000  # objects that may be made before the collector looks at them


class Rooms:
    """What runs beside the transactions of a node, and how all of it ends."""

    def __init__(self, settings: Settings, beginning: Beginning) -> None:
        self._settings = settings
        self._folder = settings.folder
        self._informer = Informer(beginning.store)
        self._informer.on_services(lambda: beginning.directory.follow(self._informer.latest))
        self._coordinator = beginning.coordinator
        self._stopping = beginning.stopping
        store, node_id = beginning.store, beginning.node_id
        self._node_id = node_id
        self._gateway = GatewayProcess(self._folder.gateway_socket, self._folder.gateway_table)
        self._link = GatewayLink(self._folder.gateway_socket)
        access_log = settings.access_log and AccessLog(
            format=settings.access_log, path=str(self._folder.access_log)
        )
        self._agent = Agent(
            store, node_id, self._folder, self._link, settings.listen, access_log=access_log or None
        )
        self._shared = SharedMemory(store, self._folder.shared_memory, beginning.clock, self._agent.tell)
        self._no_memory = ""  # why tables are not kept, as it was told
        self._controller = Controller(
            store,
            node_id,
            in_flight=lambda: _WhenAsked(self._link.in_flight),
            measured=lambda: _WhenAsked(lambda: measured(self._link.measured())),
        )
        beginning.on_doubt(self._on_doubt)
        facts = NodeFacts(
            id=node_id,
            host=socket.gethostname(),
            version=__version__,
            pid=os.getpid(),
            started_at=time.time(),
            state_folder=self._folder.path,
            listen=settings.listen,
            api=settings.api,
            ends_when_empty=settings.ends_when_empty,
            shared_memory=settings.shared_memory,
        )
        context = Context(
            store=store,
            informer=self._informer,
            facts=facts,
            logs=self._folder.logs,
            measure=self._measure,
            metrics=self._metrics,
            allocate_port=beginning.internal_ports.allocate,
            gateway=self._gateway_state,
            stop=self._stopping.set,
            coordinator=self._coordinator,
            clock=beginning.clock,
            stopping=self._stopping,
        )
        self._api = Endpoints(context, beginning.endpoints)

    async def run(self, work: Work) -> None:
        """Until the node is told to end; then end all ``work``."""
        work.start("informer", self._informer.run())
        keeping = self._gateway.run(self._on_gateway, self._on_gateway_exit, self._on_gateway_failure)
        work.start("gateway", keeping)
        work.start("shared-memory", self._share())
        work.start("agent", self._agent.run())
        work.start("controller", self._controller.run())
        work.start("api", self._serve_api(), may_end=True)
        if self._settings.ends_when_empty:
            work.start("last-application", self._await_empty(), may_end=True)
        await self._announce()
        await self._stopping.wait()
        await self._end(work)

    async def _serve_api(self) -> None:
        """Adopting what runs comes first: the API's frameworks take longer to import than that takes."""
        await self._agent.ready.wait()
        await self._api.run()

    async def _share(self) -> None:
        """Keep the tables in shared memory that the services of this node want."""
        await self._informer.now()
        self._informer.on_services(self._choose_tables)
        self._choose_tables()
        await self._shared.run()

    def _choose_tables(self) -> None:
        limit = self._settings.shared_memory
        kept, left = sharing.tables(self._informer.latest, self._node_id, self._folder, limit)
        reason = f"no room for {', '.join(map(str, left))} in --shared-memory {format_size(limit)}"
        if kept:
            try:
                self._folder.make_shared_memory()
            except StateFolderError as error:
                kept, left, reason = frozenset(), (*kept, *left), str(error)
        if left and reason != self._no_memory:
            self._agent.tell("shared-memory-failed", reason)
        self._no_memory = reason if left else ""
        self._shared.want(kept)

    def _on_doubt(self, record: Record) -> None:
        reason = record.heuristic.reason if record.heuristic else ""
        self._agent.tell("transaction-in-doubt", f"{record.namespace}/{record.gid}: {reason}")

    def _on_gateway(self) -> None:
        """A gateway answers that did not before: it has to learn what changed since its table was kept."""
        self._agent.routing.push_again()
        self._agent.tell("gateway-started", f"process {self._gateway.pid}")

    def _on_gateway_exit(self) -> None:
        self._agent.tell("gateway-exited", f"process {self._gateway.pid}")

    def _gateway_state(self) -> GatewayState:
        process, routing = self._gateway, self._agent.routing
        return GatewayState(
            current=process.pid is not None and routing.current,
            problem=process.problem,
            unbound=routing.unbound,
        )

    def _on_gateway_failure(self, problem: str) -> None:
        self._agent.tell("gateway-failed", problem)

    async def _announce(self) -> None:
        """Say that the node is ready, once all that ran before has been found again."""
        await self._api.listening.wait()
        # What was made so far stays: the collector need not look at it again and again. What comes is mostly
        # requests, whose objects are gone when they have been answered: to look for circles among them as
        # often as Python does by itself took a busy node a fourteenth of its time.
        gc.collect()
        gc.freeze()
        gc.set_threshold(_YOUNG, 20, 20)
        gc.enable()
        self._agent.tell("node-started", f"process {os.getpid()}, version {__version__}")
        self._notify("READY=1")
        _log.info("ready; requests at http://%s, API at %s", self._settings.listen, self._folder.api_socket)

    async def _await_empty(self) -> None:
        """Wait for a first application, then for the last one to be gone; then end all."""
        had_any = False
        async for known in self._informer.changes():
            runs = bool(known.applications) or any(view.members for view in known.services.values())
            if had_any and not runs:
                self._stopping.set()
                return
            had_any = had_any or runs

    async def _end(self, work: Work) -> None:
        """End the tasks, last started first, each before the next."""
        self._notify("STOPPING=1")
        self._api.end()
        known = await self._informer.now()
        left = sum(len(view.instances) for view in known.services.values())
        for task in reversed(work.tasks):
            if task.get_name() != "api":
                task.cancel()
            await asyncio.wait((task,))
        if self._settings.ends_when_empty and not known.applications and not left:
            await self._gateway.stop()
            await self._agent.end_logging()
            _log.info("ended: nothing is left to run")
        else:
            _log.info("stopped; %d instances and the gateway run on", left)

    def _notify(self, state: str) -> None:
        """Tell whoever started us, as sd_notify(3) does; nothing if nobody wants to know."""
        address = self._settings.notify_socket
        if not address:
            return
        if address.startswith("@"):
            address = "\0" + address[1:]
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel, suppress(OSError):
            channel.sendto(state.encode(), address)

    async def _measure(self) -> Mapping[str, Any]:
        try:
            return await self._link.measurements()
        except GatewayError as error:
            raise OSError(str(error)) from error

    async def _metrics(self) -> str:
        try:
            return await self._link.metrics() + figures.text(self._coordinator)
        except GatewayError as error:
            raise OSError(str(error)) from error


K = TypeVar("K")
V = TypeVar("V")


class _WhenAsked(Mapping[K, V]):
    """
    A mapping that is fetched when something is looked up in it.

    Few decisions need what the gateway counts; the others should not wait for it.
    """

    def __init__(self, fetch: Callable[[], Mapping[K, V]]) -> None:
        self._fetch = fetch

    @cached_property
    def _found(self) -> Mapping[K, V]:
        return self._fetch()

    def __getitem__(self, key: K) -> V:
        return self._found[key]

    def __iter__(self) -> Iterator[K]:
        return iter(self._found)

    def __len__(self) -> int:
        return len(self._found)
