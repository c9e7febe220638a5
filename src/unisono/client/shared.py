"""
What the instances of an application share, in one place: keys, what is held, timestamps. See :func:`connect`.

In an instance nothing need be configured; elsewhere :func:`connect` says which node and whose state is meant.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from functools import cache

from unisono.client.connecting import Connection
from unisono.client.holding import Holdings, HoldingsSync
from unisono.client.insisting import insist
from unisono.client.keyvalue import Kv, KvSync
from unisono.client.mirroring import Mirror, MirrorSync, Tables
from unisono.client.questions import Ask, Node, Steps

MAX_TIMESTAMPS = 1 << 16
"""Timestamps of one request."""


@dataclass(frozen=True)
class NodeClock:
    """A node's hybrid logical clock: its next stamp, how far ahead a stamp may be, how many were not so."""

    stamp: int
    max_drift_ms: int
    refused: int


class Shared(Holdings):
    """The shared state of one application, with asyncio; may be used by several tasks and loops."""

    def __init__(self, connection: Connection, tables: Tables | None = None) -> None:
        super().__init__(connection)
        self.kv = Kv(connection)
        self.mirror = Mirror(self.kv, tables or Tables({}))
        self._batches: dict[asyncio.AbstractEventLoop, _Batch] = {}

    async def tso(self) -> int:
        """A timestamp above all that were given out before this was asked; see :meth:`timestamps`."""
        return (await self.timestamps(1))[0]

    async def timestamps(self, count: int) -> range:
        """
        Timestamps in a row, above all that were given out before this was asked, whatever crashed.

        Calls at one time share a request: while one is under way, those who come wait and go together.

        Args:
            count: How many, 1 to 65,536.

        Raises:
            ValueError: ``count`` is out of range.
            NotRunning, MaybeDone: None came; asking again is safe.
        """
        _check_count(count)
        loop = asyncio.get_running_loop()
        batch = self._batches.get(loop)
        if batch is None:
            for other in [other for other in self._batches if other.is_closed()]:
                del self._batches[other]
            batch = self._batches[loop] = _Batch(self._connection)
        return await batch.take(count)

    async def node_clock(self) -> NodeClock:
        """The node's clock."""
        return await self._connection.carry_out(node_clock())


class SharedSync(HoldingsSync):
    """As :class:`Shared`, for threads."""

    def __init__(self, connection: Connection, tables: Tables | None = None) -> None:
        super().__init__(connection)
        self.kv = KvSync(connection)
        self.mirror = MirrorSync(self.kv, tables or Tables({}))

    def tso(self) -> int:
        """As :meth:`Shared.tso`; each call is a request."""
        return self.timestamps(1)[0]

    def timestamps(self, count: int) -> range:
        """As :meth:`Shared.timestamps`; each call is a request."""
        _check_count(count)
        return self._connection.carry_out_sync(oracle(count))

    def node_clock(self) -> NodeClock:
        """As :meth:`Shared.node_clock`."""
        return self._connection.carry_out_sync(node_clock())


def connect(api: str | None = None, *, token: str | None = None, namespace: str | None = None) -> Shared:
    """
    The shared state at a node, with asyncio.

    Args:
        api: Where the node answers: ``unix:/PATH`` or ``http://HOST:PORT``; by default from the environment.
        token: An instance's ``UNISONO_TOKEN``.
        namespace: The application, at an operator's socket.

    Raises:
        ValueError: ``api`` is no address.
    """
    return Shared(_connection(api, token, namespace))


def connect_sync(
    api: str | None = None, *, token: str | None = None, namespace: str | None = None
) -> SharedSync:
    """As :func:`connect`, without asyncio."""
    return SharedSync(_connection(api, token, namespace))


@cache
def default() -> Shared:
    """That of the application whose instance this is."""
    return Shared(_default_connection(), _default_tables())


@cache
def default_sync() -> SharedSync:
    """As :func:`default`, without asyncio."""
    return SharedSync(_default_connection(), _default_tables())


@cache
def _default_connection() -> Connection:
    return Connection()


@cache
def _default_tables() -> Tables:
    return Tables()


def _connection(api: str | None, token: str | None, namespace: str | None) -> Connection:
    return Connection(None if api is None else Node.at(api, token=token, namespace=namespace))


# -- what is asked -------------------------------------------------------------------------------------


def oracle(count: int) -> Steps[range]:
    """So many in a row; a repeat wastes some, and that is all."""
    told = yield from insist(Ask(method="POST", path="/v1/tso", body={"count": count}))
    first = int(told.content["first"])
    return range(first, first + count)


def node_clock() -> Steps[NodeClock]:
    """A node's clock."""
    told = yield from insist(Ask(method="GET", path="/v1/clock"))
    said = told.content
    return NodeClock(stamp=int(said["hlc"], 16), max_drift_ms=said["max_drift_ms"], refused=said["refused"])


def _check_count(count: int) -> None:
    if not 1 <= count <= MAX_TIMESTAMPS:
        raise ValueError(f"count is {count}, must lie between 1 and {MAX_TIMESTAMPS}")


class _Batch:
    """
    Collects those who want timestamps while a request is under way.

    Nobody gets a share of a request that was sent before they asked: another may have had a greater one
    meanwhile, from another node, and told them.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._waiting: list[tuple[int, asyncio.Future[range]]] = []
        self._sending: asyncio.Task[None] | None = None

    async def take(self, count: int) -> range:
        share: asyncio.Future[range] = asyncio.get_running_loop().create_future()
        self._waiting.append((count, share))
        if self._sending is None:
            self._sending = asyncio.create_task(self._send(), name="unisono-timestamps")
        return await share

    async def _send(self) -> None:
        try:
            while self._waiting:
                await self._serve(self._next())
        finally:
            self._sending = None
            for _, share in self._waiting:  # only when the loop ends
                share.cancel()
            self._waiting = []

    def _next(self) -> list[tuple[int, asyncio.Future[range]]]:
        """As many as fit one request, in the order in which they came; who was cancelled wants none."""
        taken: list[tuple[int, asyncio.Future[range]]] = []
        total = 0
        waiting = [one for one in self._waiting if not one[1].done()]
        while waiting and total + waiting[len(taken)][0] <= MAX_TIMESTAMPS:
            total += waiting[len(taken)][0]
            taken.append(waiting[len(taken)])
            if len(taken) == len(waiting):
                break
        self._waiting = waiting[len(taken) :]
        return taken

    async def _serve(self, taken: list[tuple[int, asyncio.Future[range]]]) -> None:
        if not taken:
            return
        try:
            found = await self._connection.carry_out(oracle(sum(count for count, _ in taken)))
        except Exception as error:
            for _, share in taken:
                if not share.done():
                    share.set_exception(error)
            return
        except BaseException:
            for _, share in taken:
                share.cancel()
            raise
        begin = 0
        for count, share in taken:
            if not share.done():
                share.set_result(found[begin : begin + count])
            begin += count
