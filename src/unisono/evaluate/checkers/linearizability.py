"""
Is there one order of all operations, each between its call and its return, that explains every answer?

The operations on each key are judged by themselves, since a history is linearizable if that of each object
is. A key is a register: ``get`` answers ``result`` (``None``: no such key), ``put`` sets ``value``,
``delete`` sets ``None``, ``append`` puts ``value`` after the text or list that is there, and ``cas`` sets
``value`` if it is ``expected``, and says in ``result`` whether it was. What is written together and read
together under one ``key`` (a transaction over several keys, a scan of them) is one register as well, so a
torn read is a value that nobody wrote.

The search goes through configurations: which operations have taken effect, and the value. Three things keep
it small. A configuration is looked at once (Lowe). An answer that is right *now* and changes nothing can be
given its place at once: had it a later place in some order, it could move here, as nothing between needs it.
What is unknown may have its place at any time after its call, or none, and gets one only where the next
answer may need it.

Deciding is NP-complete, so the work has a limit; beyond it the verdict is "not decided".

Sources: Herlihy and Wing, *Linearizability* (1990), for locality; Wing and Gong, *Testing and Verifying
Concurrent Objects* (1993); Lowe, *Testing for Linearizability* (2017); Gibbons and Korach (1997).
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from unisono.evaluate.checkers.verdict import KEPT, Answer, Verdict
from unisono.evaluate.history import Operation, Outcome

WORK_MAX = 1_000_000
"""Operations looked at for a place, in the search for one key: some seconds, and some 250 MB at most."""

_SHRINK_WORK = 2_000_000  # for the whole of making one counter-example smaller

_IMPOSSIBLE = object()
_WRITES = ("put", "delete", "append", "cas")


def linearizable(history: Iterable[Operation], *, initial: Any = None, work_max: int = WORK_MAX) -> Verdict:
    """
    Judge registers that begin with ``initial``.

    Returns:
        Violated with a small part of the history that no order explains; not decided if some key takes more
        than ``work_max`` and no other is violated.

    Raises:
        ValueError: An action is none of a register's, or a cas that was done has no result.
    """
    keys: dict[str, list[Operation]] = defaultdict(list)
    for operation in history:
        if operation.action not in ("get", *_WRITES):
            raise ValueError(f"{operation}: a register knows get, {', '.join(_WRITES)}")
        if operation.action == "cas" and operation.outcome is Outcome.DONE and operation.result is None:
            raise ValueError(f"{operation}: the result of a cas says whether it was as expected")
        keys[operation.key].append(operation)
    undecided: list[str] = []
    for key, operations in sorted(keys.items()):
        search = _Search(operations, initial, work_max)
        if search.answer is Answer.VIOLATED:
            small = _shrunk(operations, initial, work_max)
            last = _Search(small, initial, work_max)
            return Verdict(Answer.VIOLATED, f"key {key!r}: {last.stuck()}", tuple(small))
        if search.answer is Answer.UNDECIDED:
            undecided.append(key)
    if undecided:
        return Verdict(
            Answer.UNDECIDED, f"more than {work_max} steps for {', '.join(map(repr, undecided[:5]))}"
        )
    return KEPT


@dataclass(frozen=True, slots=True)
class _Step:
    """An operation with its values in a form that can be a key of a set."""

    operation: Operation
    called: int
    returned: int
    action: str
    value: str
    expected: str
    result: Any


class _Search:
    """The search for one key; the answer is there once it is made."""

    def __init__(self, operations: Sequence[Operation], initial: Any, work_max: int) -> None:
        relevant = _relevant(operations)
        self._done = [_step(one) for one in relevant if one.outcome is Outcome.DONE]
        self._open = [_step(one) for one in relevant if one.outcome is Outcome.UNKNOWN]
        self._seen = _seen_values(relevant)
        self._work = work_max
        self._deepest: tuple[int, str, int, int] = (-1, "", 0, 0)  # operations placed, value, first, placed
        self.answer = self._run(_text(initial))
        self.work = work_max - self._work

    def stuck(self) -> str:
        """In words, where the longest order that explains a part came to its end."""
        placed, value, first, mask = self._deepest
        left = [step for n, step in enumerate(self._done) if n >= first and not mask >> (n - first) & 1]
        next_ = min(left, key=lambda step: step.returned)
        return f"after {placed} operations the value is {value}, and nothing leads to {next_.operation}"

    def _run(self, initial: str) -> Answer:
        # A configuration: all of _done before `first` and those of `mask` after it, and of _open those of
        # `opened`, have taken effect. So the sets stay small however long the history is.
        begin = (0, 0, 0, initial)
        seen = {begin}
        stack = [begin]
        while stack:
            configuration = stack.pop()
            first, mask, opened, value = configuration
            if first == len(self._done):
                return Answer.KEPT
            placed = first + mask.bit_count()
            if placed > self._deepest[0]:
                self._deepest = (placed, value, first, mask)
            for following in self._following(first, mask, opened, value):
                if following not in seen:
                    seen.add(following)
                    stack.append(following)
            if self._work <= 0:
                return Answer.UNDECIDED
        return Answer.VIOLATED

    def _following(self, first: int, mask: int, opened: int, value: str) -> list[tuple[int, int, int, str]]:
        candidates: list[int] = []
        earliest: int | None = (
            None  # return of those that have no place yet: whoever is called later comes later
        )
        n = first
        while n < len(self._done) and (earliest is None or self._done[n].called <= earliest):
            if not mask >> (n - first) & 1:
                candidates.append(n)
                returned = self._done[n].returned
                earliest = returned if earliest is None else min(earliest, returned)
            n += 1
        self._work -= n - first + len(self._open)
        assert earliest is not None  # noqa: S101 - some are left, and the first of them is a candidate
        next_ = [n for n in candidates if self._done[n].called <= earliest]
        found = [
            (first, mask, opened | 1 << n, after) for n, after in self._wanted(next_, opened, value, earliest)
        ]
        # What returned first is tried first, that is, put on the stack last.
        for n in sorted(next_, key=lambda n: self._done[n].returned, reverse=True):
            step = self._done[n]
            after = _apply(step, value)
            if after is _IMPOSSIBLE:
                continue
            following = (*_placed(first, mask, n), opened, str(after))
            if step.action == "get" or (step.action == "cas" and not step.result):
                return [following]
            found.append(following)
        return found

    def _wanted(self, next_: list[int], opened: int, value: str, earliest: int) -> list[tuple[int, str]]:
        """
        What is of unknown outcome and leads to a value that the next operation may have met, with that value.

        Others would be overwritten unseen, and can as well be left out. Where any change will do, for a
        refused cas, those that nobody saw are alike, and one of them is enough.
        """
        steps = [self._done[n] for n in next_]
        values = {step.result for step in steps if step.action == "get"}
        values |= {step.expected for step in steps if step.action == "cas" and step.result}
        values |= {step.expected for step in self._open if step.action == "cas"}
        builds = any(step.action == "append" for step in (*steps, *self._open))
        change = any(step.action == "cas" and not step.result and step.expected == value for step in steps)
        found: list[tuple[int, str]] = []
        for n, step in enumerate(self._open):
            if opened >> n & 1 or step.called > earliest:
                continue
            after = _apply(step, value)
            if after is _IMPOSSIBLE or after == value:
                continue
            if builds or after in values:
                found.append((n, str(after)))
            elif change:
                found.append((n, str(after)))
                change = after in self._seen
        return found


def _placed(first: int, mask: int, n: int) -> tuple[int, int]:
    mask |= 1 << (n - first)
    while mask & 1:
        mask >>= 1
        first += 1
    return first, mask


def _apply(step: _Step, value: str) -> str | object:
    """The value after a step, or _IMPOSSIBLE where its answer contradicts the value before."""
    match step.action:
        case "get":
            return value if step.result == value else _IMPOSSIBLE
        case "put":
            return step.value
        case "delete":
            return "null"
        case "append":
            before = json.loads(value)
            more = json.loads(step.value)
            return _text(more if before is None else before + more)
        case _:  # cas
            matches = value == step.expected
            if step.result is not None and bool(step.result) != matches:
                return _IMPOSSIBLE
            return step.value if matches else value


def _relevant(operations: Iterable[Operation]) -> list[Operation]:
    """Without what had no effect, and what may have had one that nobody could see."""
    kept = [
        one
        for one in operations
        if one.outcome is Outcome.DONE or (one.outcome is Outcome.UNKNOWN and one.action != "get")
    ]
    kept.sort(key=lambda one: one.called)
    if _effects_show_otherwise(kept):
        return kept
    seen = _seen_values(kept)
    return [one for one in kept if one.outcome is Outcome.DONE or _leaves(one) in seen]


def _effects_show_otherwise(operations: Iterable[Operation]) -> bool:
    """A refused cas tells of any value but one, and an append builds on whatever is there."""
    return any(
        one.action == "append" or (one.action == "cas" and one.outcome is Outcome.DONE and not one.result)
        for one in operations
    )


def _seen_values(operations: Iterable[Operation]) -> set[str]:
    """What somebody read or found as it was expected, and what a write may have been tried on."""
    seen = set()
    for one in operations:
        if one.action == "get":
            seen.add(_text(one.result))
        elif one.action == "cas":
            seen.add(_text(one.expected))
    return seen


def _leaves(operation: Operation) -> str:
    return "null" if operation.action == "delete" else _text(operation.value)


def _shrunk(operations: Sequence[Operation], initial: Any, work_max: int) -> list[Operation]:
    """
    A part that is violated by itself.

    Only what keeps a history linearizable that was so is done to it: cut off after some moment, what was
    under way then being unknown; and leave out answers, and writes that nobody saw.
    """
    left = _SHRINK_WORK

    def bad(part: Sequence[Operation]) -> bool:
        nonlocal left
        if left <= 0:
            return False
        search = _Search(part, initial, min(work_max, left))
        left -= search.work
        return search.answer is Answer.VIOLATED

    ends = sorted(
        one.returned for one in operations if one.outcome is Outcome.DONE and one.returned is not None
    )
    low, high = 0, len(ends) - 1  # the cut at `high` is bad
    while low < high:
        middle = (low + high) // 2
        if bad(_cut(operations, ends[middle])):
            high = middle
        else:
            low = middle + 1
    part = _relevant(_cut(operations, ends[high]))
    size = max(1, len(part) // 2)
    while left > 0:
        n = 0
        while n < len(part):
            dropped = set(_droppable(part, n, size))
            smaller = [one for index, one in enumerate(part) if index not in dropped]
            if dropped and bad(smaller):
                part = smaller
            else:
                n += size
        if size == 1:
            break
        size //= 2
    return part


def _cut(operations: Iterable[Operation], moment: int) -> list[Operation]:
    return [
        replace(one, outcome=Outcome.UNKNOWN, result=None)
        if one.outcome is Outcome.DONE and one.returned is not None and one.returned > moment
        else one
        for one in operations
        if one.called <= moment
    ]


def _droppable(part: Sequence[Operation], first: int, count: int) -> Iterable[int]:
    seen = _seen_values(part)
    blind = not _effects_show_otherwise(part)
    for n in range(first, min(first + count, len(part))):
        one = part[n]
        answers_only = one.action == "get" or (
            one.action == "cas" and one.outcome is Outcome.DONE and not one.result
        )
        if answers_only or (blind and _leaves(one) not in seen):
            yield n


def _step(operation: Operation) -> _Step:
    known = operation.outcome is Outcome.DONE
    result = operation.result if operation.action == "cas" else _text(operation.result)
    return _Step(
        operation=operation,
        called=operation.called,
        returned=operation.returned if known and operation.returned is not None else 0,
        action=operation.action,
        value=_text(operation.value),
        expected=_text(operation.expected),
        result=result if known else None,
    )


def _text(value: Any) -> str:
    return json.dumps(value, sort_keys=True)
