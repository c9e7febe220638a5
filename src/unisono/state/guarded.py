"""
Transactions that rest on more than their compares: fencing tokens that must hold, requests already done.

A store's transaction has one list of compares and two of changes. That is enough for a condition, but not
for a condition *within* one: "if my token still counts, and this request was not done before: if a = 1
then … else …". So what all compares look at is read first, the answer is worked out here, and one
transaction does it on condition that none of what was read has changed; else it begins anew. Each new
beginning means that somebody else got something done.

:func:`holds` is pure; :func:`run` talks to the store.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from unisono.store.base import Compare, Delete, Entry, Field, NotDone, Outcome, Put, Store

_ATTEMPTS = 100


@dataclass(frozen=True, kw_only=True)
class Unmet:
    """Nothing was done, for this guard did not hold; ``entry`` is what its key has instead."""

    guard: Compare
    entry: Entry | None


def holds(compare: Compare, entry: Entry | None) -> bool:
    """Whether a compare is true of its key's entry, as a store would judge."""
    match compare.field:
        case Field.CREATED:
            return compare.target == (0 if entry is None else entry.created)
        case Field.MODIFIED:
            return compare.target == (0 if entry is None else entry.modified)
        case Field.VALUE:
            return entry is not None and entry.value == compare.target


async def run(
    store: Store,
    *,
    guards: Sequence[Compare],
    compares: Sequence[Compare],
    success: Sequence[Put | Delete],
    failure: Sequence[Put | Delete],
) -> Outcome | Unmet:
    """
    If all guards hold, do ``success`` or ``failure`` as the compares tell; else nothing.

    Never uses a store transaction's other list: a transaction that arrives late, after its guard was met,
    must do nothing at all.

    Raises:
        MaybeDone: It may have been done.
        NotDone: It was not, or others were quicker a hundred times.
        ValueError: A key, value or list is over its limit.
    """
    outcome = await store.transact(compares=[*guards, *compares], success=success)
    if outcome.succeeded:
        return outcome
    for _ in range(_ATTEMPTS):
        seen: dict[str, Entry | None] = {}
        for compare in (*guards, *compares):
            if compare.key not in seen:
                seen[compare.key] = await store.get(compare.key)
        for guard in guards:
            if not holds(guard, seen[guard.key]):
                return Unmet(guard=guard, entry=seen[guard.key])
        met = all(holds(compare, seen[compare.key]) for compare in compares)
        outcome = await store.transact(compares=_unchanged(seen), success=success if met else failure)
        if outcome.succeeded:
            return Outcome(succeeded=met, revision=outcome.revision)
    raise NotDone(f"others changed what it looks at {_ATTEMPTS} times: try again")


def _unchanged(seen: Mapping[str, Entry | None]) -> list[Compare]:
    return [
        Compare(key=key, field=Field.MODIFIED, target=0 if entry is None else entry.modified)
        for key, entry in seen.items()
    ]
