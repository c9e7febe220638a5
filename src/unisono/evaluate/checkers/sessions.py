"""
Session guarantees: what one client sees never goes back, and revisions mean what they say. In linear time.

The order of versions need not be searched, as the store names it: revisions. A client is a session across its
connections; one that hands its token on is one session with who gets it.

Sources: Terry et al., *Session Guarantees for Weakly Consistent Replicated Data* (1994); Viotti and Vukolić,
*Consistency in Non-Transactional Distributed Storage Systems* (2016).
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from unisono.evaluate.checkers.verdict import KEPT, Verdict, violated
from unisono.evaluate.history import Operation, Outcome


@dataclass
class _Session:
    """The newest operations of a session, by revision."""

    read: Operation | None = None
    written: Operation | None = None


def sessions(history: Iterable[Operation]) -> Verdict:
    """
    Judge each client: reads not older than its writes (read your writes) or its reads (monotonic reads), and
    writes after its writes (monotonic writes) and reads (writes follow reads).

    Reads are ``get``; what else has a ``revision`` is a write. Only what is known to be done counts.
    """
    found: dict[str, _Session] = defaultdict(_Session)
    for one in sorted(_known(history), key=lambda one: one.called):
        session = found[one.client]
        if one.action == "get":
            broken = (("read your writes", session.written), ("monotonic reads", session.read))
        else:
            broken = (("monotonic writes", session.written), ("writes follow reads", session.read))
        for guarantee, before in broken:
            if before is None or _revision(before) <= _revision(one):
                continue
            return violated(f"{guarantee}: revision {one.revision} after {before.revision}", before, one)
        if one.action == "get":
            session.read = one
        else:
            session.written = one
    return KEPT


def revisions(history: Iterable[Operation]) -> Verdict:
    """
    Judge what answers say of revisions: no write is missing between a read's ``version`` and ``revision``,
    no two acknowledged writes of a key have one revision, and a version's value is what was written then.

    Writes are ``put``, ``delete`` and a ``cas`` that was as expected. Not for keys that end by a lease.
    """
    history = list(history)
    known = list(_known(history))
    removed_unseen = any(one.action == "delete" and one.outcome is Outcome.UNKNOWN for one in history)
    writes: dict[str, dict[int, Operation]] = defaultdict(dict)
    for one in known:
        if one.action in ("put", "delete") or (one.action == "cas" and one.result):
            other = writes[one.key].setdefault(_revision(one), one)
            # To remove what is not there changes nothing, and answers with the revision that is.
            if other is not one and not one.action == other.action == "delete":
                return violated(f"two writes of {one.key!r} at revision {one.revision}", other, one)
    ordered = {key: sorted(found) for key, found in writes.items()}
    for read in known:
        if read.action != "get" or read.version is None:
            continue
        at = ordered.get(read.key, [])
        between = at[bisect_right(at, read.version) : bisect_right(at, _revision(read))]
        missed = [writes[read.key][revision] for revision in between]
        # Nothing there may be due to a removal that nobody was told of; but something there can't be.
        if read.version == 0:
            explained = removed_unseen or (missed and missed[-1].action == "delete")
            missed = [] if explained else missed[-1:]
        if missed:
            return violated("a read without a write that came before its revision", missed[0], read)
        index = bisect_left(at, read.version)
        if index < len(at) and at[index] == read.version:
            write = writes[read.key][read.version]
            if write.action == "delete" or write.value != read.result:
                return violated(f"another value than was written at revision {read.version}", write, read)
    return KEPT


def _known(history: Iterable[Operation]) -> Iterable[Operation]:
    return (one for one in history if one.outcome is Outcome.DONE and one.revision is not None)


def _revision(operation: Operation) -> int:
    assert operation.revision is not None  # noqa: S101 - only known ones get here
    return operation.revision
