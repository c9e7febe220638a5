"""Endpoints of time: timestamps of the oracle, and the node's hybrid logical clock."""

from __future__ import annotations

from dataclasses import dataclass
from http import HTTPStatus
from typing import Annotated

from pydantic import Field
from starlette.requests import Request

from unisono.api.context import Context
from unisono.api.operations import Operation
from unisono.api.problems import Problem
from unisono.api.state.access import rooms_for
from unisono.api.state.rooms import understood
from unisono.api.state.wire import NamespaceQuery
from unisono.state.oracle import MAX_COUNT
from unisono.timestamps.hybrid import DriftError

CLOCK = "unisono-clock"
"""The header that carries a stamp: 16 hexadecimal digits, 48 bits of milliseconds and a counter of 16."""

_DIGITS = 16


@dataclass(frozen=True, kw_only=True)
class TimestampRequest:
    """How many."""

    count: Annotated[int, Field(ge=1, le=MAX_COUNT)] = 1


@dataclass(frozen=True, kw_only=True)
class TimestampsView:
    """``count`` timestamps in a row from ``first`` on; texts, as numbers above 2**53 lose bits in JSON."""

    first: str
    count: int


@dataclass(frozen=True, kw_only=True)
class ClockView:
    """The clock's next stamp, and how far ahead of this machine's clock a stamp is accepted."""

    hlc: str
    max_drift_ms: int
    refused: int


async def timestamps(
    here: Context, request: Request, query: NamespaceQuery, body: TimestampRequest
) -> TimestampsView:
    """Timestamps above all that were ever given out in this namespace, across restarts and nodes."""
    async with understood():
        rooms = await rooms_for(here, request, query.namespace)
        first = await rooms.oracle.take(body.count)
    return TimestampsView(first=str(first), count=body.count)


async def clock(here: Context, request: Request) -> ClockView:
    """
    The node's hybrid logical clock; above the stamp in the header `unisono-clock`, which it merges first.
    """
    given = request.headers.get(CLOCK)
    if given is None:
        stamp = here.clock.now()
    else:
        try:
            stamp = here.clock.observe(_stamp(given))
        except DriftError as error:
            raise Problem(HTTPStatus.UNPROCESSABLE_ENTITY, f"{CLOCK}: {error}", code="clock-ahead") from error
        except ValueError as error:
            raise Problem(HTTPStatus.UNPROCESSABLE_ENTITY, f"{CLOCK}: {error}", code="invalid") from error
    return ClockView(
        hlc=f"{stamp:0{_DIGITS}x}", max_drift_ms=here.clock.max_drift_ms, refused=here.clock.refused
    )


def _stamp(text: str) -> int:
    if len(text) != _DIGITS or not set(text) <= set("0123456789abcdef"):
        raise ValueError(f"found {text[:40]!r}; {_DIGITS} hexadecimal digits in lower case are right")
    return int(text, 16)


OPERATIONS = (
    Operation("POST", "/v1/tso", timestamps),
    Operation("GET", "/v1/clock", clock),
)
