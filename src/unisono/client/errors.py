"""
What can go wrong between a caller and a node, sorted by what the caller does next::

    NodeError
    ├── NotDone          nothing happened: it may be tried again
    │   ├── NotMirrored  memory can't answer: ask the node
    │   ├── NotRunning   no node answers: start one, or name the right state folder
    │   ├── Refused      and will not: change the request (``status``, ``problem``, ``code``)
    │   │   ├── Changed       what it was to change is not as it was expected to be: read it again
    │   │   ├── NotAcquired   another has it, and the wait is over: try later
    │   │   ├── Insufficient  a quota has less left (``available``): ask for less, or later
    │   │   └── Fenced        it rested on a token that no longer counts: acquire anew, then decide anew
    │   └── Aborted      the transaction did not happen, on any branch: begin another if you like (``gid``)
    │       └── BranchRefused  because this branch said no (``branch``, ``problem``)
    ├── MaybeDone        it may have happened: look before trying again
    │   └── InDoubt      the transaction may have happened: ask for its ``gid``, do not begin it anew
    └── Lost             what was held is held no more, or may not be a moment from now: stop
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class NodeError(Exception):
    """Root of all errors of this client."""


class NotDone(NodeError):
    """Nothing was done; it may be tried again."""


class NotRunning(NotDone):
    """No node answers there; nothing was done."""


class NotMirrored(NotDone):
    """This machine's memory can't answer, or not as freshly as was asked for; the node can."""


class MaybeDone(NodeError):
    """The connection broke after the request was sent: it may have been done."""


class Lost(NodeError):
    """
    What was held is held no more, or may not be a moment from now.

    What was written with its token before then counts; what is written with it from now on is refused.
    """


class Refused(NotDone):
    """
    The node said no, and nothing was changed.

    ``status`` is the HTTP status, ``problem`` the whole problem document (RFC 9457).
    """

    def __init__(self, status: int, problem: Mapping[str, Any]) -> None:
        self.status = status
        self.problem = dict(problem)
        super().__init__(str(problem.get("detail") or problem.get("title") or f"HTTP status {status}"))

    @property
    def code(self) -> str:
        """The cause, for programs; it does not change."""
        return str(self.problem.get("code", ""))


class Changed(Refused):
    """What was to be written is not as it was expected to be; read it again."""


class NotAcquired(Refused):
    """Another has it, or too few came in time; nothing is held."""


class Insufficient(Refused):
    """A quota has less left than was asked for; nothing was granted."""

    @property
    def available(self) -> int:
        """What was left when it was looked at."""
        return int(self.problem.get("available", 0))


class Fenced(Refused):
    """It rested on a fencing token that no longer counts, and was refused."""


class Aborted(NotDone):
    """The transaction ``gid`` did not happen: whatever its branches did is undone, now or soon."""

    def __init__(self, gid: str, reason: str) -> None:
        self.gid = gid
        self.reason = reason
        super().__init__(f"transaction {gid} aborted: {reason}")


class BranchRefused(Aborted):
    """The transaction aborts because ``branch`` said no; ``problem`` is what it said."""

    def __init__(self, gid: str, branch: str, problem: Mapping[str, Any]) -> None:
        self.branch = branch
        self.problem = dict(problem)
        said = problem.get("detail") or problem.get("code") or problem.get("title") or "no"
        super().__init__(gid, f"{branch} refused: {said}")


class InDoubt(MaybeDone):
    """Whether the transaction ``gid`` committed could not be learned: look it up, do not begin it anew."""

    def __init__(self, gid: str, reason: str) -> None:
        self.gid = gid
        super().__init__(f"transaction {gid} is in doubt, it may have committed: {reason}")
