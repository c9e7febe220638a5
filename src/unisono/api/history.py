"""Endpoints that tell what was: events of the node, and what instances wrote."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from http import HTTPStatus
from itertools import groupby, islice
from typing import Annotated, Any

from pydantic import Field
from starlette.requests import Request
from starlette.responses import StreamingResponse

from unisono.api import streams
from unisono.api.applications import look
from unisono.api.context import Context
from unisono.api.operations import Operation, encode
from unisono.api.problems import Problem
from unisono.control.errors import nearest
from unisono.control.records import Happening, decode
from unisono.node.logs import LINES_AT_ONCE, LogLine, LogQuery, follow_logs, merge, read_logs, writers
from unisono.store.base import Entry

_EVENTS = "event/"
_YEAR_9999 = 253_402_300_799  # the last second of it, where the calendar of Python ends

TAIL_MAX = 100_000
"""Lines that are looked for from the end: so many are held in memory."""


@dataclass(frozen=True, kw_only=True)
class EventView:
    """One happening; ``id`` is the store's revision, from where a stream can be taken up again."""

    id: int
    at: float
    kind: str
    application: str
    service: str
    instance: str
    message: str
    data: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class LogLineView:
    """One line that an instance wrote; ``at`` is RFC 3339 in UTC."""

    at: str
    service: str
    instance: str
    stream: str
    text: str


@dataclass(frozen=True, kw_only=True)
class EventsQuery:
    """Which events."""

    after: Annotated[int, Field(ge=0, description="Only what came after the event of this id.")] = 0
    follow: Annotated[bool, Field(description="Go on with what happens from now on.")] = False
    application: Annotated[str | None, Field(description="Only events of this application.")] = None


@dataclass(frozen=True, kw_only=True)
class LogsQuery:
    """Which lines."""

    service: Annotated[
        tuple[str, ...], Field(description="Only these, repeatable; all when none is named.")
    ] = ()
    instance: Annotated[str | None, Field(pattern=r"^[\w.-]{1,100}$", description="Only this one.")] = None
    tail: Annotated[
        int | None,
        Field(ge=0, le=TAIL_MAX, description="The last lines of each service named, else of all together."),
    ] = None
    since: Annotated[
        float | None, Field(ge=0, le=_YEAR_9999, description="Only lines from then on, in epoch seconds.")
    ] = None
    follow: Annotated[bool, Field(description="Go on with what is written from now on.")] = False


async def events(here: Context, request: Request, query: EventsQuery) -> StreamingResponse:
    """
    Server-sent events, oldest first, without gap or repeat: what happened on this node.

    The header Last-Event-ID, which browsers send, goes before `after`.
    """
    after = streams.last_event(request, query.after)
    return streams.server_sent(_events(here, after, query.follow, query.application), here.stopping)


async def logs(here: Context, application: str, query: LogsQuery) -> StreamingResponse:
    """Lines of JSON, oldest first: what the instances wrote, those that are gone included."""
    services = (await look(here, application)).services
    names = [view.name for view in services]
    for name in query.service:
        if name not in names:
            raise Problem(HTTPStatus.NOT_FOUND, f"{application} has no service {name}{nearest(name, names)}")
    if query.instance is not None:
        ids = {instance.id for view in services for instance in view.instances}
        ids |= await asyncio.to_thread(writers, here.logs, application)
        if query.instance not in ids:
            raise Problem(
                HTTPStatus.NOT_FOUND,
                f"{application} has no instance {query.instance}, nor lines of one that is gone"
                f"{nearest(query.instance, ids)}",
            )
    moment = None if query.since is None else datetime.fromtimestamp(query.since, UTC)
    queries = [
        LogQuery(application=application, service=name, instance=query.instance, since=moment)
        for name in (query.service or (None,))
    ]
    source = _followed(here, queries, query.tail) if query.follow else _read(here, queries, query.tail)
    return streams.lines(source, here.stopping)


async def _events(here: Context, after: int, follow: bool, application: str | None) -> AsyncIterator[bytes]:
    stored = await here.store.scan(_EVENTS)
    # Keys go by the time at which something happened, ids by the order in which it was written down.
    kept = sorted((e for e in stored.entries if e.modified > after), key=lambda entry: entry.modified)
    for _, entries in groupby(kept, key=lambda entry: entry.modified):
        yield _told(list(entries), application)
    if not follow:
        return
    async for batch in here.store.watch(_EVENTS, after=max(stored.revision, after)):
        yield _told([change.entry for change in batch.events if change.entry is not None], application)


def _told(entries: list[Entry], application: str | None) -> bytes:
    """
    The events of one revision, those of other applications left out.

    Only the last bears the id: whoever was cut off in the middle gets all of them again.
    """
    views = [EventView(id=entry.modified, **asdict(decode(Happening, entry.value))) for entry in entries]
    wanted = [view for view in views if application in (None, view.application)]
    return b"".join(
        streams.event(encode(view), id=view.id if view is wanted[-1] else None) for view in wanted
    )


async def _followed(here: Context, queries: list[LogQuery], tail: int | None) -> AsyncIterator[bytes]:
    async for group in streams.merged([follow_logs(here.logs, query, tail) for query in queries]):
        yield b"".join(map(_line, group))


async def _read(here: Context, queries: list[LogQuery], tail: int | None) -> AsyncIterator[bytes]:
    found = merge([read_logs(here.logs, query, tail) for query in queries])
    while some := await asyncio.to_thread(lambda: list(islice(found, LINES_AT_ONCE))):
        yield b"".join(map(_line, some))


def _line(line: LogLine) -> bytes:
    view = LogLineView(
        at=line.at, service=line.service, instance=line.instance, stream=line.stream, text=line.text
    )
    return encode(view) + b"\n"


OPERATIONS = (
    Operation("GET", "/v1/events", events, media_type=streams.EVENTS),
    Operation("GET", "/v1/applications/{application}/logs", logs, media_type=streams.LINES),
)
