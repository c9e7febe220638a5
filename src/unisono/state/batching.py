"""
Many callers, few requests: who asks while a request is under way shares the next one.

For timestamps, where a request for a thousand costs what a request for one does. What is left of an answer
is never kept for those who ask later: by then another client may have seen larger ones, and theirs must be
larger still. So each request asks for exactly what those want who were there before it was sent.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable

from unisono.state.oracle import MAX_COUNT

Fetch = Callable[[int], Awaitable[int]]
"""Asks for so many timestamps in a row, at most MAX_COUNT; answers with the first."""


class Batcher:
    """
    Shares the requests of one event loop's callers; one is under way at a time.

    Use as ``async with``: leaving it fails whoever still waits with CancelledError.
    """

    def __init__(self, fetch: Fetch) -> None:
        self._fetch = fetch
        self._waiting: deque[asyncio.Future[int]] = deque()
        self._asked = asyncio.Event()
        self._sending: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Batcher:
        self._sending = asyncio.create_task(self._send(), name="unisono-timestamps")
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._sending is not None:
            self._sending.cancel()
            await asyncio.wait([self._sending])
        while self._waiting:
            self._waiting.popleft().cancel()

    async def take(self) -> int:
        """
        One timestamp, larger than all that anybody had before this was called.

        Raises:
            Exception: What the request raised that this call was part of; others are not affected.
        """
        future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._waiting.append(future)
        self._asked.set()
        return await future

    async def _send(self) -> None:
        while True:
            await self._asked.wait()
            asking = [self._waiting.popleft() for _ in range(min(len(self._waiting), MAX_COUNT))]
            if not self._waiting:
                self._asked.clear()
            asking = [future for future in asking if not future.done()]  # without those who gave up
            if asking:
                await self._answer(asking)

    async def _answer(self, asking: list[asyncio.Future[int]]) -> None:
        try:
            first = await self._fetch(len(asking))
        except asyncio.CancelledError:
            for future in asking:
                future.cancel()
            raise
        except Exception as error:
            for future in asking:
                if not future.done():
                    future.set_exception(error)
            return
        for timestamp, future in enumerate(asking, first):
            if not future.done():
                future.set_result(timestamp)
