"""
Is a history of reads and writes of one key linearizable? A search after Wing and Gong.

An operation took effect at one moment between its call and its return. The history is linearizable if the
operations can be put in an order that respects this and in which each read finds the last write before it.
Source: Wing and Gong, *Testing and Verifying Concurrent Objects*, 1993; with Lowe's memory of states seen.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Operation:
    """One call; times are from one counter that rises with every call and return."""

    kind: str  # "read" or "write"
    value: int
    called: int
    returned: int


def linearizable(history: Sequence[Operation], initial: int = 0) -> bool:
    """Whether some order explains the history of a register that begins with ``initial``."""
    seen: set[tuple[int, int]] = set()  # (operations done, as bits; value)
    stack = [(0, initial)]
    everything = (1 << len(history)) - 1
    while stack:
        state = stack.pop()
        if state in seen:
            continue
        seen.add(state)
        done, value = state
        if done == everything:
            return True
        open_ = [n for n in range(len(history)) if not done >> n & 1]
        first_return = min(history[n].returned for n in open_)
        for n in open_:
            operation = history[n]
            if operation.called > first_return:
                continue  # another had returned before this was called: that one comes first
            if operation.kind == "write":
                stack.append((done | 1 << n, operation.value))
            elif operation.value == value:
                stack.append((done | 1 << n, value))
    return False
