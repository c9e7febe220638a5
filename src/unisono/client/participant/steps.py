"""
The steps in which a fence speaks to its database, and what can go wrong with one. Pure.

A fence is a generator that yields steps and is sent their outcome; :mod:`unisono.client.participant.running`
carries them out, with or without asyncio. So the decisions are written once for all drivers and are tested
without a database.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

from unisono.client.participant.protocol import Answer, Call


@dataclass(frozen=True, kw_only=True)
class Begin:
    """Begin a transaction, READ COMMITTED: how long it may wait for a lock, and for a statement."""

    lock_ms: int
    statement_ms: int


@dataclass(frozen=True)
class Run:
    """One statement with ``?`` for its parameters; outside a transaction it stands for itself."""

    sql: str
    parameters: tuple[Any, ...] = ()
    rows: bool = False  # whether it answers rows


@dataclass(frozen=True)
class Work:
    """The participant's own code, given this call."""

    call: Call


@dataclass(frozen=True)
class Commit:
    """End the transaction, keeping what it did."""


@dataclass(frozen=True)
class Rollback:
    """End the transaction, keeping nothing."""


Step = Begin | Run | Work | Commit | Rollback


@dataclass(frozen=True, kw_only=True)
class Result:
    """What a statement answered; ``tag`` is the server's word for what was done, if the driver tells."""

    rows: Sequence[Sequence[Any]] = ()
    count: int = 0
    tag: str | None = None


@dataclass(frozen=True)
class Returned:
    """What the participant's code returned."""

    value: Any


Fence = Generator[Step, Any, Answer]


class Why(Enum):
    """Why a statement failed, sorted by what to do about it."""

    BUSY = "another call holds what this one needs: ask again later"
    AGAIN = "rolled back because of another transaction: begin again at once"
    LOST = "the connection or the server went away: whether it was done is unknown"
    NO_FENCE = "the fence's table is missing"
    CODE = "the participant's own code raised an error"
    OTHER = "the statement is wrong, or the data forbid it"


class Fault(Exception):
    """A statement failed; ``state`` is its SQLSTATE, or the engine's own code where there is none."""

    def __init__(self, why: Why, state: str, message: str) -> None:
        super().__init__(message)
        self.why = why
        self.state = state
