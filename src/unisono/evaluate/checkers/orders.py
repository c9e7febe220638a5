"""Numbers that only rise: timestamps and fencing tokens, and what was done under tokens. In O(n log n)."""

from __future__ import annotations

import heapq
from collections.abc import Iterable
from itertools import pairwise

from unisono.evaluate.checkers.verdict import KEPT, Verdict, violated
from unisono.evaluate.history import Operation, Outcome


def rising(history: Iterable[Operation]) -> Verdict:
    """
    Judge numbers given out: ``result`` is the first, ``value`` how many in a row (``None``: one).

    None is given out twice, and whoever asks after another was answered gets higher ones.
    """
    given = sorted(_given(history), key=lambda one: one.called)
    for lower, higher in pairwise(sorted(given, key=_first)):
        if _first(higher) <= _last(lower):
            return violated(f"{_first(higher)} was given out twice", lower, higher)
    answered: list[tuple[int, int, Operation]] = []  # a heap, by the time of the answer
    highest: Operation | None = None
    for n, one in enumerate(given):
        while answered and answered[0][0] < one.called:
            before = heapq.heappop(answered)[2]
            if highest is None or _last(before) > _last(highest):
                highest = before
        if highest is not None and _first(one) <= _last(highest):
            return violated("lower than one given out before it was asked for", highest, one)
        assert one.returned is not None  # noqa: S101 - it is done
        heapq.heappush(answered, (one.returned, n, one))
    return KEPT


def fenced(history: Iterable[Operation]) -> Verdict:
    """
    Judge writes of what a lock protects: in the order of their revisions, ``token`` never falls.

    This is the mutual exclusion that a lock can promise: a holder that was stopped does not know that it
    holds no more, but nothing it does takes effect after a later holder's.
    """
    for key in sorted({one.key for one in history}):
        writes = [
            one
            for one in history
            if one.key == key and one.outcome is Outcome.DONE and one.token is not None and one.revision
        ]
        writes.sort(key=lambda one: one.revision or 0)
        for earlier, later in pairwise(writes):
            if (later.token or 0) < (earlier.token or 0):
                return violated("a holder of before wrote after a later one", earlier, later)
    return KEPT


def _given(history: Iterable[Operation]) -> Iterable[Operation]:
    return (one for one in history if one.outcome is Outcome.DONE and one.result is not None)


def _first(operation: Operation) -> int:
    return int(operation.result)


def _last(operation: Operation) -> int:
    return _first(operation) + int(operation.value or 1) - 1
