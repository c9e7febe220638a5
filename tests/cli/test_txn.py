"""What `unisono txn show` says of a transaction."""

from __future__ import annotations

from typing import Any

from unisono.cli.txn import lines

FOUND: dict[str, Any] = {
    "gid": "order-17",
    "mode": "tcc",
    "status": "committing",
    "node": "n1",
    "began_at": 100.0,
    "deadline": 130.0,
    "ended_at": None,
    "reason": "",
    "heuristic": {
        "kind": "mixed",
        "reason": "branch pay refused to confirm",
        "resolved": [
            {"branches": ["pay"], "outcome": "finished", "operator": "ada", "reason": "booked by hand"}
        ],
    },
    "branches": [{"id": "pay", "url": "http://payments/pay", "after": ["stock"], "state": "finishing"}],
    "timeline": [
        {
            "at": 100.5,
            "branch": "pay",
            "op": "confirm",
            "status": 409,
            "answer": "no",
            "ms": 3.2,
            "note": "late",
        }
    ],
}


def test_who_was_called_when_and_what_it_answered() -> None:
    call = lines(FOUND)[-1].split()

    assert ["+500.0", "ms", "pay", "confirm", "409", "no", "3.2", "ms", "late"] == call


def test_doubt_is_told_also_once_it_is_resolved() -> None:
    told = "\n".join(lines(FOUND))

    assert "in doubt (mixed): branch pay refused to confirm" in told
    assert "pay finished by ada: booked by hand" in told
