"""
The machine, drawn from its tables: the diagrams in docs/reference/transactions.md, as Mermaid has them.

``python -m unisono.transactions.diagram`` prints them; a test compares the page with them.
"""

from __future__ import annotations

from unisono.transactions.states import ANSWERS, FINAL, TABLE, Answer, State, Status

_STARTS = {
    Status.ACTIVE: "begun without branches, or a message",
    Status.PREPARING: "begun with all branches",
}
_CALLS = (
    (State.IDLE, State.FORWARD, "forward call leaves"),
    (State.READY, State.FINISHING, "decided to commit"),
    (State.READY, State.UNDOING, "decided to abort"),
    (State.FORWARD, State.UNDOING, "decided to abort"),
    (State.REFUSED, State.UNDOING, "another call of it may have happened"),
)


def transaction() -> str:
    """How a transaction moves: every row of its table."""
    lines = ["stateDiagram-v2"]
    lines += [f"    [*] --> {status}: {why}" for status, why in _STARTS.items()]
    lines += [f"    {source} --> {target}: {cause}" for (source, cause), target in TABLE.items()]
    lines += [f"    {status} --> [*]" for status in Status if status in FINAL]
    return "\n".join(lines)


def branch() -> str:
    """How a branch moves: calls that leave, and every row of what answers do."""
    lines = ["stateDiagram-v2", "    [*] --> idle"]
    lines += [f"    {source} --> {target}: {why}" for source, target, why in _CALLS]
    steps: dict[tuple[State, State], list[Answer]] = {}
    for (state, answer), made in ANSWERS.items():
        steps.setdefault((state, made), []).append(answer)
    lines += [f"    {source} --> {target}: {', '.join(by)}" for (source, target), by in steps.items()]
    return "\n".join(lines)


if __name__ == "__main__":
    print(f"{transaction()}\n\n{branch()}")
