"""Watches: each change once, in the order of revisions, none left out. In O(n log n)."""

from __future__ import annotations

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
    for one in seen:
        if one.revision < covered or (one.revision == covered and not one.resync):
            return violated(f"revision {one.revision} after {covered}: told again, or going back", one)
        if one.resync:
            resynced.append((covered, one.revision))
        else:
            told[one.revision] = one
        covered = one.revision
    for write in history:
        revision = write.revision or 0
        if not _counts(write, prefix) or not after < revision <= covered:
            continue
        if any(first < revision <= last for first, last in resynced):
            continue
        event = told.get(revision)
        value = None if write.action == "delete" else write.value
        if event is None:
            return violated(f"a write that the watch left out on its way to revision {covered}", write)
        if (write.key, value) not in list(event.changes):
            return violated("a change that is not what was written", write, event)
    return KEPT


def _counts(write: Operation, prefix: str) -> bool:
    written = write.action in ("put", "delete") or (write.action == "cas" and bool(write.result))
    return (
        written
        and write.outcome is Outcome.DONE
        and write.revision is not None
        and write.key.startswith(prefix)
    )
