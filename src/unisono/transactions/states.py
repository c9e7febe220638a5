"""
Where a transaction stands, where a branch does, and by what they move: two tables. Pure.

A transaction moves by :data:`TABLE` alone, a branch by :data:`ANSWERS`; docs/reference/transactions.md draws
both (:mod:`.diagram`). When they move, and what is to be done then, is :mod:`.machine`'s to decide.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from unisono.transactions.submission import BranchSpec


class Status(StrEnum):
    """Where a transaction stands."""

    ACTIVE = "active"  # takes branches
    PREPARING = "preparing"  # takes no more; waits for all to go forward
    COMMITTING = "committing"  # decided
    COMMITTED = "committed"
    ABORTING = "aborting"  # decided
    ABORTED = "aborted"


class Cause(StrEnum):
    """What moves a transaction."""

    CLOSED = "closed"  # the initiator asks to commit
    READY = "all ready"  # every branch has gone forward
    REFUSED = "refused"  # a branch said no
    EXPIRED = "expired"  # the deadline came before the decision
    GIVEN_UP = "given up"  # the initiator asks to abort
    FINISHED = "all finished"
    UNDONE = "all undone"


TABLE: dict[tuple[Status, Cause], Status] = {
    (Status.ACTIVE, Cause.CLOSED): Status.PREPARING,
    (Status.ACTIVE, Cause.REFUSED): Status.ABORTING,
    (Status.ACTIVE, Cause.EXPIRED): Status.ABORTING,
    (Status.ACTIVE, Cause.GIVEN_UP): Status.ABORTING,
    (Status.PREPARING, Cause.READY): Status.COMMITTING,
    (Status.PREPARING, Cause.REFUSED): Status.ABORTING,
    (Status.PREPARING, Cause.EXPIRED): Status.ABORTING,
    (Status.PREPARING, Cause.GIVEN_UP): Status.ABORTING,
    (Status.COMMITTING, Cause.FINISHED): Status.COMMITTED,
    (Status.ABORTING, Cause.UNDONE): Status.ABORTED,
}
"""Every step that a transaction can take. What is not here does not happen."""

OPEN = frozenset({Status.ACTIVE, Status.PREPARING})
FINAL = frozenset({Status.COMMITTED, Status.ABORTED})
COMMIT = frozenset({Status.COMMITTING, Status.COMMITTED})
ABORT = frozenset({Status.ABORTING, Status.ABORTED})


class State(StrEnum):
    """Where a branch stands."""

    IDLE = "idle"  # never called
    FORWARD = "forward"  # called, and no definite answer yet: it may have happened
    READY = "ready"
    REFUSED = "refused"
    FINISHING = "finishing"
    FINISHED = "finished"
    UNDOING = "undoing"
    UNDONE = "undone"


class Answer(StrEnum):
    """What became of a call."""

    DONE = "done"
    NO = "no"
    BUSY = "busy"  # still at it: ask later
    GONE = "gone"  # finished long ago and forgotten
    UNKNOWN = "unknown"  # anything else: it may or may not have happened


ANSWERS: dict[tuple[State, Answer], State] = {
    (State.FORWARD, Answer.DONE): State.READY,
    (State.FORWARD, Answer.NO): State.REFUSED,
    (State.FORWARD, Answer.BUSY): State.FORWARD,
    # What is gone says nothing of a forward call: it may or may not have happened.
    (State.FORWARD, Answer.GONE): State.FORWARD,
    (State.FORWARD, Answer.UNKNOWN): State.FORWARD,
    (State.FINISHING, Answer.DONE): State.FINISHED,
    (State.FINISHING, Answer.NO): State.FINISHING,  # may not say no: heuristic, and asked on
    (State.FINISHING, Answer.BUSY): State.FINISHING,
    (State.FINISHING, Answer.GONE): State.FINISHED,
    (State.FINISHING, Answer.UNKNOWN): State.FINISHING,
    (State.UNDOING, Answer.DONE): State.UNDONE,
    (State.UNDOING, Answer.NO): State.UNDOING,  # may not say no: heuristic, and asked on
    (State.UNDOING, Answer.BUSY): State.UNDOING,
    (State.UNDOING, Answer.GONE): State.UNDONE,
    (State.UNDOING, Answer.UNKNOWN): State.UNDOING,
}
"""What an answer does to a branch that was called."""


class Kind(StrEnum):
    """How a branch may have come to another end than its transaction."""

    MIXED = "mixed"  # it said so itself
    HAZARD = "hazard"  # nobody knows: it has not answered for long


@dataclass(slots=True)
class Heuristic:
    """
    A branch's end that may differ from the transaction's; kept for good, also once it is resolved.

    ``resolved``: what operators said of it, each with ``branches``, ``outcome``, ``reason``, ``operator``.
    """

    kind: Kind
    reason: str
    resolved: list[dict[str, Any]] = field(default_factory=list)


class Branch:
    """
    One branch as it goes along.

    ``doubt``: some forward call was left without a definite answer, so that even a no later on does not
    prove that nothing happened. ``called``: a call is on its way, or waits to be made again.
    """

    __slots__ = ("attempts", "called", "doubt", "id", "problem", "reply", "slow", "spec", "state")

    def __init__(self, spec: BranchSpec, state: State = State.IDLE) -> None:
        self.spec = spec
        self.id = spec.id
        self.state = state
        self.attempts = 0  # of the present operation, those answered "still at it" left out
        self.called = False
        self.doubt = False
        self.slow = False  # finishing or undoing it is asked for once a minute
        self.reply: object = None
        self.problem: object = None
