"""
How hard a participant is called: a limit on calls at a time, a breaker when it is dead, pauses between
attempts.

One participant that is dead or slow holds up nobody else: each has a line of its own, and while it
answers nothing only one call at a time tries it. Pure but for the loop's timer; what is called is the
caller's to know. Pauses are seconds.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Callable
from typing import Protocol

from unisono.transactions.targets import Address

LIMIT = 128  # calls to one participant at a time
_BREAK_AFTER = 5  # calls in a row without an answer
_PROBE_SECONDS = (0.1, 5.0)  # first and longest pause between tries of one that is dead
_KEPT = 1024  # lines, before those that are idle are let go

FIRST_PAUSE = 0.05
LONGEST_PAUSE = 10.0
SLOW_PAUSE = 60.0
_JITTER = 0.25


def pause_before(attempt: int, chance: random.Random, *, slow: bool = False) -> float:
    """Seconds before the attempt after this one; spread, so that many do not come as one."""
    pause = SLOW_PAUSE if slow else min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** min(attempt - 1, 16))
    return pause * chance.uniform(1 - _JITTER, 1 + _JITTER)


class Timer(Protocol):
    """What ``call_later`` of an event loop returns."""

    def cancel(self) -> None:
        """Have it not come."""


class Job(Protocol):
    """A call that waits for its turn."""

    def start(self) -> bool:
        """Make the call; ``False`` if it is not wanted any more and was not made."""


class Participant:
    """
    The line of calls to one participant, of which at most ``limit`` are under way at a time.

    ``later`` is ``call_later`` of the event loop; ``chance`` spreads the tries at one that is dead.
    """

    def __init__(
        self,
        later: Callable[[float, Callable[[], None]], Timer],
        chance: random.Random,
        *,
        limit: int = LIMIT,
    ) -> None:
        self._later = later
        self._chance = chance
        self._limit = limit
        self._waiting: deque[Job] = deque()
        self._in_flight = 0
        self._silent = 0  # calls in a row that got no answer
        self._resting: Timer | None = None

    @property
    def idle(self) -> bool:
        """Whether nothing is under way or waits."""
        return not self._in_flight and not self._waiting and not self._silent

    @property
    def broken(self) -> bool:
        """Whether it answers nothing."""
        return self._silent >= _BREAK_AFTER

    def ask(self, job: Job) -> None:
        """Make a call as soon as it may be made."""
        if self._waiting or not self._may():
            self._waiting.append(job)
            self._pump()
        elif job.start():
            self._in_flight += 1

    def ended(self, *, answered: bool) -> None:
        """A call that was made has ended, with an answer or without."""
        self._in_flight -= 1
        if answered:
            self._silent = 0
            if self._resting is not None:
                self._resting.cancel()
                self._resting = None
        else:
            self._silent += 1
            if self.broken and self._resting is None:
                first, longest = _PROBE_SECONDS
                pause = min(longest, first * 2.0 ** min(self._silent - _BREAK_AFTER, 16))
                self._resting = self._later(pause * self._chance.uniform(1 - _JITTER, 1), self._rested)
        self._pump()

    def _may(self) -> bool:
        if self.broken:
            return self._resting is None and self._in_flight == 0
        return self._in_flight < self._limit

    def _pump(self) -> None:
        while self._waiting and self._may():
            if self._waiting.popleft().start():
                self._in_flight += 1

    def _rested(self) -> None:
        self._resting = None
        self._pump()


class Participants:
    """The lines of all participants, each made on the running loop when it is first called."""

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance
        self._lines: dict[tuple[str, int, bool, bool], Participant] = {}

    def at(self, address: Address) -> Participant:
        """The line to whoever is called there."""
        key = address.participant
        found = self._lines.get(key)
        if found is None:
            if len(self._lines) >= _KEPT:
                self._lines = {key: line for key, line in self._lines.items() if not line.idle}
            loop = asyncio.get_running_loop()
            found = self._lines[key] = Participant(loop.call_later, self._chance)
        return found

    def silent(self) -> int:
        """How many answer nothing."""
        return sum(line.broken for line in self._lines.values())
