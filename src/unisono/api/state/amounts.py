"""Endpoints of quotas: amounts that instances share."""

from __future__ import annotations

from dataclasses import dataclass
from http import HTTPStatus
from typing import Annotated

from pydantic import Field
from starlette.requests import Request
from starlette.responses import Response

from unisono.api.context import Context
from unisono.api.operations import Operation
from unisono.api.problems import Problem
from unisono.api.state.access import rooms_for
from unisono.api.state.rooms import understood
from unisono.api.state.wire import NamespaceQuery, lease_of
from unisono.state.quotas import MAX_SIZE, Quota


@dataclass(frozen=True, kw_only=True)
class SizeRequest:
    """How much there is."""

    size: Annotated[int, Field(ge=0, le=MAX_SIZE)]


@dataclass(frozen=True, kw_only=True)
class AmountRequest:
    """How much to take, under which lease; a repeat with the same ``request_id`` is the same grant."""

    amount: Annotated[int, Field(ge=1, le=MAX_SIZE)]
    lease: str
    request_id: str


@dataclass(frozen=True, kw_only=True)
class ReleaseRequest:
    """Which grant to give back."""

    request_id: str


@dataclass(frozen=True, kw_only=True)
class QuotaView:
    """How much there is, how much of it is granted, and to which requests."""

    name: str
    size: int
    granted: int
    available: int
    grants: dict[str, int]
    revision: int


@dataclass(frozen=True, kw_only=True)
class GrantView:
    """So much of a quota, until it is released or its lease ends."""

    request_id: str
    amount: int
    token: int


async def get_quota(here: Context, request: Request, query: NamespaceQuery, name: str) -> QuotaView:
    """A quota as it is."""
    async with understood():
        rooms = await rooms_for(here, request, query.namespace, read=(name,))
        quota = await rooms.quotas.get(name)
    if quota is None:
        raise Problem(
            HTTPStatus.NOT_FOUND, f"there is no quota {name!r}; give it a size first", code="not-found"
        )
    return _view(quota)


async def resize_quota(
    here: Context, request: Request, query: NamespaceQuery, name: str, body: SizeRequest
) -> QuotaView:
    """Make a quota, or change its size; 409 (`insufficient`) if more than that is granted."""
    async with understood():
        rooms = await rooms_for(here, request, query.namespace, write=(name,))
        return _view(await rooms.quotas.resize(name, body.size))


async def acquire_amount(
    here: Context, request: Request, query: NamespaceQuery, name: str, body: AmountRequest
) -> GrantView:
    """Take an amount, or nothing: 409 (`insufficient`) says what is left. Never waits."""
    async with understood():
        rooms = await rooms_for(here, request, query.namespace, write=(name,))
        lease = await rooms.holdings.leases.get(lease_of(body.lease))
        grant = await rooms.quotas.acquire(name, body.amount, lease=lease.id, request_id=body.request_id)
    return GrantView(request_id=grant.request_id, amount=grant.amount, token=grant.token)


async def release_amount(
    here: Context, request: Request, query: NamespaceQuery, name: str, body: ReleaseRequest
) -> Response:
    """Give a grant back; giving back what has ended is no error."""
    async with understood():
        rooms = await rooms_for(here, request, query.namespace, write=(name,))
        grant = await rooms.quotas.find(name, body.request_id)
        if grant is not None:
            await rooms.quotas.release(grant)
    return Response(status_code=HTTPStatus.NO_CONTENT)


def _view(quota: Quota) -> QuotaView:
    return QuotaView(
        name=quota.name,
        size=quota.size,
        granted=quota.granted,
        available=quota.available,
        grants=quota.grants,
        revision=quota.revision,
    )


OPERATIONS = (
    Operation("GET", "/v1/quotas/{name:path}", get_quota),
    Operation("PUT", "/v1/quotas/{name:path}", resize_quota),
    Operation("POST", "/v1/quotas/{name:path}:acquire", acquire_amount),
    Operation("POST", "/v1/quotas/{name:path}:release", release_amount, HTTPStatus.NO_CONTENT),
)
