"""
What all transactions of a coordinator run with: who calls, the clocks, the participants, and what is counted.

One of it is made per coordinator, so that a transaction holds one reference and not nine.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from unisono.transactions.calls import Reply
from unisono.transactions.participants import Participants
from unisono.transactions.records import Record
from unisono.transactions.states import Answer
from unisono.transactions.targets import Address, Directory


class Caller(Protocol):
    """What calls participants: :class:`unisono.transactions.calls.HttpCaller`."""

    def call(self, address: Address, request: bytes, timeout: float, done: Callable[[Reply], None]) -> None:
        """See there."""


@dataclass(slots=True)
class Counts:
    """What a coordinator has done since it was started."""

    begun: int = 0
    committed: int = 0
    aborted: int = 0
    heuristic: int = 0
    answers: dict[str, int] = field(default_factory=lambda: dict.fromkeys(Answer, 0))


@dataclass(slots=True, kw_only=True)
class Runtime:
    """
    What is the same for all; ``ended`` and ``doubtful`` are told of a transaction, once its record says so.

    ``stamp``: of the node's hybrid logical clock; ``now``: seconds since the epoch.
    """

    caller: Caller
    directory: Directory
    participants: Participants
    chance: random.Random
    stamp: Callable[[], int]
    now: Callable[[], float]
    ended: Callable[[Record], None]
    doubtful: Callable[[Record], None]
    counts: Counts
