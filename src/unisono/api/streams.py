"""
Answers without end: server-sent events and lines of JSON.

A stream ends when its source does, when the client goes, or when the node stops. What is sent is made
by the endpoints; here is only how.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from typing import Any, TypeVar

from starlette.requests import Request
from starlette.responses import StreamingResponse

T = TypeVar("T")
A = TypeVar("A")

EVENTS, LINES = "text/event-stream", "application/x-ndjson"

_DIGITS_MAX = 20  # of an id

HEARTBEAT = 15.0
"""Seconds of silence after which a comment is sent, so that a client that vanished is noticed."""


def last_event(request: Request, otherwise: A) -> int | A:
    """The id after which a client goes on: the header Last-Event-ID, which browsers send, where it is one."""
    said = request.headers.get("last-event-id", "")
    return int(said) if said.isdecimal() and len(said) <= _DIGITS_MAX else otherwise


def server_sent(events: AsyncIterator[bytes], stopping: asyncio.Event) -> StreamingResponse:
    """A stream of events made by :func:`event`."""
    return StreamingResponse(
        _alive(until(stopping, events)), media_type=EVENTS, headers={"Cache-Control": "no-store"}
    )


def lines(source: AsyncIterator[bytes], stopping: asyncio.Event) -> StreamingResponse:
    """A stream of lines, each of them JSON."""
    return StreamingResponse(until(stopping, source), media_type=LINES, headers={"Cache-Control": "no-store"})


def event(data: bytes, *, kind: str | None = None, id: int | None = None) -> bytes:
    """One server-sent event; ``data`` is on one line, as JSON without indent is."""
    head = f"id: {id}\n" if id is not None else ""
    head += f"event: {kind}\n" if kind is not None else ""
    return head.encode() + b"data: " + data + b"\n\n"


async def until(stop: asyncio.Event, source: AsyncIterator[T]) -> AsyncIterator[T]:
    """What ``source`` gives, until it ends or ``stop`` is set."""
    stopped = asyncio.ensure_future(stop.wait())
    step: asyncio.Future[T] | None = None
    try:
        while not stop.is_set():
            step = asyncio.ensure_future(anext(source))
            await asyncio.wait((step, stopped), return_when=asyncio.FIRST_COMPLETED)
            if not step.done():
                return
            try:
                item = step.result()
            except StopAsyncIteration:
                return
            yield item
    finally:
        await _cancelled([stopped] + ([step] if step is not None else []))
        await _closed(source)


async def merged(sources: Sequence[AsyncIterator[T]]) -> AsyncIterator[T]:
    """What all ``sources`` give, as it comes; ends when all have ended, or one fails."""
    queue: asyncio.Queue[T] = asyncio.Queue(maxsize=1)

    async def forward(source: AsyncIterator[T]) -> None:
        async for item in source:
            await queue.put(item)

    async def forward_all() -> None:
        async with asyncio.TaskGroup() as tasks:
            for source in sources:
                tasks.create_task(forward(source))

    forwarding = asyncio.ensure_future(forward_all())
    try:
        while True:
            item = asyncio.ensure_future(queue.get())
            await asyncio.wait((item, forwarding), return_when=asyncio.FIRST_COMPLETED)
            if not item.done():
                item.cancel()
                await forwarding
                return
            yield item.result()
    finally:
        await _cancelled([forwarding])
        for source in sources:
            await _closed(source)


async def _alive(source: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """``source`` with a comment whenever it is silent for long."""
    async with aclosing(source) as items:  # type: ignore[type-var]
        step: asyncio.Future[bytes] | None = None
        try:
            while True:
                step = step or asyncio.ensure_future(anext(items))
                await asyncio.wait((step,), timeout=HEARTBEAT)
                if not step.done():
                    yield b": alive\n\n"
                    continue
                try:
                    item = step.result()
                except StopAsyncIteration:
                    return
                step = None
                yield item
        finally:
            if step is not None:
                await _cancelled([step])


async def _cancelled(futures: Sequence[asyncio.Future[Any]]) -> None:
    """Cancel these and wait until they have ended, however they do."""
    for future in futures:
        future.cancel()
    await asyncio.gather(*futures, return_exceptions=True)


async def _closed(source: AsyncIterator[T]) -> None:
    close = getattr(source, "aclose", None)
    if close is not None:
        await close()
