"""
What can go wrong between a caller and a node, sorted by what the caller does next::

    NodeError
    ├── NotRunning   nothing happened, no node answers: start one, or name the right state folder
    ├── Refused      nothing happened, and will not: change the request (``status``, ``problem``)
    ├── Aborted      the transaction did not happen, on any branch: begin another one if you like (``gid``)
    │   └── BranchRefused   because this branch said no (``branch``, ``problem``)
    └── MaybeDone    the connection broke after the request was sent: look before trying again
        └── InDoubt  the transaction may have happened: ask for its ``gid``, do not begin it anew
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class NodeError(Exception):
    """Root of all errors of this client."""


class NotRunning(NodeError):
    """No node answers there; nothing was done."""


class MaybeDone(NodeError):
    """The connection broke after the request was sent: it may have been done."""


class Refused(NodeError):
    """
    The node said no, and nothing was changed.

    ``status`` is the HTTP status, ``problem`` the whole problem document (RFC 9457).
    """

    def __init__(self, status: int, problem: Mapping[str, Any]) -> None:
        self.status = status
        self.problem = dict(problem)
        super().__init__(str(problem.get("detail") or problem.get("title") or f"HTTP status {status}"))


class Aborted(NodeError):
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
