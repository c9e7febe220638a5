"""
What the life of an instance is told, and what it asks for: events and instructions, plain data.

The machine that turns one into the other is :mod:`unisono.node.lifecycle`; who brings the events and
carries out the instructions is :mod:`unisono.node.actor`. Times are seconds.
"""

from __future__ import annotations

from dataclasses import dataclass

from unisono.control.records import Goal
from unisono.node.drivers.base import Running

# Events: what happened to the instance.


@dataclass(frozen=True, kw_only=True)
class GoalChanged:
    """The instance should do something else."""

    goal: Goal


@dataclass(frozen=True, kw_only=True)
class Spawned:
    """The start that was ordered has succeeded."""

    running: Running


@dataclass(frozen=True, kw_only=True)
class SpawnFailed:
    """The start that was ordered came to nothing."""

    reason: str
    alone: bool = False  # see Exited


@dataclass(frozen=True, kw_only=True)
class Listening:
    """Its port accepts connections."""

    generation: int


@dataclass(frozen=True, kw_only=True)
class ListensElsewhere:
    """It has been up for a while and listens, but on other ports than its own."""

    generation: int
    ports: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class ProbeOk:
    """A probe that was ordered found it well."""

    generation: int


@dataclass(frozen=True, kw_only=True)
class ProbeFailed:
    """A probe that was ordered found it ill."""

    generation: int
    reason: str


@dataclass(frozen=True, kw_only=True)
class Suspected:
    """
    The gateway could not reach it; with ``ejected``, it failed there so often that it gets no requests.
    """

    generation: int
    reason: str
    ejected: bool = False


@dataclass(frozen=True, kw_only=True)
class Returned:
    """The gateway sends it requests again."""

    generation: int


@dataclass(frozen=True, kw_only=True)
class Drained:
    """The routing table is without it, and it has ``in_flight`` requests left."""

    token: int
    in_flight: int


@dataclass(frozen=True, kw_only=True)
class Exited:
    """Its process has ended; ``alone`` says that no other instance of the service is up or coming."""

    generation: int
    code: int | None
    detail: str = ""
    alone: bool = False


@dataclass(frozen=True, kw_only=True)
class LastWords:
    """The last line that the process of ``generation`` wrote; it comes a moment after the end."""

    generation: int
    line: str


@dataclass(frozen=True, kw_only=True)
class LeftAlone:
    """No other instance of the service is up or coming any more."""


@dataclass(frozen=True, kw_only=True)
class Timer:
    """The timer that was set has run out."""

    token: int


Event = (
    GoalChanged
    | Spawned
    | SpawnFailed
    | Listening
    | ListensElsewhere
    | ProbeOk
    | ProbeFailed
    | Suspected
    | Returned
    | Drained
    | Exited
    | LastWords
    | LeftAlone
    | Timer
)


# Instructions: what is to be done. Reporting is not among them: the status is a function of the state.


@dataclass(frozen=True, kw_only=True)
class Spawn:
    """Start a process; answer with Spawned or SpawnFailed."""

    generation: int


@dataclass(frozen=True, kw_only=True)
class AwaitListening:
    """Say Listening once the port accepts connections."""

    generation: int


@dataclass(frozen=True, kw_only=True)
class Probe:
    """Probe once, ``after`` seconds from now; answer with ProbeOk or ProbeFailed."""

    generation: int
    after: float


@dataclass(frozen=True, kw_only=True)
class StopProbing:
    """Neither wait for the port nor probe any more."""


@dataclass(frozen=True, kw_only=True)
class Publish:
    """Put it into the routing table."""

    running: Running


@dataclass(frozen=True, kw_only=True)
class Withdraw:
    """Take it out of the routing table; no answer is awaited."""


@dataclass(frozen=True, kw_only=True)
class Drain:
    """Take it out of the table, await the gateway's word, then its requests; answer with Drained."""

    token: int
    generation: int
    timeout: float  # seconds for its requests


@dataclass(frozen=True, kw_only=True)
class Signal:
    """Ask the process to stop."""

    name: str


@dataclass(frozen=True, kw_only=True)
class Kill:
    """End the process and all that it started."""


@dataclass(frozen=True, kw_only=True)
class SetTimer:
    """Say Timer ``after`` seconds from now; a timer that runs is forgotten."""

    token: int
    after: float


@dataclass(frozen=True, kw_only=True)
class Tell:
    """Let the user know: one line of `unisono events`."""

    kind: str
    message: str
    last_words: bool = False  # complete it with the last line of the run that ended; answer with LastWords


Instruction = (
    Spawn
    | AwaitListening
    | Probe
    | StopProbing
    | Publish
    | Withdraw
    | Drain
    | Signal
    | Kill
    | SetTimer
    | Tell
)
