"""
What can go wrong between a caller and a node, sorted by what the caller does next::

    NodeError
    ├── NotRunning   nothing happened, no node answers: start one, or name the right state folder
    ├── Refused      nothing happened, and will not: change the request (``status``, ``problem``)
    └── MaybeDone    the connection broke after the request was sent: look before trying again
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
