"""
XA over PostgreSQL's PREPARE TRANSACTION: which answer a call gets, and which statements make it true. Pure.

The branch's transaction holds the row of the fence, what the participant's code changed, and nothing else
when it is prepared under the name ``PREFIX:GID:BRANCH``. Until it is committed or rolled back the row is
locked and invisible; afterwards it is the evidence of what became of the branch:

* commit: COMMIT PREPARED. Where there is no such transaction any more, a row ``done`` says that it has been
  committed, and none that somebody rolled it back by hand: a contradiction, which is said, never swallowed,
  unless rows of that time have been purged.
* rollback: ROLLBACK PREPARED, where "no such transaction" is fine; then the row ``fenced``, so that a prepare
  that is late finds it. If that row can't be had, the prepare is just under way: both once more.

A prepared transaction keeps no reply that could be read before its commit, so prepare answers none.

Sources: PostgreSQL, PREPARE TRANSACTION; pgjdbc 4438 and 4443 (57P01 is unknown, not rolled back).
"""

from __future__ import annotations

import os
from collections.abc import Generator
from typing import Any

from unisono.client.participant.dialects import ADVISORY, INSPECT, Dialect
from unisono.client.participant.fence import (
    ABORTED,
    ENDED,
    Broken,
    Row,
    again,
    answer_to,
    begin,
    find,
    forgotten,
    insert,
    is_late,
    judge_forward,
    refuse,
    select,
    stale,
    too_late,
    work,
)
from unisono.client.participant.protocol import Answer, Call, Done, Refused, StillWorking, no
from unisono.client.participant.steps import Commit, Fault, Fence, Result, Rollback, Run, Step

PREFIX_MAX = 32  # characters: with a gid's 100 and a branch's 40 a name stays below PostgreSQL's 199 bytes
LOCK_MS = 250  # a repeated prepare waits so long for what it has prepared itself, so it is short
ROUNDS = 3  # of a rollback that meets its prepare, each at most LOCK_MS long

_NOT_THERE = "42704"
_BUSY_OR_DISABLED = "55000"
_LOCKED = "55P03"
_DUPLICATE = "42710"
_NOT_POSSIBLE = "0A000"  # temporary tables, NOTIFY, exported snapshots

ALL_LOOKED_AT = 100  # prepares of a process: whether their code holds advisory locks
LOOKED_AT_EVERY = 50  # of those that follow

UNLOCK = "SELECT pg_advisory_unlock_all()"
LISTED = "SELECT 1 FROM pg_prepared_xacts WHERE gid = ? AND database = current_database()"


def default_prefix() -> str:
    """The application's name as the node tells it to an instance; "unisono" elsewhere."""
    return os.environ.get("UNISONO_APPLICATION", "unisono")[:PREFIX_MAX]


def prepared_name(prefix: str, gid: str, branch: str) -> str:
    """The name under which a branch is prepared; its parts hold no colon and no quote."""
    return f"{prefix}:{gid}:{branch}"


def is_looked_at(before: int) -> bool:
    """
    Whether the prepare after ``before`` others of its process is looked at for advisory locks.

    Not each one is: pg_locks holds up all locking of the server for a moment, which at every prepare would
    halve how many there can be. Code that takes such locks does so in its first calls already, as a rule.
    """
    return before < ALL_LOOKED_AT or before % LOOKED_AT_EVERY == 0


def prepared(dialect: Dialect, call: Call, prefix: str, *, look: bool = True) -> Fence:
    """
    Carry out one call of an XA branch.

    Args:
        dialect: PostgreSQL's.
        call: What the coordinator asks.
        prefix: Whose prepared transactions these are, so that two clusters that share a database never
            touch each other's.
        look: Whether to look for advisory locks, as :func:`is_looked_at` says.
    """
    name = prepared_name(prefix, call.gid, call.branch)
    if call.kind == "forward":
        return again(lambda: _prepare(dialect, call, name, look=look))
    if call.kind == "finish":
        return again(lambda: _commit(dialect, call, name))
    return again(lambda: _rollback(dialect, call, name))


# -- prepare -----------------------------------------------------------------------------------------


def _prepare(dialect: Dialect, call: Call, name: str, *, look: bool) -> Fence:
    yield begin(call, LOCK_MS)
    try:
        row = yield from insert(dialect, call, "done")  # seen by nobody until it is so
    except Fault as fault:
        if fault.state != _LOCKED:
            raise
        yield Rollback()
        if (yield from _is_listed(name)):
            return Done()
        return StillWorking(detail="this branch is being prepared")
    if row is None:
        row = yield from select(dialect, call)
        return _without_reply((yield from judge_forward(call, row)))
    try:
        yield from work(dialect, call)
        if (yield from _inspect(call, row)):
            yield Rollback()
            return too_late(call)
        if look:
            yield from _refuse_advisory()
        yield from _prepare_as(name)
    except Refused as error:
        yield Rollback()
        return (yield from refuse(dialect, call, error))
    return Done()


def _without_reply(answer: Answer) -> Answer:
    return Done() if isinstance(answer, Done) else answer


def _inspect(call: Call, row: Row) -> Generator[Step, Any, bool]:
    """
    See that the transaction is the one in which the fence began, unhurt.

    Returns:
        Whether the call is of a transaction that began before the low-water mark. It is looked at in a
        statement after the insert: one that looked while it inserted could miss a row that was purged, and
        not yet see the mark that says so.
    """
    try:
        result: Result = yield Run(INSPECT, (), rows=True)
    except Fault as fault:
        if fault.state == "25P02":
            raise Broken(ABORTED) from fault
        raise
    mark, low_water = result.rows[0]
    if mark != row.mark:
        raise Broken(ENDED)
    return call.began_ms is not None and low_water is not None and call.began_ms < low_water


def _refuse_advisory() -> Generator[Step, Any, None]:
    """Refuse advisory locks: they would be kept with what is prepared, or outlive it in the session."""
    result: Result = yield Run(ADVISORY, (), rows=True)
    if result.rows[0][0]:
        yield Run(UNLOCK)  # those of the session would outlive the rollback, in the pool
        raise Refused(
            "the branch's code holds an advisory lock, which can't be prepared", code="unpreparable"
        )


def _prepare_as(name: str) -> Generator[Step, Any, None]:
    """
    Prepare, and see to it that it was prepared: in an aborted block PREPARE TRANSACTION succeeds with the tag
    ROLLBACK, and has prepared nothing.
    """
    try:
        result: Result = yield Run(f"PREPARE TRANSACTION '{name}'")
    except Fault as fault:
        raise _vote_of(fault, name) from fault
    if result.tag is None:  # a driver that does not tell
        if not (yield from _is_listed(name)):
            raise Refused(ROLLED_BACK, code="unpreparable")
    elif result.tag != "PREPARE TRANSACTION":
        raise Refused(ROLLED_BACK, code="unpreparable")


ROLLED_BACK = "PREPARE TRANSACTION prepared nothing: the transaction had been aborted or ended"


def _vote_of(fault: Fault, name: str) -> Exception:
    """What a failed PREPARE TRANSACTION means; it has rolled back, unless the server went away."""
    if fault.state == _BUSY_OR_DISABLED:
        return Broken(
            "this PostgreSQL prepares no transactions: set max_prepared_transactions above the number of"
            f" branches that are prepared at a time, and restart it ({fault})"
        )
    if fault.state.startswith("53"):
        return Broken(
            "this PostgreSQL can't prepare any more transactions at a time: raise max_prepared_transactions"
            f" ({fault})"
        )
    if fault.state == _DUPLICATE:
        return Broken(
            f"{name} is prepared, but the fence has no row for it: another database has the same prefix?"
        )
    if fault.state == _NOT_POSSIBLE:
        return Refused(f"the branch's code did what can't be prepared: {fault}", code="unpreparable")
    if fault.state.startswith("23"):
        return Refused(f"a constraint that is checked at the end forbids it: {fault}", code="constraint")
    return fault


# -- commit ------------------------------------------------------------------------------------------


def _commit(dialect: Dialect, call: Call, name: str) -> Fence:
    try:
        yield Run(f"COMMIT PREPARED '{name}'")
    except Fault as fault:
        if fault.state == _BUSY_OR_DISABLED:
            return StillWorking(detail="another session finishes this branch")
        if fault.state != _NOT_THERE:
            return answer_to(fault)
    else:
        return Done()
    return (yield from _committed_before(dialect, call, name))


def _committed_before(dialect: Dialect, call: Call, name: str) -> Fence:
    """What became of a branch that is not prepared."""
    yield begin(call, LOCK_MS)
    row = yield from find(dialect, call)
    late = row is None and (yield from is_late(call))
    yield Rollback()
    if late:
        return forgotten(call)
    if row is not None and row.state == "done":
        return Done()
    if row is not None and row.state != "running":
        return no("contradiction", f"the branch is {row.state}, so it can't be committed any more")
    return no(
        "lost",
        f"{name} is not prepared, and the fence has no record of its commit: somebody rolled it back, or the"
        " database lost it",
    )


# -- rollback ----------------------------------------------------------------------------------------


def _rollback(dialect: Dialect, call: Call, name: str) -> Fence:
    for _ in range(ROUNDS):
        try:
            yield Run(f"ROLLBACK PREPARED '{name}'")
        except Fault as fault:
            if fault.state == _BUSY_OR_DISABLED:
                break
            if fault.state != _NOT_THERE:
                return answer_to(fault)
        yield begin(call, LOCK_MS)
        try:
            row = yield from insert(dialect, call, "fenced")
        except Fault as fault:
            if fault.state != _LOCKED:
                raise
            yield Rollback()
            continue  # in flight, or prepared just now
        if row is not None:
            yield Commit()
            return Done()
        row = yield from select(dialect, call)
        yield Rollback()
        if row.state == "done":
            return no("contradiction", "the branch has been committed, so it can't be rolled back any more")
        return stale(call, row) if call.epoch < row.epoch else Done()
    return StillWorking(detail="this branch is being prepared or finished")


def _is_listed(name: str) -> Generator[Step, Any, bool]:
    result: Result = yield Run(LISTED, (name,), rows=True)
    return bool(result.rows)
