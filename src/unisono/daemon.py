"""
The node as a program: puts the rooms together, starts them in order, and ends them in reverse.

``python -m unisono.daemon`` is what ``unisono node`` and ``unisono up`` run. Nothing is decided here but
the order, and what an end means:

* SIGTERM, SIGINT and ``POST /v1/node/stop`` end the node alone. Gateway and instances run on, and the
  next node adopts them.
* A node started with ``--ends-when-empty``, as ``unisono up`` does, ends once its last application has
  been removed, and takes the gateway along: nothing is left.
* A long-lived task that ends by itself is a fault, and the node ends with it.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import logging
import logging.handlers
import os
import secrets
import signal
import socket
import sys
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, TypeVar

from unisono import __version__
from unisono.api.addresses import BadAddress, allocate_port, bind_failure, parse_address
from unisono.api.context import Context, NodeFacts
from unisono.api.directory import ServiceDirectory
from unisono.api.endpoints import Endpoint, Endpoints
from unisono.api.listeners import tcp_listener, unix_listener
from unisono.api.mirror import Mirror
from unisono.api.tokens import BadToken, made_token, read_token
from unisono.control.loop import Controller
from unisono.gateway.errors import GatewayError
from unisono.gateway.link import GatewayLink
from unisono.gateway.process import GatewayProcess
from unisono.gateway.table import AccessLog
from unisono.node.agent import Agent
from unisono.node.identity import Identities
from unisono.node.measuring import measured
from unisono.node.paths import NodeLock, StateFolder, StateFolderError, default_state_folder
from unisono.store import opening
from unisono.store.addresses import BadStoreAddress, parse_store
from unisono.store.base import Store, StoreError
from unisono.timestamps.hybrid import HybridClock
from unisono.transactions import figures
from unisono.transactions.calls import HttpCaller
from unisono.transactions.coordinator import Coordinator
from unisono.transactions.records import Record

DEFAULT_LISTEN = "127.0.0.1:8080"

EXIT_FAULT, EXIT_USAGE, EXIT_REFUSED = 1, 2, 4  # as in docs/reference/exit-codes.md

_log = logging.getLogger("unisono")


class CannotRun(Exception):
    """The node can't start; the message says why, ``code`` is the program's exit code."""

    def __init__(self, message: str, code: int, *, hint: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.hint = hint


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How a node is to run."""

    folder: StateFolder
    listen: str = DEFAULT_LISTEN
    insists_on_listen: bool = False  # the address was asked for, not just the default
    api: str | None = None
    token: str | None = None
    store: str | None = None  # its address, where one was given
    store_password_file: Path | None = None
    store_password: str | None = field(default=None, repr=False)
    access_log: Literal["json", "combined"] | None = None
    ends_when_empty: bool = False
    notify_socket: str | None = None


async def run_node(settings: Settings) -> None:
    """
    Run a node until it is told to end.

    Raises:
        CannotRun: It could not start; nothing was changed but the state folder made.
        StoreError: The store can't go on.
    """
    folder = settings.folder
    folder.prepare()
    with NodeLock(folder):
        if settings.insists_on_listen and not _answers(folder.gateway_socket):
            _check_listen(settings.listen)
        store = await _open_store(settings)
        try:
            await _Node(settings, store).run()
        finally:
            await store.close()
            folder.api_socket.unlink(missing_ok=True)
            folder.services_socket.unlink(missing_ok=True)


class _Node:
    """The rooms of a running node, and their order."""

    def __init__(self, settings: Settings, store: Store) -> None:
        self._settings = settings
        self._folder = settings.folder
        self._store = store
        self._mirror = Mirror(store)
        self._stopping = asyncio.Event()
        node_id = _node_id(self._folder)
        self._gateway = GatewayProcess(self._folder.gateway_socket, self._folder.gateway_table)
        self._link = GatewayLink(self._folder.gateway_socket)
        access_log = settings.access_log and AccessLog(
            format=settings.access_log, path=str(self._folder.access_log)
        )
        self._agent = Agent(
            store, node_id, self._folder, self._link, settings.listen, access_log=access_log or None
        )
        self._controller = Controller(
            store,
            node_id,
            in_flight=lambda: _WhenAsked(self._link.in_flight),
            measured=lambda: _WhenAsked(lambda: measured(self._link.measured())),
        )
        clock = HybridClock()
        self._caller = HttpCaller()
        self._coordinator = Coordinator(
            store,
            node_id,
            self._caller,
            ServiceDirectory(self._mirror),
            stamp=clock.now,
            tell=self._on_doubt,
        )
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
        )
        context = Context(
            store=store,
            mirror=self._mirror,
            facts=facts,
            logs=self._folder.logs,
            measure=self._measure,
            metrics=self._metrics,
            allocate_port=allocate_port,
            stop=self._stop,
            coordinator=self._coordinator,
            clock=clock,
            stopping=self._stopping,
        )
        endpoints = [
            Endpoint(unix_listener(self._folder.api_socket)),
            Endpoint(
                unix_listener(self._folder.services_socket),
                identities=Identities.kept_in(self._folder.identity_secret),
            ),
        ]
        if settings.api is not None:
            kept = self._folder.path / "api.token"
            token = settings.token or made_token(kept)
            if settings.token is None:
                _log.info("the token for the API at %s is in %s", settings.api, kept)
            endpoints.append(Endpoint(_bound(settings.api), token))
        self._api = Endpoints(context, endpoints)

    async def run(self) -> None:
        """Until told to end, or until a part of it fails."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop)
        async with asyncio.TaskGroup() as tasks:
            # In the order in which they are needed; they end in reverse.
            work = [
                self._start(tasks, "gateway", self._gateway.run(self._on_gateway)),
                self._start(tasks, "mirror", self._mirror.run()),
                self._start(tasks, "transactions", self._coordinate()),
                self._start(tasks, "agent", self._agent.run()),
                self._start(tasks, "controller", self._controller.run()),
                self._start(tasks, "api", self._serve_api(), may_end=True),
            ]
            if self._settings.ends_when_empty:
                work.append(self._start(tasks, "last-application", self._await_empty(), may_end=True))
            await self._announce()
            await self._stopping.wait()
            await self._end(work)

    def _start(
        self, tasks: asyncio.TaskGroup, name: str, work: Coroutine[Any, Any, None], *, may_end: bool = False
    ) -> asyncio.Task[None]:
        async def guarded() -> None:
            await work
            if not may_end and not self._stopping.is_set():
                raise RuntimeError(f"the node's {name} ended by itself")

        return tasks.create_task(guarded(), name=name)

    async def _serve_api(self) -> None:
        """Adopting what runs comes first: the API's frameworks take longer to import than that takes."""
        await self._agent.ready.wait()
        await self._api.run()

    async def _coordinate(self) -> None:
        """Transactions that were open when the node ended go on before anything else is adopted."""
        await self._mirror.now()
        try:
            await self._coordinator.run()
        finally:
            await self._caller.close()

    def _on_doubt(self, record: Record) -> None:
        reason = record.heuristic.reason if record.heuristic else ""
        self._agent.tell("transaction-in-doubt", f"{record.namespace}/{record.gid}: {reason}")

    def _on_gateway(self) -> None:
        """A gateway answers that did not before: it has to learn what changed since its table was kept."""
        self._agent.routing.push_again()
        self._agent.tell("gateway-started", f"process {self._gateway.pid}")

    async def _announce(self) -> None:
        """Say that the node is ready, once all that ran before has been found again."""
        await self._api.listening.wait()
        # What was made so far stays: the collector need not look at it again and again.
        gc.collect()
        gc.freeze()
        gc.enable()
        self._notify("READY=1")
        _log.info("ready; requests at http://%s, API at %s", self._settings.listen, self._folder.api_socket)

    async def _await_empty(self) -> None:
        """Wait for a first application, then for the last one to be gone; then end all."""
        had_any = False
        async for known in self._mirror.changes():
            runs = bool(known.applications) or any(view.members for view in known.services.values())
            if had_any and not runs:
                self._stop()
                return
            had_any = had_any or runs

    async def _end(self, work: list[asyncio.Task[None]]) -> None:
        """End the tasks, last started first, each before the next."""
        self._notify("STOPPING=1")
        self._api.end()
        known = await self._mirror.now()
        left = sum(len(view.instances) for view in known.services.values())
        for task in reversed(work):
            if task.get_name() != "api":
                task.cancel()
            await asyncio.wait((task,))
        if self._settings.ends_when_empty and not known.applications and not left:
            await self._gateway.stop()
            await self._agent.end_logging()
            _log.info("ended: nothing is left to run")
        else:
            _log.info("stopped; %d instances and the gateway run on", left)

    def _stop(self) -> None:
        self._stopping.set()

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


def _node_id(folder: StateFolder) -> str:
    """A name of this node that stays: its instances bear it."""
    path = folder.path / "node-id"
    with suppress(FileNotFoundError):
        if known := path.read_text().strip():
            return known
    made = f"{socket.gethostname().partition('.')[0].lower()}-{secrets.token_hex(3)}"
    path.write_text(made + "\n")
    return made


async def _open_store(settings: Settings) -> Store:
    folder = settings.folder
    try:
        address = opening.choose(
            settings.store,
            kept=folder.kept_store,
            default=folder.store_file,
            password=settings.store_password,
            password_file=settings.store_password_file,
        )
    except BadStoreAddress as error:
        raise CannotRun(str(error), EXIT_USAGE) from error
    store = await opening.open_store(address)
    if settings.store is not None:
        opening.keep(folder.kept_store, settings.store, settings.store_password_file)
    _log.info("the store is %s", address)
    return store


def _check_listen(listen: str) -> None:
    reason = bind_failure(*parse_address(listen))
    if reason:
        raise CannotRun(reason, EXIT_REFUSED, hint="give another address with --listen HOST:PORT")


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        return connection.connect_ex(str(path)) == 0


def _bound(address: str) -> socket.socket:
    host, port = parse_address(address)
    try:
        return tcp_listener(host, port)
    except OSError as error:
        reason = bind_failure(host, port) or f"can't listen at {address}: {error.strerror}"
        raise CannotRun(reason, EXIT_REFUSED, hint="give another address with --api HOST:PORT") from error


def _settings(arguments: list[str] | None) -> tuple[Settings, bool]:
    parser = argparse.ArgumentParser(prog="unisono node", description="Runs a node.")
    parser.add_argument("--state", type=Path, default=default_state_folder())
    parser.add_argument("--listen", metavar="HOST:PORT")
    parser.add_argument("--api", metavar="HOST:PORT")
    parser.add_argument("--api-token-file", type=Path, metavar="FILE")
    parser.add_argument("--store", metavar="ADDRESS")
    parser.add_argument("--store-password-file", type=Path, metavar="FILE")
    parser.add_argument("--access-log", choices=("json", "combined"))
    parser.add_argument("--ends-when-empty", action="store_true")
    parser.add_argument("--log-to-folder", action="store_true")
    given = parser.parse_args(arguments)
    # None of these is for those whom this node starts.
    store_password = os.environ.pop("UNISONO_STORE_PASSWORD", None)
    token = os.environ.pop("UNISONO_API_TOKEN", None)
    notify_socket = os.environ.pop("NOTIFY_SOCKET", None)
    listen = given.listen or DEFAULT_LISTEN
    try:
        if given.api_token_file is not None:
            token = read_token(given.api_token_file)
        for address in filter(None, (listen, given.api)):
            parse_address(address)
        if given.store is not None:
            parse_store(given.store)
    except (BadToken, BadAddress, BadStoreAddress) as error:
        raise CannotRun(str(error), EXIT_USAGE) from error
    settings = Settings(
        folder=StateFolder(given.state.absolute()),
        listen=listen,
        insists_on_listen=given.listen is not None,
        api=given.api,
        token=token,
        store=given.store,
        store_password_file=given.store_password_file,
        store_password=store_password,
        access_log=given.access_log,
        ends_when_empty=given.ends_when_empty,
        notify_socket=notify_socket,
    )
    return settings, given.log_to_folder


def _log_to(folder: StateFolder | None) -> None:
    """Log to stderr, or to a file of the state folder, of which one older part is kept."""
    handler: logging.Handler = logging.StreamHandler()
    style = "%(levelname)s: %(message)s"
    if folder is not None:
        handler = logging.handlers.RotatingFileHandler(
            folder.path / "node.log", maxBytes=1_000_000, backupCount=1
        )
        style = "%(asctime)s %(levelname)s: %(message)s"
    handler.setFormatter(logging.Formatter(style))
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.getLogger("unisono").setLevel(logging.INFO)


def main(arguments: list[str] | None = None) -> int:
    """Run a node; returns the program's exit code."""
    gc.disable()  # until the node is ready: what is made at the start stays
    try:
        settings, log_to_folder = _settings(arguments)
        settings.folder.prepare()
        _log_to(settings.folder if log_to_folder else None)
        asyncio.run(run_node(settings))
    except CannotRun as error:
        return _complain(str(error), error.code, error.hint)
    except BadToken as error:
        return _complain(str(error), EXIT_USAGE)
    except StateFolderError as error:
        return _complain(str(error), EXIT_REFUSED)
    except (StoreError, OSError) as error:
        return _complain(str(error), EXIT_FAULT)
    except BaseExceptionGroup as group:
        for fault in _leaves(group):
            expected = isinstance(fault, StoreError | OSError)
            _log.error("the node has to end: %s", fault, exc_info=None if expected else fault)
        return _complain(str(_leaves(group)[0]), EXIT_FAULT)
    return 0


def _leaves(group: BaseExceptionGroup[BaseException]) -> list[BaseException]:
    found: list[BaseException] = []
    for error in group.exceptions:
        found += _leaves(error) if isinstance(error, BaseExceptionGroup) else [error]
    return found


def _complain(message: str, code: int, hint: str = "") -> int:
    print(f"error: {message}", file=sys.stderr)
    if hint:
        print(f"hint: {hint}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
