"""
What a node does first: it opens the store, listens, and goes on with the transactions that were open.

Participants hold locks for those, so they wait for nothing else: the rest of a node (:mod:`.rooms`) is
imported once each of them is under way again, and beside them.
"""

from __future__ import annotations

import asyncio
import importlib
import logging
import secrets
import signal
import socket
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any

from unisono.api.addresses import InternalPorts, bind_failure, parse_address
from unisono.api.directory import ServiceDirectory
from unisono.api.listeners import Endpoint, tcp_listener, unix_listener
from unisono.api.tokens import made_token
from unisono.daemon import ports
from unisono.daemon.settings import EXIT_REFUSED, EXIT_USAGE, CannotRun, Settings
from unisono.gateway import presence
from unisono.kept import write_kept
from unisono.node.identity import Identities
from unisono.node.paths import NodeLock, StateFolder
from unisono.store import opening
from unisono.store.addresses import BadStoreAddress, SqliteAddress
from unisono.store.base import Store
from unisono.timestamps.hybrid import HybridClock
from unisono.transactions.calls import HttpCaller
from unisono.transactions.coordinator import Coordinator
from unisono.transactions.records import Record

_PATIENCE = 1.0  # seconds that the rest waits for transactions: another node, or the store, may hold them up

_log = logging.getLogger("unisono")


async def run_node(settings: Settings) -> None:
    """
    Run a node until it is told to end.

    Raises:
        CannotRun: It could not start; nothing was changed but the state folder made, if there was none.
        StoreError: The store can't go on.
    """
    folder = settings.folder
    folder.prepare()
    with NodeLock(folder):
        if settings.insists_on_listen:
            _check_listen(settings)
        address = _store_address(settings)
        store = await _open_store(settings, address)
        try:
            await _run(settings, Beginning(settings, store, is_alone=isinstance(address, SqliteAddress)))
        finally:
            await store.close()
            folder.api_socket.unlink(missing_ok=True)
            folder.services_socket.unlink(missing_ok=True)


async def _run(settings: Settings, beginning: Beginning) -> None:
    """Until told to end, or until a part of the node fails."""
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, beginning.stopping.set)
    await beginning.keep_ports()
    async with asyncio.TaskGroup() as tasks:
        work = Work(tasks, beginning.stopping)
        work.start("transactions", beginning.coordinate())
        with suppress(TimeoutError):
            async with asyncio.timeout(_PATIENCE):
                await beginning.coordinator.ready.wait()
        # Its allocator takes the thread that loads it for the process's first one: never one that may end.
        importlib.import_module("unisono._engine")
        # In a thread, so that they are called and answered meanwhile.
        rooms = await asyncio.to_thread(importlib.import_module, "unisono.daemon.rooms")
        await rooms.Rooms(settings, beginning).run(work)


class Work:
    """The long-lived tasks of a node, in the order in which they were started; they end in reverse."""

    def __init__(self, tasks: asyncio.TaskGroup, stopping: asyncio.Event) -> None:
        self._group = tasks
        self._stopping = stopping
        self.tasks: list[asyncio.Task[None]] = []

    def start(self, name: str, work: Coroutine[Any, Any, None], *, may_end: bool = False) -> None:
        """Start one; if it ends by itself and may not, that is a fault of the node."""

        async def guarded() -> None:
            await work
            if not may_end and not self._stopping.is_set():
                raise RuntimeError(f"the node's {name} ended by itself")

        self.tasks.append(self._group.create_task(guarded(), name=name))


class Beginning:
    """What the rest of a node is built on; made before anything runs, so that what can't be is said then."""

    def __init__(self, settings: Settings, store: Store, *, is_alone: bool) -> None:
        """
        Listen at the node's addresses; ``is_alone`` if no other node can use the store.

        Raises:
            CannotRun: One of them can't be had.
        """
        folder = settings.folder
        self._folder = folder
        self._is_alone = is_alone
        self.store = store
        self.node_id = _node_id(folder)
        self.stopping = asyncio.Event()
        self.directory = ServiceDirectory()
        self.internal_ports = InternalPorts()
        self.clock = HybridClock()
        self._caller = HttpCaller()
        self._doubtful: list[Record] = []  # before somebody could be told
        self._tell: Callable[[Record], None] = self._doubtful.append
        self.coordinator = Coordinator(
            store,
            self.node_id,
            self._caller,
            self.directory,
            stamp=self.clock.now,
            tell=self._told,
        )
        self.endpoints = [
            Endpoint(unix_listener(folder.api_socket)),
            Endpoint(
                unix_listener(folder.services_socket),
                identities=Identities.kept_in(folder.identity_secret),
            ),
        ]
        if settings.api is not None:
            kept = folder.path / "api.token"
            token = settings.token or made_token(kept)
            if settings.token is None:
                _log.info("the token for the API at %s is in %s", settings.api, kept)
            self.endpoints.append(Endpoint(_bound(settings.api), token))

    async def keep_ports(self) -> None:
        """
        Learn which services there are, and see that nobody else has their internal ports.

        Where other nodes may use the same store nothing is moved: somebody else may be one of them.

        Raises:
            CannotRun: No port is left.
        """
        await self.directory.read(self.store)
        lost = await ports.lost(self.internal_ports, self.directory.ports, self._folder.gateway_socket)
        if lost and self._is_alone:
            await ports.readdress(self.store, lost, self.internal_ports)
            await self.directory.read(self.store)
            # What was given up is not kept from whoever has it: it may be a node that is about to come back.
            self.internal_ports.keep_only(set(self.directory.ports.values()))

    async def coordinate(self) -> None:
        """Coordinate transactions until cancelled."""
        try:
            await self.coordinator.run()
        finally:
            await self._caller.close()

    def on_doubt(self, tell: Callable[[Record], None]) -> None:
        """Tell of transactions that are in doubt: of those until now, and of all that come."""
        self._tell = tell
        for record in self._doubtful:
            tell(record)
        self._doubtful.clear()

    def _told(self, record: Record) -> None:
        self._tell(record)


def _node_id(folder: StateFolder) -> str:
    """A name of this node that stays: its instances bear it."""
    path = folder.node_id_file
    with suppress(FileNotFoundError):
        if known := path.read_text().strip():
            return known
    made = f"{socket.gethostname().partition('.')[0].lower()}-{secrets.token_hex(3)}"
    write_kept(path, made + "\n")
    return made


def _store_address(settings: Settings) -> opening.Address:
    folder = settings.folder
    try:
        return opening.choose(
            settings.store,
            kept=folder.kept_store,
            default=folder.store_file,
            password=settings.store_password,
            password_file=settings.store_password_file,
        )
    except BadStoreAddress as error:
        raise CannotRun(str(error), EXIT_USAGE) from error


async def _open_store(settings: Settings, address: opening.Address) -> Store:
    store = await opening.open_store(address)
    if settings.store is not None:
        opening.keep(settings.folder.kept_store, settings.store, settings.store_password_file)
    _log.info("the store is %s", address)
    return store


def _check_listen(settings: Settings) -> None:
    if presence.answers(settings.folder.gateway_socket):
        return  # it is the gateway that listens there
    reason = bind_failure(*parse_address(settings.listen))
    if reason:
        raise CannotRun(reason, EXIT_REFUSED, hint="give another address with --listen HOST:PORT")


def _bound(address: str) -> socket.socket:
    host, port = parse_address(address)
    try:
        return tcp_listener(host, port)
    except OSError as error:
        reason = bind_failure(host, port) or f"can't listen at {address}: {error.strerror}"
        raise CannotRun(reason, EXIT_REFUSED, hint="give another address with --api HOST:PORT") from error
