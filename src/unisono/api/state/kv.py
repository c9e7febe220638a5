"""Endpoints of keys and values: read, write, look back, watch. Their JSON is in :mod:`.entries`."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass
from http import HTTPStatus
from typing import Annotated

from pydantic import Field
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from unisono.api import streams
from unisono.api.context import Context
from unisono.api.operations import Operation, encode
from unisono.api.problems import Problem
from unisono.api.state.access import rooms_for
from unisono.api.state.entries import (
    HistoryView,
    ListingView,
    Transaction,
    WrittenView,
    changes_view,
    compare_of,
    entry_view,
    keys_written,
    operation_of,
)
from unisono.api.state.fences import fences_of
from unisono.api.state.rooms import understood
from unisono.api.state.wire import Namespace, NamespaceQuery
from unisono.state.kv import MAX_LISTING, Consistency, KvWatch, Read, Written
from unisono.state.names import MAX_KEY_BYTES
from unisono.store.base import Entry

TOKEN = "consistency-token"  # noqa: S105 - the name of a header
REVISION = "unisono-revision"
REQUEST_ID = "idempotency-key"

_ETAG = re.compile(r'"(\d{1,19})"')


@dataclass(frozen=True, kw_only=True)
class ReadQuery:
    """How fresh the answer must be, or as of when."""

    namespace: Namespace = None
    consistency: Annotated[
        Consistency, Field(description="linearizable, session (with a token), bounded, or eventual.")
    ] = Consistency.LINEARIZABLE
    max_staleness_ms: Annotated[int | None, Field(ge=0, description="For bounded: how old it may be.")] = None
    revision: Annotated[int | None, Field(ge=1, description="As of this revision, if it is still kept.")] = (
        None
    )


@dataclass(frozen=True, kw_only=True)
class ScanQuery:
    """Which keys."""

    namespace: Namespace = None
    prefix: Annotated[str, Field(description="Only keys that begin so.")] = ""
    after: Annotated[str, Field(description="Only keys that come after this one.")] = ""
    limit: Annotated[int, Field(ge=1, le=MAX_LISTING)] = 1000
    revision: Annotated[int | None, Field(ge=1, description="As of this revision, if it is still kept.")] = (
        None
    )


@dataclass(frozen=True, kw_only=True)
class HistoryQuery:
    """Whose history."""

    key: Annotated[str, Field(description=f"1 to {MAX_KEY_BYTES} bytes.")]
    namespace: Namespace = None
    limit: Annotated[int, Field(ge=1, le=1000)] = 100


@dataclass(frozen=True, kw_only=True)
class WriteQuery:
    """How long it lives."""

    namespace: Namespace = None
    ttl_ms: Annotated[
        int | None, Field(ge=1, description="The key goes after that, or a sixteenth later.")
    ] = None


@dataclass(frozen=True, kw_only=True)
class WatchQuery:
    """Which changes."""

    namespace: Namespace = None
    prefix: Annotated[str, Field(description="Only keys that begin so.")] = ""
    after: Annotated[
        int | None, Field(ge=0, description="What came after this revision; all there is, when left out.")
    ] = None


async def get(here: Context, request: Request, key: str, query: ReadQuery) -> Response:
    """
    A key's value, as bytes; 404 if there is none.

    ETag is the revision that last changed it. Give `Consistency-Token` back with the next request to see
    nothing older.
    """
    async with understood():
        rooms = await rooms_for(here, request, query.namespace, read=(key,))
        if query.revision is not None:
            read = await rooms.kv.at(key, query.revision, token=request.headers.get(TOKEN))
        else:
            read = await rooms.kv.get(
                key,
                consistency=query.consistency,
                token=request.headers.get(TOKEN),
                max_staleness=None if query.max_staleness_ms is None else query.max_staleness_ms / 1000,
            )
    if read.entry is None:
        raise Problem(
            HTTPStatus.NOT_FOUND, f"there is no key {key!r}", code="not-found", headers=_headers(read)
        )
    etag = _etag(read.entry)
    if request.headers.get("if-none-match") in (etag, "*"):
        return Response(status_code=HTTPStatus.NOT_MODIFIED, headers={"etag": etag, **_headers(read)})
    return _value(read.entry, _headers(read))


async def put(here: Context, request: Request, key: str, query: WriteQuery) -> Response:
    """
    Set a key to the body; durable when answered.

    `If-Match: "REVISION"` only if it was last changed then, `If-None-Match: *` only if it does not exist:
    else 412. With `Idempotency-Key` a repeat has one effect. `Unisono-Fence` names what the caller must
    still hold.
    """
    body = await request.body()
    async with understood():
        rooms = await rooms_for(here, request, query.namespace, write=(key,))
        written = await rooms.kv.put(
            key,
            body,
            expected=_expected(request),
            ttl=None if query.ttl_ms is None else query.ttl_ms / 1000,
            request_id=request.headers.get(REQUEST_ID),
            fences=fences_of(rooms, request),
        )
    return _done(key, written)


async def delete(here: Context, request: Request, key: str, query: NamespaceQuery) -> Response:
    """Remove a key; removing what is not there is no error. Headers as of putting."""
    async with understood():
        rooms = await rooms_for(here, request, query.namespace, write=(key,))
        written = await rooms.kv.delete(
            key,
            expected=_expected(request),
            request_id=request.headers.get(REQUEST_ID),
            fences=fences_of(rooms, request),
        )
    return _done(key, written, exists=False)


async def scan(here: Context, request: Request, query: ScanQuery) -> Response:
    """Keys with values that begin alike, in their order, linearizable or as of a revision."""
    async with understood():
        rooms = await rooms_for(here, request, query.namespace, read=(query.prefix,))
        found = await rooms.kv.scan(
            query.prefix,
            after=query.after,
            limit=query.limit,
            revision=query.revision,
            token=request.headers.get(TOKEN),
        )
    listing = ListingView(
        entries=[entry_view(entry) for entry in found.entries], revision=found.revision, more=found.more
    )
    return _json(encode(listing), {TOKEN: found.token, REVISION: str(found.revision)})


async def history(here: Context, request: Request, query: HistoryQuery) -> HistoryView:
    """What a key has been since it was last made, the newest first, as far as it is kept."""
    async with understood():
        rooms = await rooms_for(here, request, query.namespace, read=(query.key,))
        entries = await rooms.kv.history(query.key, limit=query.limit)
    return HistoryView(entries=[entry_view(entry) for entry in entries])


async def transact(here: Context, request: Request, query: NamespaceQuery, body: Transaction) -> Response:
    """Compare and change several keys at one revision; with `request_id` a repeat has one effect."""
    async with understood():
        rooms = await rooms_for(
            here, request, query.namespace, read=[each.key for each in body.compare], write=keys_written(body)
        )
        compares = [compare_of(each) for each in body.compare]
        changes = []
        for listed in (body.success, body.failure):
            done = []
            for change in listed:
                lease = None if change.ttl_ms is None else await rooms.kv.lease(change.ttl_ms / 1000)
                done.append(operation_of(change, lease))
            changes.append(done)
        written = await rooms.kv.transact(
            compares=compares,
            success=changes[0],
            failure=changes[1],
            request_id=body.request_id,
            fences=fences_of(rooms, request),
        )
    view = WrittenView(succeeded=written.succeeded, revision=written.revision)
    return _json(encode(view), {TOKEN: written.token, REVISION: str(written.revision)})


async def watch(here: Context, request: Request, query: WatchQuery) -> StreamingResponse:
    """
    Server-sent events: every change of keys that begin with `prefix`, without gap or repeat.

    Each event holds all changes of one revision, which is its id: `changes`, or `resync` with all there is,
    where a gap can't be helped. The header Last-Event-ID goes before `after`.
    """
    after = streams.last_event(request, query.after)
    async with understood():
        rooms = await rooms_for(here, request, query.namespace, read=(query.prefix,))
        watched = rooms.kv.watch(query.prefix, after=after)
    return streams.server_sent(_told(watched), here.stopping)


async def _told(watched: KvWatch) -> AsyncIterator[bytes]:
    async with aclosing(watched) as changes:
        async for change in changes:
            kind = "resync" if change.resync else "changes"
            yield streams.event(encode(changes_view(change)), kind=kind, id=change.revision)


def _expected(request: Request) -> int | None:
    match, none_match = request.headers.get("if-match"), request.headers.get("if-none-match")
    if match is not None and none_match is not None:
        raise ValueError("If-Match and If-None-Match: one of the two is right")
    if none_match is not None:
        if none_match.strip() != "*":
            raise ValueError(
                f"If-None-Match: found {none_match!r}; * is right, for a key that must not exist"
            )
        return 0
    if match is None:
        return None
    found = _ETAG.fullmatch(match.strip())
    if found is None:
        raise ValueError(f'If-Match: found {match!r}; the ETag of a read is right, such as "17"')
    return int(found[1])


def _etag(entry: Entry) -> str:
    return f'"{entry.modified}"'


def _headers(read: Read) -> dict[str, str]:
    return {TOKEN: read.token, REVISION: str(read.revision)}


def _value(entry: Entry, headers: dict[str, str]) -> Response:
    return Response(
        entry.value,
        headers={"etag": _etag(entry), "unisono-created": str(entry.created), **headers},
        media_type="application/octet-stream",
    )


def _done(key: str, written: Written, *, exists: bool = True) -> Response:
    headers = {TOKEN: written.token, REVISION: str(written.revision)}
    if not written.succeeded:
        raise Problem(
            HTTPStatus.PRECONDITION_FAILED,
            f"{key!r} is not as it was expected to be: read it again",
            code="precondition-failed",
            headers=headers,
        )
    if exists:
        headers["etag"] = f'"{written.revision}"'
    return _json(encode(WrittenView(succeeded=True, revision=written.revision)), headers)


def _json(body: bytes, headers: dict[str, str]) -> Response:
    return Response(body, headers=headers, media_type="application/json")


OPERATIONS = (
    Operation("GET", "/v1/kv/{key:path}", get, media_type="application/octet-stream"),
    Operation("PUT", "/v1/kv/{key:path}", put),
    Operation("DELETE", "/v1/kv/{key:path}", delete),
    Operation("GET", "/v1/kv", scan),
    Operation("POST", "/v1/kv:txn", transact),
    Operation("GET", "/v1/kv:history", history),
    Operation("GET", "/v1/watch", watch, media_type=streams.EVENTS),
)
