"""
The fence: which answer a call of a saga's or a TCC branch gets, and whether its code runs. Pure.

All happens in one transaction of the participant's own database, beside what its code changes there. The row
of a branch is inserted first and looked at afterwards, never the other way round, so that of two calls that
overlap the database makes one wait::

    state      meaning                                forward    finish     undo
    (none)                                            run        no         record: fenced
    running    may have had effects outside           run again  no         run
    done       the forward call took effect           same reply run        run
    refused    it never will: its code said no        same no    no         done
    fenced     it never will: its undo came first     no         no         done
    finished   confirmed                              same reply done       no
    undone     compensated or cancelled               no         no         done

Prepared transactions (XA) are :mod:`unisono.client.participant.prepared`'s. Sources: DTM's barrier (two
inserts that conflict), which answers a suspended call with success (dtm 453): here it is a no.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass, replace
from typing import Any

from unisono.client.participant import dialects
from unisono.client.participant.dialects import Dialect
from unisono.client.participant.protocol import (
    REPLY_MAX,
    Answer,
    Call,
    Done,
    Forgotten,
    No,
    Refused,
    StillWorking,
    Unknown,
    no,
)
from unisono.client.participant.steps import (
    Begin,
    Commit,
    Fault,
    Fence,
    Result,
    Returned,
    Rollback,
    Run,
    Step,
    Why,
    Work,
)

LOCK_MS = 1000  # how long a call waits for another one of its branch before it answers "still working"
STATEMENT_MS = 30_000  # how long a statement may take where the coordinator names no deadline
ATTEMPTS = 3  # of a transaction that the database rolled back because of another one


class Broken(Exception):
    """The participant's code ended the transaction, or left it in a state that can't be kept."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """What the fence knows of a branch; ``mark`` is the database's name for the present transaction."""

    state: str
    epoch: int
    reply: str | None
    op: str
    mark: str | None

    @classmethod
    def of(cls, columns: Any) -> Row:
        """The row as ``Dialect.select`` gives it."""
        state, epoch, reply, op, *mark = columns
        return cls(state=state, epoch=epoch, reply=reply, op=op, mark=mark[0] if mark else None)


def fence(dialect: Dialect, call: Call, *, external: bool = False) -> Fence:
    """
    Carry out one call of a saga's or a TCC branch.

    Args:
        dialect: The database's.
        call: What the coordinator asks.
        external: Whether the forward code has effects outside the database: then its row is committed before
            it runs, so that an undo runs even if the forward call failed halfway.

    Returns:
        The answer; an outcome that the database could not tell is ``Unknown``.
    """
    kinds: dict[str, Callable[[], Fence]] = {
        "forward": lambda: _forward(dialect, call, external=external),
        "finish": lambda: _finish(dialect, call),
        "undo": lambda: _undo(dialect, call),
    }
    return again(kinds[call.kind])


def again(attempt: Callable[[], Fence]) -> Fence:
    """
    Try a fence again while the database rolled it back because of another transaction, and put the other
    faults into answers.
    """
    for left in reversed(range(ATTEMPTS)):
        try:
            return (yield from attempt())
        except Fault as fault:
            yield Rollback()
            if fault.why is Why.AGAIN and left:
                continue
            return answer_to(fault)
        except Broken as error:
            yield Rollback()
            return Unknown(status=500, detail=str(error))
    raise AssertionError("the last attempt returns")


def answer_to(fault: Fault) -> Answer:
    """What to tell the coordinator of a statement that failed."""
    if fault.why in (Why.BUSY, Why.AGAIN):
        return StillWorking(detail=f"another call holds a lock that this one needs ({fault.state})")
    if fault.why is Why.LOST:
        return Unknown(detail=f"the database went away ({fault.state or 'no code'}): {fault}")
    if fault.why is Why.NO_FENCE:
        return Unknown(
            status=500,
            detail=f"{fault}. The fence's table is made once by participant.create_fence(database)",
        )
    if fault.why is Why.CODE:
        return Unknown(status=500, detail=str(fault))
    return Unknown(status=500, detail=f"the database refused a statement ({fault.state}): {fault}")


# -- forward -----------------------------------------------------------------------------------------


def _forward(dialect: Dialect, call: Call, *, external: bool) -> Fence:
    yield begin(call)
    row = yield from insert(dialect, call, "running")
    if row is None:
        row = yield from select(dialect, call)
        if row.state != "running" or not external:
            return (yield from judge_forward(call, row))
    else:
        if (yield from is_late(call)):
            yield Rollback()
            return forgotten(call) if call.mode == "msg" else too_late(call)
        if external:
            yield Commit()
            yield begin(call)
            row = yield from select(dialect, call)
            if row.state != "running":  # an undo or a duplicate was quicker
                return (yield from judge_forward(call, row))
    try:
        value = yield from work(dialect, call)
        yield from seal(dialect, call, row, "done", encoded(value))
        yield Commit()
    except Refused as error:
        yield Rollback()
        if call.mode == "msg":
            return must_not_refuse(call, error)
        return (yield from refuse(dialect, call, error, was="running" if external else None))
    return Done(reply=value)


def refuse(dialect: Dialect, call: Call, error: Refused, *, was: str | None = None) -> Fence:
    """
    Record a no for good: a duplicate that comes later must not find better days and say yes, since nobody
    would undo it.
    """
    reply = encoded(error.problem())
    yield begin(call)
    row = yield from insert(dialect, call, "refused", reply)
    if row is None:
        row = yield from select(dialect, call)
        if row.state != was:
            return (yield from judge_forward(call, row))
        yield Run(dialects.SEAL, _sealed(call, row, "refused", reply))
    yield Commit()
    return No(problem=error.problem())


def judge_forward(call: Call, row: Row) -> Fence:
    """The answer to a forward call whose branch has a row."""
    if call.epoch < row.epoch:
        yield Rollback()
        return stale(call, row)
    if row.state in ("done", "finished"):
        yield from keep_epoch(call, row)
        return Done(reply=decoded(row.reply))
    yield Rollback()
    if row.state == "refused":
        return No(problem=decoded(row.reply) or {})
    if row.state == "running":
        return Unknown(
            status=500,
            detail="the participant's code committed or rolled back by itself when it ran first, so what it"
            " did is unknown; leave the transaction to the fence",
        )
    return no("fenced", f"the branch was undone before or after its {call.op}, which must not run any more")


def keep_epoch(call: Call, row: Row) -> Generator[Step, Any, None]:
    """Remember the highest epoch, so that a deposed coordinator stays deposed; ends the transaction."""
    if call.epoch == row.epoch:
        yield Rollback()
    else:
        yield Run(dialects.KEEP_EPOCH, (call.epoch, *key(call)))
        yield Commit()


# -- finish ------------------------------------------------------------------------------------------


def _finish(dialect: Dialect, call: Call) -> Fence:
    yield begin(call)
    row = yield from find(dialect, call)
    if row is None:
        late = yield from is_late(call)
        yield Rollback()
        return forgotten(call) if late else no("unknown-branch", f"nothing is on record to {call.op} here")
    if call.epoch < row.epoch:
        yield Rollback()
        return stale(call, row)
    if row.state == "finished":
        yield Rollback()
        return Done()
    if row.state != "done":
        yield Rollback()
        return no("contradiction", f"the branch is {row.state}, so it can't {call.op} any more")
    return (yield from _second(dialect, call, row, "finished"))


# -- undo --------------------------------------------------------------------------------------------


def _undo(dialect: Dialect, call: Call) -> Fence:
    yield begin(call)
    if (yield from insert(dialect, call, "fenced")) is not None:
        if (yield from is_late(call)):
            yield Rollback()
            return forgotten(call)
        yield Commit()
        return Done()
    row = yield from select(dialect, call)
    if call.epoch < row.epoch:
        yield Rollback()
        return stale(call, row)
    if row.state in ("fenced", "refused", "undone"):
        yield Rollback()
        return Done()
    if row.state == "finished":
        yield Rollback()
        return no("contradiction", f"the branch is finished, so it can't {call.op} any more")
    return (yield from _second(dialect, call, row, "undone"))


def _second(dialect: Dialect, call: Call, row: Row, state: str) -> Fence:
    """Run the code of a finish or undo. It can't say no: what it raises is asked again."""
    try:
        yield from work(dialect, replace(call, reply=decoded(row.reply)))
    except Refused as error:
        yield Rollback()
        return must_not_refuse(call, error)
    yield from seal(dialect, call, row, state, row.reply)
    yield Commit()
    return Done()


# -- statements --------------------------------------------------------------------------------------


def key(call: Call) -> tuple[str, str]:
    """The row's primary key."""
    return call.gid, call.branch


def begin(call: Call, lock_ms: int = LOCK_MS) -> Begin:
    """A transaction that waits no longer than the coordinator does."""
    left = call.remaining()
    statement = STATEMENT_MS if left is None else max(1, int(left * 1000))
    # Half: a wait for a lock must end as such, and leave time to say so.
    return Begin(lock_ms=min(lock_ms, max(1, statement // 2)), statement_ms=statement)


def insert(
    dialect: Dialect, call: Call, state: str, reply: str | None = None
) -> Generator[Step, Any, Row | None]:
    """Insert the branch's row; ``None`` if there is one. Waits for a transaction that is inserting it."""
    values = (*key(call), call.op, state, call.epoch, reply, int(time.time() * 1000))
    result: Result = yield Run(dialect.insert, values, rows=dialect.insert_gives_mark)
    if result.count != 1:
        return None
    mark = result.rows[0][0] if dialect.insert_gives_mark else None
    return Row(state=state, epoch=call.epoch, reply=reply, op=call.op, mark=mark)


def find(dialect: Dialect, call: Call) -> Generator[Step, Any, Row | None]:
    """Lock and read the branch's row."""
    result: Result = yield Run(dialect.select, key(call), rows=True)
    return Row.of(result.rows[0]) if result.rows else None


def select(dialect: Dialect, call: Call) -> Generator[Step, Any, Row]:
    """Lock and read the branch's row, which was there a moment ago."""
    row = yield from find(dialect, call)
    if row is None:  # it was purged or rolled back in between
        raise Fault(Why.AGAIN, "", "the row of the branch went away while it was read")
    return row


def work(dialect: Dialect, call: Call) -> Generator[Step, Any, Any]:
    """Run the participant's code; what it returns."""
    if dialect.savepoint:
        yield Run(dialects.SAVEPOINT)
    returned: Returned = yield Work(call)
    return returned.value


def seal(dialect: Dialect, call: Call, row: Row, state: str, reply: str | None) -> Generator[Step, Any, None]:
    """
    Write the branch's new state at the end of its transaction.

    It also proves that the transaction is the one in which the fence began: a block that a failed statement
    has aborted refuses it, and one that the code ended itself has another mark, or no savepoint.

    Raises:
        Broken: It is another transaction.
    """
    sql, values = dialects.SEAL, _sealed(call, row, state, reply)
    if dialect.savepoint:
        try:
            yield Run(dialects.RELEASE)
        except Fault as fault:
            if fault.why is Why.LOST:
                raise
            raise Broken(ENDED) from fault
    else:
        sql, values = sql + dialects.SAME, (*values, row.mark)
    try:
        result: Result = yield Run(sql, values)
    except Fault as fault:
        if fault.state == "25P02":
            raise Broken(ABORTED) from fault
        raise
    if result.count != 1:
        raise Broken(ENDED)


def _sealed(call: Call, row: Row, state: str, reply: str | None) -> tuple[Any, ...]:
    return state, call.op, max(call.epoch, row.epoch), reply, *key(call), row.state


ENDED = "the participant's code committed or rolled back by itself; leave the transaction to the fence"
ABORTED = (
    "a statement of the participant's code failed and the code went on; let the error out, or run the"
    " statement under a savepoint"
)


def is_late(call: Call) -> Generator[Step, Any, bool]:
    """Whether the transaction began before the low-water mark: rows of that time have been purged."""
    if call.began_ms is None:
        return False
    result: Result = yield Run(dialects.LOW_WATER, (), rows=True)
    return bool(result.rows) and call.began_ms < result.rows[0][0]


# -- answers -----------------------------------------------------------------------------------------


def stale(call: Call, row: Row) -> No:
    """No to a coordinator that another one has replaced."""
    return no("fenced", f"epoch {row.epoch} has called this branch: epoch {call.epoch} has no say any more")


def too_late(call: Call) -> No:
    """No to a forward call of which the fence may have purged the row."""
    return no("expired", f"this {call.op} is of a transaction that began before the fence's low-water mark")


def must_not_refuse(call: Call, error: Refused) -> Unknown:
    """The answer where the code said no though everything is decided: it is asked again."""
    return Unknown(status=500, detail=f"{call.op} must not refuse any more, but it did: {error.detail}")


def forgotten(call: Call) -> Forgotten:
    """The answer to a finish or undo of which the fence may have purged the row."""
    return Forgotten(
        detail=f"this {call.op} is of a transaction that began before the fence's low-water mark"
    )


def encoded(value: Any) -> str | None:
    """
    A reply as it is kept.

    Raises:
        Broken: It is not JSON, or too long.
    """
    if value is None:
        return None
    try:
        text = json.dumps(value, separators=(",", ":"), allow_nan=False)
    except (TypeError, ValueError) as error:
        raise Broken(f"a reply must be JSON: {error}") from error
    if len(text) > REPLY_MAX:
        raise Broken(
            f"a reply has at most {REPLY_MAX} bytes, because the fence keeps it; this has {len(text)}"
        )
    return text


def decoded(text: str | None) -> Any:
    """A kept reply as it was."""
    return None if text is None else json.loads(text)
