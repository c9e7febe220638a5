"""Watches: each change once, in the order of revisions, none left out. In O(n log n)."""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from unisono.evaluate.checkers.verdict import KEPT, Verdict, violated
from unisono.evaluate.history import Operation, Outcome


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What a watcher was told at once: all changes of one revision; with ``resync``, all there is."""

    revision: int
    changes: Sequence[tuple[str, Any]]  # key and value; None: it was removed
    resync: bool = False


def watched(seen: Iterable[Seen], history: Iterable[Operation], *, after: int, prefix: str = "") -> Verdict:
    """
    Judge one watch that began after revision ``after``.

    ``history`` has the acknowledged writes (``put``, ``delete`` and a ``cas`` that was as expected) with
    their revisions. Each of them under ``prefix`` must have been told at its revision, if the watch came so
    far and no resync stands for it. What a resync holds is not looked at.
    """
    told: dict[int, Seen] = {}
    covered = after  # every change up to here was told, or a resync stands for it
    resynced: list[tuple[int, int]] = []  # after the first revision, up to the second
    changes: dict[str, list[tuple[int, Any]]] = defaultdict(list)  # of each key, in the order told
    for one in seen:
        if one.revision < covered or (one.revision == covered and not one.resync):
            return violated(f"revision {one.revision} after {covered}: told again, or going back", one)
        if one.resync:
            resynced.append((covered, one.revision))
        else:
            told[one.revision] = one
        covered = one.revision
        for key, value in one.changes:
            changes[key].append((one.revision, value))
    due = (
        write
        for write in history
        if _counts(write, prefix)
        and after < (write.revision or 0) <= covered
        and not any(first < (write.revision or 0) <= last for first, last in resynced)
    )
    return _compared(due, told, changes)


def _compared(
    due: Iterable[Operation], told: dict[int, Seen], changes: dict[str, list[tuple[int, Any]]]
) -> Verdict:
    """Each write that is due was told, and as it was written."""
    for write in due:
        revision = write.revision or 0
        if write.action == "delete":
            # To remove what is not there changes nothing, and answers with the revision that is.
            if _latest(changes.get(write.key, []), revision) is not None:
                return violated("a removal that the watch left out", write)
        elif revision not in told:
            return violated("a write that the watch left out", write)
        elif (write.key, write.value) not in list(told[revision].changes):
            return violated("a change that is not what was written", write, told[revision])
    return KEPT


def _latest(changes: Sequence[tuple[int, Any]], revision: int) -> Any:
    """What a key is after ``revision`` to whoever was told these changes."""
    n = bisect_right(changes, revision, key=lambda change: change[0])
    return changes[n - 1][1] if n else None


def _counts(write: Operation, prefix: str) -> bool:
    written = write.action in ("put", "delete") or (write.action == "cas" and bool(write.result))
    return (
        written
        and write.outcome is Outcome.DONE
        and write.revision is not None
        and write.key.startswith(prefix)
    )
