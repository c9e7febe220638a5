"""
The data plane of shared state: the engine's server in front of the services' socket, fed from the store.

It answers plain reads from its own copy of the entries, and hands plain writes and requests for timestamps
here, many at a time; all else it passes on to the API behind (``engine/src/state``). What makes its reads
linearizable: the store tells it of each batch of commits after it is durable and before anybody hears of
it, so there is no moment at which an acknowledged write is missing. That only a store of this process can
do (:mod:`unisono.store.local`); on any other, the API answers at the socket itself and asks the store.

Callers that may do everything in their application are taught to it when the API has checked them, and
forgotten whenever a service changes; it never learns of those whose access is limited.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import socket
from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path

from unisono._engine import StateServer
from unisono.api import problems
from unisono.api.informer import Informer
from unisono.state.names import ROOT, namespace_prefix
from unisono.state.oracle import MAX_COUNT
from unisono.state.tokens import Tokens
from unisono.store.base import StoreError
from unisono.store.local import LocalStore
from unisono.store.watching import Change

Take = Callable[[str, int], Awaitable[int]]
"""For a namespace and a count: the first of as many timestamps in a row. Raises StoreError."""


class Plane:
    """Serves from :meth:`open` to :meth:`close`."""

    def __init__(self, store: LocalStore, server: StateServer, behind: Path, take: Take) -> None:
        self._store = store
        self._behind = behind
        self._server = server
        self._take = take
        self._loop = asyncio.get_running_loop()
        self._closed = False
        self._writing: asyncio.Task[None] | None = None
        self._giving: set[asyncio.Task[None]] = set()
        self._namespaces: dict[str, str] = {}  # by prefix, of callers that were taught
        self._loop.add_reader(server.writes_descriptor(), self._write)
        self._loop.add_reader(server.timestamps_descriptor(), self._give)

    @classmethod
    async def open(
        cls, store: LocalStore, informer: Informer, listener: socket.socket, behind: Path, *, take: Take
    ) -> Plane:
        """
        Serve at ``listener``, with the API at the Unix socket ``behind``; ``take`` gives timestamps.

        Raises:
            StoreError: The store failed.
            OSError: The server could not be started.
        """
        tokens = await Tokens.load(store)
        server = StateServer(listener.fileno(), str(behind), tokens.secret)
        plane = cls(store, server, behind, take)
        found = store.follow(ROOT, plane._follow)
        entries = [(e.key, (e.value, e.created, e.modified)) for e in found.entries]
        server.apply(entries, found.revision)
        informer.on_services(server.forget)
        return plane

    def learn(self, credentials: str, namespace: str) -> None:
        """Who presents ``credentials`` may read and write all keys of ``namespace``."""
        prefix = namespace_prefix(namespace)
        self._namespaces[prefix] = namespace
        self._server.learn(credentials.encode("latin-1"), prefix)

    async def close(self) -> None:
        """Take no more connections, answer what was asked, then let go of the store and the socket behind."""
        await asyncio.to_thread(self._server.close)
        self._closed = True
        self._loop.remove_reader(self._server.writes_descriptor())
        self._loop.remove_reader(self._server.timestamps_descriptor())
        self._store.unfollow(self._follow)
        self._behind.unlink(missing_ok=True)
        if begun := self._giving | ({self._writing} if self._writing is not None else set()):
            await asyncio.wait(begun)

    def _follow(self, changes: Sequence[Change], revision: int) -> None:
        self._server.apply(
            [
                (c.key, None if (e := c.entry) is None else (e.value, e.created, e.modified))
                for c in changes
                if c.key.startswith(ROOT)
            ],
            revision,
        )

    def _write(self) -> None:
        self._loop.remove_reader(self._server.writes_descriptor())
        self._writing = asyncio.create_task(self._put_all(), name="unisono-state-writes")

    async def _put_all(self) -> None:
        """
        Write until nothing waits: one batch at a time, so that all that comes meanwhile makes up the next.

        The store would queue it behind that one anyhow; and many small batches cost more than few large ones.
        """
        try:
            while taken := self._server.take_writes():
                await self._put(taken)
        finally:
            if not self._closed:
                self._loop.add_reader(self._server.writes_descriptor(), self._write)

    async def _put(self, taken: Sequence[tuple[int, str, bytes]]) -> None:
        try:
            revisions = await self._store.put_each([(key, value) for _, key, value in taken])
        except StoreError as error:
            self._fail(taken, problems.of_store(error))
        except Exception as error:
            self._fail(taken, problems.of_fault(error))
            raise
        else:
            numbers = (number for number, _, _ in taken)
            self._server.done(list(zip(numbers, revisions, strict=True)))

    def _give(self) -> None:
        wanted: dict[str, list[tuple[int, int]]] = {}
        for number, prefix, count in self._server.take_timestamps():
            wanted.setdefault(prefix, []).append((number, count))
        for prefix, asked in wanted.items():
            giving = asyncio.create_task(self._give_all(prefix, asked), name="unisono-state-timestamps")
            self._giving.add(giving)
            giving.add_done_callback(self._giving.discard)

    async def _give_all(self, prefix: str, asked: Sequence[tuple[int, int]]) -> None:
        """As many at a time as the oracle gives at once; each gets a part of its own."""
        for part in _parts(asked):
            numbers = [number for number, _ in part]
            try:
                first = await self._take(self._namespaces[prefix], sum(count for _, count in part))
            except StoreError as error:
                self._give_none(numbers, problems.of_store(error))
            except Exception as error:
                self._give_none([number for number, _ in asked], problems.of_fault(error))
                raise
            else:
                firsts = itertools.accumulate((count for _, count in part[:-1]), initial=first)
                self._server.gave(list(zip(numbers, firsts, strict=True)))

    def _give_none(self, numbers: Sequence[int], problem: problems.Problem) -> None:
        self._server.gave_none(numbers, int(problem.status), json.dumps(problems.document(problem)).encode())

    def _fail(self, taken: Sequence[tuple[int, str, bytes]], problem: problems.Problem) -> None:
        document = json.dumps(problems.document(problem)).encode()
        self._server.failed([number for number, _, _ in taken], int(problem.status), document)


def _parts(asked: Sequence[tuple[int, int]]) -> Iterator[list[tuple[int, int]]]:
    """Numbers with counts, in their order, in parts of at most MAX_COUNT timestamps."""
    part: list[tuple[int, int]] = []
    total = 0
    for number, count in asked:
        if total + count > MAX_COUNT:
            yield part
            part, total = [], 0
        part.append((number, count))
        total += count
    yield part
