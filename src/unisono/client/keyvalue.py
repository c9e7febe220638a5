"""
Keys and values with asyncio and without: the faces of what :mod:`unisono.client.keys` asks.
Not named ``kv``: as a module of the package that would hide ``client.kv``.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import aclosing, closing

from unisono.client.connecting import Connection
from unisono.client.errors import NotRunning
from unisono.client.keys import (
    Changes,
    Compare,
    Consistency,
    Delete,
    Listing,
    Put,
    Value,
    Watching,
    Written,
    delete,
    get,
    history,
    put,
    scan,
    transact,
    write,
)

WATCH_PATIENCE = 60.0  # seconds that a watch goes on without a node
_RETRY_SECONDS = 0.2


# -- with asyncio --------------------------------------------------------------------------------------


class Kv:
    """
    The keys of one application. Every call may take ``patience`` seconds more than it needs, while the node
    is away, and raises what :func:`unisono.client.insisting.insist` does. Cancelled, a write may have
    happened.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def get(
        self,
        key: str,
        *,
        consistency: Consistency | None = None,
        max_staleness: float | None = None,
        revision: int | None = None,
    ) -> Value | None:
        """
        The value of ``key``, or ``None``.

        Args:
            consistency: ``linearizable`` (all that was acknowledged before; the default), ``session`` (what
                this session has seen; the default in a :func:`session`), ``bounded`` (by ``max_staleness``)
                or ``eventual``.
            max_staleness: Seconds that the answer may be old, for ``bounded``.
            revision: As of an earlier revision; Refused with code ``compacted`` when it is no longer kept.
        """
        return await self._connection.carry_out(
            get(key, consistency=consistency, max_staleness=max_staleness, revision=revision)
        )

    async def put(
        self,
        key: str,
        value: bytes | str,
        *,
        expected: int | None = None,
        ttl: float | None = None,
        request_id: str | None = None,
        fence: str | None = None,
    ) -> int:
        """
        Set ``key``; the revision at which it was set.

        Args:
            expected: Only if the key was last changed at this revision; 0: only if it does not exist.
            ttl: Seconds after which the key goes, at least; up to a sixteenth more.
            request_id: Makes a repeat by the caller, after a crash say, have one effect.
            fence: :attr:`~unisono.client.holding.Held.fence` of what must still be held.

        Raises:
            Changed: It is not as ``expected``.
            Fenced: What the fence stands for is held no more.
        """
        return await self._connection.carry_out(
            write(
                put(key, value, ttl=ttl),
                expected=expected,
                request_id=request_id,
                fence=fence,
            )
        )

    async def delete(
        self,
        key: str,
        *,
        expected: int | None = None,
        request_id: str | None = None,
        fence: str | None = None,
    ) -> int:
        """Remove ``key``; removing what is not there is no error. Arguments and errors as of :meth:`put`."""
        return await self._connection.carry_out(
            write(delete(key), expected=expected, request_id=request_id, fence=fence)
        )

    async def scan(
        self, prefix: str = "", *, after: str = "", limit: int = 1000, revision: int | None = None
    ) -> Listing:
        """Entries whose key begins with ``prefix`` and comes after ``after``, at most 10,000 at a time."""
        return await self._connection.carry_out(scan(prefix, after=after, limit=limit, revision=revision))

    async def history(self, key: str, *, limit: int = 100) -> tuple[Value, ...]:
        """What ``key`` has been since it was last made, the newest first, as far as it is kept."""
        return await self._connection.carry_out(history(key, limit=limit))

    async def transact(
        self,
        *,
        compare: Sequence[Compare] = (),
        success: Sequence[Put | Delete] = (),
        failure: Sequence[Put | Delete] = (),
        request_id: str | None = None,
        fence: str | None = None,
    ) -> Written:
        """Do ``success`` if every compare holds, else ``failure``, at one revision; at most 128 of them."""
        return await self._connection.carry_out(
            transact(compare, success, failure, request_id=request_id, fence=fence)
        )

    async def watch(self, prefix: str = "", *, after: int | None = None) -> AsyncIterator[Changes]:
        """
        Every change of keys that begin with ``prefix``, from after revision ``after`` on, or from all there
        is.

        Without gap or repeat, also while the node is started again; where a gap can't be helped, a resync:
        all there is, and a removal of what this watch had shown and is gone. Endless; close it
        (``contextlib.aclosing``) when you have seen enough.

        Raises:
            Refused: The prefix is malformed.
            NotRunning: No node answered for ``WATCH_PATIENCE`` seconds; go on ``after`` what came last.
        """
        watching = Watching(prefix, after)
        alive = time.monotonic()
        while True:
            try:
                async with aclosing(self._connection.asking().events(watching.ask())) as events:
                    async for event in events:
                        if (changes := watching.take(event)) is not None:
                            yield changes
                        alive = time.monotonic()
            except NotRunning:
                if time.monotonic() - alive > WATCH_PATIENCE:
                    raise
            await asyncio.sleep(_RETRY_SECONDS)


# -- without -------------------------------------------------------------------------------------------


class KvSync:
    """As :class:`Kv`, for threads."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def get(
        self,
        key: str,
        *,
        consistency: Consistency | None = None,
        max_staleness: float | None = None,
        revision: int | None = None,
    ) -> Value | None:
        """As :meth:`Kv.get`."""
        return self._connection.carry_out_sync(
            get(key, consistency=consistency, max_staleness=max_staleness, revision=revision)
        )

    def put(
        self,
        key: str,
        value: bytes | str,
        *,
        expected: int | None = None,
        ttl: float | None = None,
        request_id: str | None = None,
        fence: str | None = None,
    ) -> int:
        """As :meth:`Kv.put`."""
        return self._connection.carry_out_sync(
            write(put(key, value, ttl=ttl), expected=expected, request_id=request_id, fence=fence)
        )

    def delete(
        self,
        key: str,
        *,
        expected: int | None = None,
        request_id: str | None = None,
        fence: str | None = None,
    ) -> int:
        """As :meth:`Kv.delete`."""
        return self._connection.carry_out_sync(
            write(delete(key), expected=expected, request_id=request_id, fence=fence)
        )

    def scan(
        self, prefix: str = "", *, after: str = "", limit: int = 1000, revision: int | None = None
    ) -> Listing:
        """As :meth:`Kv.scan`."""
        return self._connection.carry_out_sync(scan(prefix, after=after, limit=limit, revision=revision))

    def history(self, key: str, *, limit: int = 100) -> tuple[Value, ...]:
        """As :meth:`Kv.history`."""
        return self._connection.carry_out_sync(history(key, limit=limit))

    def transact(
        self,
        *,
        compare: Sequence[Compare] = (),
        success: Sequence[Put | Delete] = (),
        failure: Sequence[Put | Delete] = (),
        request_id: str | None = None,
        fence: str | None = None,
    ) -> Written:
        """As :meth:`Kv.transact`."""
        return self._connection.carry_out_sync(
            transact(compare, success, failure, request_id=request_id, fence=fence)
        )

    def watch(self, prefix: str = "", *, after: int | None = None) -> Iterator[Changes]:
        """As :meth:`Kv.watch`."""
        watching = Watching(prefix, after)
        alive = time.monotonic()
        while True:
            try:
                with closing(self._connection.asking_sync().events(watching.ask())) as events:
                    for event in events:
                        if (changes := watching.take(event)) is not None:
                            yield changes
                        alive = time.monotonic()
            except NotRunning:
                if time.monotonic() - alive > WATCH_PATIENCE:
                    raise
            time.sleep(_RETRY_SECONDS)
