"""
How a transaction is shown: as the HTTP API tells it, whether it is under way or only written down.

docs/reference/transactions-api.md explains the fields. Pure. Times are seconds since the epoch, ``ms`` are
milliseconds. Members of enums are told as their text, which is encoded ten times as fast.
"""

from __future__ import annotations

from typing import Any

from unisono.transactions.records import Record
from unisono.transactions.states import COMMIT, OPEN, Branch, Status

_LINE = ("at", "branch", "op", "status", "answer", "ms", "note")


def view_of(
    record: Record, status: Status, epoch: int | None, branches: list[dict[str, Any]]
) -> dict[str, Any]:
    """
    A transaction; ``status`` is its machine's: the record's own runs ahead while it is being written.

    ``epoch``: what its calls bear; ``None`` for one that is not under way here.
    """
    told = record.heuristic
    return {
        "gid": record.gid,
        "namespace": record.namespace,
        "mode": str(record.mode),
        "status": str(status),
        "decision": None if status in OPEN else "commit" if status in COMMIT else "abort",
        "heuristic": None
        if told is None
        else {"kind": told.kind, "reason": told.reason, "resolved": told.resolved},
        "reason": record.reason,
        "node": record.owner,
        "epoch": epoch,
        "began_at": record.began,
        "deadline": record.deadline,
        "decided_at": record.decided,
        "ended_at": record.ended,
        "branches": branches,
        "timeline": [dict(zip(_LINE, line, strict=True)) for line in record.timeline],
    }


def stored_view(record: Record) -> dict[str, Any]:
    """A transaction that only the log knows: of its branches what a record keeps."""
    states = record.states or [""] * len(record.specs)
    branches = [
        {
            "id": spec.id,
            "url": spec.url,
            "after": spec.after,
            "state": state or None,
            "attempts": None,
            "reply": None,
            "problem": None,
        }
        for spec, state in zip(record.specs, states, strict=True)
    ]
    return view_of(record, record.status, None, branches)


def branch_view(branch: Branch) -> dict[str, Any]:
    """A branch of a transaction that is under way."""
    return {
        "id": branch.id,
        "url": branch.spec.url,
        "after": branch.spec.after,
        "state": str(branch.state),
        "attempts": branch.attempts,
        "reply": branch.reply,
        "problem": branch.problem,
    }
