"""Endpoints of leases, and of what is held by them: locks, semaphores, leadership; and of barriers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Annotated, TypeVar

from pydantic import Field
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from unisono.api import streams
from unisono.api.context import Context
from unisono.api.operations import Operation, encode
from unisono.api.problems import Problem
from unisono.api.state.access import rooms_for
from unisono.api.state.fences import fence_text
from unisono.api.state.holders import holder
from unisono.api.state.rooms import Rooms, understood
from unisono.api.state.wire import NamespaceQuery, lease_of, value_of, value_text
from unisono.state import holding
from unisono.state.barriers import MAX_PARTIES
from unisono.state.elections import LeaderWatch
from unisono.state.leases import finish
from unisono.state.locks import MAX_PERMITS

MAX_WAIT_MS = 600_000
"""The longest that one request waits; whoever wants to wait longer asks again with the same lease."""

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class LeaseRequest:
    """How long it lives without being kept alive, and the process of the node's machine that it ends with."""

    ttl_ms: Annotated[int, Field(ge=100)]
    pid: Annotated[int | None, Field(ge=1)] = None


@dataclass(frozen=True, kw_only=True)
class LeaseView:
    """A lease; ``lease`` is its id."""

    lease: str
    ttl_ms: int


@dataclass(frozen=True, kw_only=True)
class AcquireRequest:
    """Under which lease, or a new one of ``ttl_ms``; how long to wait for others."""

    lease: str | None = None
    ttl_ms: Annotated[int, Field(ge=100)] = 10_000
    wait_ms: Annotated[int, Field(ge=0, le=MAX_WAIT_MS)] = 0


@dataclass(frozen=True, kw_only=True)
class PermitRequest:
    """As of a lock, and how many permits there are; all who use a semaphore name the same number."""

    permits: Annotated[int, Field(ge=1, le=MAX_PERMITS)]
    lease: str | None = None
    ttl_ms: Annotated[int, Field(ge=100)] = 10_000
    wait_ms: Annotated[int, Field(ge=0, le=MAX_WAIT_MS)] = 0


@dataclass(frozen=True, kw_only=True)
class CampaignRequest:
    """As of a lock, and what the leader says (base64)."""

    value: str = ""
    lease: str | None = None
    ttl_ms: Annotated[int, Field(ge=100)] = 10_000
    wait_ms: Annotated[int, Field(ge=0, le=MAX_WAIT_MS)] = 0


@dataclass(frozen=True, kw_only=True)
class Holding:
    """What is held: its lease, its fencing token, and the fence that a write to the state can name."""

    lease: str
    token: int
    fence: str
    ttl_ms: int


@dataclass(frozen=True, kw_only=True)
class MemberView:
    """One who stands in line; ``token`` is its fencing token, once it is in front."""

    lease: str
    token: int


@dataclass(frozen=True, kw_only=True)
class LineView:
    """Who stands in line: the first holds, the others wait in this order."""

    members: list[MemberView]


@dataclass(frozen=True, kw_only=True)
class HeldRequest:
    """What is held, as it was told when it was acquired."""

    lease: str
    token: int


@dataclass(frozen=True, kw_only=True)
class ProclaimRequest:
    """What the leader says from now on (base64)."""

    lease: str
    token: int
    value: str


@dataclass(frozen=True, kw_only=True)
class LeaderView:
    """Who leads: what it says (base64), and its token; without them nobody does."""

    value: str | None = None
    token: int | None = None


@dataclass(frozen=True, kw_only=True)
class WaitRequest:
    """How many go on together, and how long this one waits for them."""

    parties: Annotated[int, Field(ge=1, le=MAX_PARTIES)]
    ttl_ms: Annotated[int, Field(ge=100)] = 10_000
    wait_ms: Annotated[int, Field(ge=0, le=MAX_WAIT_MS)] = 60_000


@dataclass(frozen=True, kw_only=True)
class PassedView:
    """One party's passage: its place among the parties, from 0, and the revision that let them pass."""

    index: int
    revision: int


async def grant_lease(
    here: Context, request: Request, query: NamespaceQuery, body: LeaseRequest
) -> LeaseView:
    """
    A new lease. Keep it alive, or it ends after `ttl_ms`, and what is held by it is given to the next.

    With `pid` it ends at once with that process, too.
    """
    async with understood():
        rooms = await here.states.of_caller(request, query.namespace)
        named = None if body.pid is None else holder(body.pid)
        lease = await rooms.holdings.leases.grant(body.ttl_ms / 1000, holder=named)
        here.states.holders.watch([lease])
    return _lease_view(lease)


async def keep_alive(here: Context, request: Request, query: NamespaceQuery, lease: str) -> LeaseView:
    """Start a lease's time anew; 410 if it has ended."""
    async with understood():
        rooms = await here.states.of_caller(request, query.namespace)
        return _lease_view(await rooms.holdings.leases.keep_alive(lease_of(lease)))


async def end_lease(here: Context, request: Request, query: NamespaceQuery, lease: str) -> Response:
    """End a lease, and give up what is held by it; one that has ended is no error."""
    async with understood():
        rooms = await here.states.of_caller(request, query.namespace)
        await rooms.holdings.leases.revoke(lease_of(lease))
        here.states.holders.forget(lease_of(lease))
    return Response(status_code=HTTPStatus.NO_CONTENT)


async def get_lock(here: Context, request: Request, query: NamespaceQuery, name: str) -> LineView:
    """Who holds a lock, and who waits for it."""
    async with understood():
        rooms = await rooms_for(here, request, query.namespace, read=(name,))
        return LineView(
            members=[
                MemberView(lease=str(lease), token=token)
                for lease, token in await rooms.holdings.line("lock", name)
            ]
        )


async def acquire_lock(
    here: Context, request: Request, query: NamespaceQuery, name: str, body: AcquireRequest
) -> Holding:
    """
    Hold a lock: one holder at a time, in the order in which they came; 409 when `wait_ms` is over.

    Repeated with the same lease it is the same holding. A client that goes away while it waits leaves the
    line.
    """
    async with understood():
        rooms = await rooms_for(here, request, query.namespace, write=(name,))
        return await _acquire(request, rooms, "lock", name, body)


async def release_lock(
    here: Context, request: Request, query: NamespaceQuery, name: str, body: HeldRequest
) -> Response:
    """Give a lock back, to the next in line; what is held no more is no error. Its lease lives on."""
    return await _release(await rooms_for(here, request, query.namespace, write=(name,)), "lock", name, body)


async def acquire_permit(
    here: Context, request: Request, query: NamespaceQuery, name: str, body: PermitRequest
) -> Holding:
    """Hold one of `permits` permits, in the order in which they came; as of a lock."""
    async with understood():
        rooms = await rooms_for(here, request, query.namespace, write=(name,))
        value = b"%d" % body.permits
        return await _acquire(request, rooms, "semaphore", name, body, permits=body.permits, value=value)


async def release_permit(
    here: Context, request: Request, query: NamespaceQuery, name: str, body: HeldRequest
) -> Response:
    """Give a permit back; as of a lock."""
    return await _release(
        await rooms_for(here, request, query.namespace, write=(name,)), "semaphore", name, body
    )


async def campaign(
    here: Context, request: Request, query: NamespaceQuery, name: str, body: CampaignRequest
) -> Holding:
    """Lead, once all who offered themselves earlier have resigned or died; as of a lock."""
    async with understood():
        rooms = await rooms_for(here, request, query.namespace, write=(name,))
        value = value_of(body.value)
        return await _acquire(request, rooms, "election", name, body, value=value)


async def resign(
    here: Context, request: Request, query: NamespaceQuery, name: str, body: HeldRequest
) -> Response:
    """Lead no more; as of a lock."""
    return await _release(
        await rooms_for(here, request, query.namespace, write=(name,)), "election", name, body
    )


async def proclaim(
    here: Context, request: Request, query: NamespaceQuery, name: str, body: ProclaimRequest
) -> Response:
    """Say something else as the leader; 409 (`fenced`) when another leads."""
    async with understood():
        rooms = await rooms_for(here, request, query.namespace, write=(name,))
        place = rooms.holdings.place("election", name, lease_of(body.lease), body.token)
        await rooms.holdings.say("election", name, place, value_of(body.value))
    return Response(status_code=HTTPStatus.NO_CONTENT)


async def leader(here: Context, request: Request, query: NamespaceQuery, name: str) -> Response:
    """
    Who leads. With `Accept: text/event-stream` also whoever leads from now on, the latest each time.
    """
    async with understood():
        rooms = await rooms_for(here, request, query.namespace, read=(name,))
        observed = rooms.elections.observe(name)
    if streams.EVENTS in request.headers.get("accept", ""):
        return _observed(observed, here.stopping)
    return Response(await _leader(observed), media_type="application/json")


async def pass_barrier(
    here: Context, request: Request, query: NamespaceQuery, name: str, body: WaitRequest
) -> PassedView:
    """Wait until `parties` wait here, this one among them: all go on, or none; 409 when the wait is over."""
    async with understood():
        rooms = await rooms_for(here, request, query.namespace, write=(name,))
        passing = rooms.barriers.wait(
            name, parties=body.parties, ttl=body.ttl_ms / 1000, wait=body.wait_ms / 1000
        )
        passed = await while_connected(request, passing)
    return PassedView(index=passed.index, revision=passed.revision)


async def while_connected(request: Request, work: Awaitable[T]) -> T:
    """
    The result of ``work``, which is cancelled when the client goes away: nobody would hold what it acquires.

    Raises:
        Problem: The client is gone; nobody reads it.
    """
    working = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(_left(request))
    try:
        await asyncio.wait((working, leaving), return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise Problem(HTTPStatus.BAD_REQUEST, "the client went away while it waited")
        return working.result()
    finally:
        for task in (working, leaving):
            task.cancel()
        await asyncio.gather(working, leaving, return_exceptions=True)


async def _left(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        continue


async def _acquire(
    request: Request,
    rooms: Rooms,
    kind: str,
    name: str,
    body: AcquireRequest | PermitRequest | CampaignRequest,
    *,
    permits: int = 1,
    value: bytes = b"",
) -> Holding:
    leases = rooms.holdings.leases
    own = body.lease is None
    lease = await (leases.grant(body.ttl_ms / 1000) if own else leases.get(lease_of(body.lease or "")))
    try:
        wait = body.wait_ms / 1000
        acquiring = rooms.holdings.acquire(kind, name, lease.id, wait=wait, permits=permits, value=value)
        place = await while_connected(request, acquiring)
    except BaseException:
        if own:
            await finish(leases.revoke(lease.id))
        raise
    return Holding(
        lease=str(lease.id),
        token=place.token,
        fence=fence_text(kind, name, place),
        ttl_ms=round(lease.ttl * 1000),
    )


async def _release(rooms: Rooms, kind: str, name: str, body: HeldRequest) -> Response:
    async with understood():
        place = rooms.holdings.place(kind, name, lease_of(body.lease), body.token)
        await rooms.holdings.release(kind, name, place)
    return Response(status_code=HTTPStatus.NO_CONTENT)


def _observed(observed: LeaderWatch, stopping: asyncio.Event) -> StreamingResponse:
    async def told() -> AsyncIterator[bytes]:
        while True:
            yield streams.event(await _leader(observed), kind="leader")

    return streams.server_sent(told(), stopping)


async def _leader(observed: LeaderWatch) -> bytes:
    found = await anext(observed)
    if found is None:
        return encode(LeaderView())
    return encode(LeaderView(value=value_text(found.value), token=found.token))


def _lease_view(lease: holding.Lease) -> LeaseView:
    return LeaseView(lease=str(lease.id), ttl_ms=round(lease.ttl * 1000))


OPERATIONS = (
    Operation("POST", "/v1/leases", grant_lease, HTTPStatus.CREATED),
    Operation("POST", "/v1/leases/{lease}:keepalive", keep_alive),
    Operation("DELETE", "/v1/leases/{lease}", end_lease, HTTPStatus.NO_CONTENT),
    Operation("GET", "/v1/locks/{name:path}", get_lock),
    Operation("POST", "/v1/locks/{name:path}:acquire", acquire_lock),
    Operation("POST", "/v1/locks/{name:path}:release", release_lock, HTTPStatus.NO_CONTENT),
    Operation("POST", "/v1/semaphores/{name:path}:acquire", acquire_permit),
    Operation("POST", "/v1/semaphores/{name:path}:release", release_permit, HTTPStatus.NO_CONTENT),
    Operation("POST", "/v1/elections/{name:path}:campaign", campaign),
    Operation("POST", "/v1/elections/{name:path}:proclaim", proclaim, HTTPStatus.NO_CONTENT),
    Operation("POST", "/v1/elections/{name:path}:resign", resign, HTTPStatus.NO_CONTENT),
    Operation("GET", "/v1/elections/{name:path}:leader", leader),
    Operation("POST", "/v1/barriers/{name:path}:wait", pass_barrier),
)
