"""
What keeps a fence in order: making its table, purging it, and finishing prepared transactions that were left.

Each is one sequence of steps, carried out with or without asyncio as the database is.
"""

from __future__ import annotations

import time
from collections.abc import Generator
from dataclasses import dataclass
from typing import Any, Literal, cast

from unisono.client.participant import dialects
from unisono.client.participant.dialects import Dialect, Name
from unisono.client.participant.drivers import driver_of
from unisono.client.participant.prepared import default_prefix, prepared, prepared_name
from unisono.client.participant.protocol import Answer, Call, Done, Unknown
from unisono.client.participant.running import AsyncDriver, Driver, nothing, run, run_async
from unisono.client.participant.steps import Fault, Fence, Result, Run, Step

KEEP = 7 * 24 * 3600.0  # seconds; longer than a coordinator retries
KEEP_MIN = 24 * 3600.0  # the longest time that a transaction may take
_BATCHES = 10_000

# Two processes that make the table at the same moment: the second is told so although it said IF NOT EXISTS.
_MADE_BY_ANOTHER = ("42P07", "23505")


class UpkeepFailed(Exception):
    """The database said no, or did not answer; the message says what."""


@dataclass(frozen=True, kw_only=True)
class Orphan:
    """A prepared transaction of this prefix, and for how many seconds it has been prepared."""

    gid: str
    branch: str
    age: float


def fence_table(dialect: Name) -> str:
    """The SQL that makes the fence's table, for those who keep their schema elsewhere."""
    return ";\n".join(dialects.DIALECTS[dialect].create) + ";\n"


def create_fence(database: Any) -> None:
    """
    Make the fence's table unless it is there.

    Raises:
        UpkeepFailed: The database does not let us.
    """
    driver = cast(Driver, driver_of(database))
    _checked(run(driver, _create(driver.dialect), nothing))


async def create_fence_async(database: Any) -> None:
    """As :func:`create_fence`, for a database of asyncio."""
    driver = cast(AsyncDriver, driver_of(database))
    _checked(await run_async(driver, _create(driver.dialect), nothing))


def purge_fence(database: Any, *, keep: float = KEEP) -> int:
    """
    Forget branches that have been over for ``keep`` seconds; how many rows that were.

    Calls of transactions that began before that time are refused from then on, so ``keep`` must be longer
    than any transaction is retried. A ``try`` that was neither confirmed nor cancelled is never forgotten.

    Raises:
        ValueError: ``keep`` is less than a day, which is how long a transaction may take.
        UpkeepFailed: The database does not let us; what was purged before that is purged.
    """
    driver = cast(Driver, driver_of(database))
    return int(_checked(run(driver, _purge(driver.dialect, _before(keep)), nothing)))


async def purge_fence_async(database: Any, *, keep: float = KEEP) -> int:
    """As :func:`purge_fence`, for a database of asyncio."""
    driver = cast(AsyncDriver, driver_of(database))
    return int(_checked(await run_async(driver, _purge(driver.dialect, _before(keep)), nothing)))


def orphans(database: Any, *, prefix: str | None = None) -> list[Orphan]:
    """
    The prepared transactions of this prefix, oldest first. Others are never looked at.

    Raises:
        UpkeepFailed: The database does not let us.
    """
    driver = cast(Driver, driver_of(database))
    return cast("list[Orphan]", _checked(run(driver, _list(prefix or default_prefix()), nothing)))


async def orphans_async(database: Any, *, prefix: str | None = None) -> list[Orphan]:
    """As :func:`orphans`, for a database of asyncio."""
    driver = cast(AsyncDriver, driver_of(database))
    return cast("list[Orphan]", _checked(await run_async(driver, _list(prefix or default_prefix()), nothing)))


def verdict(status: str | None, age: float, grace: float) -> Literal["commit", "rollback"] | None:
    """
    What an orphan's transaction wants of it; ``None``: leave it alone for now. Pure.

    Args:
        status: Of the transaction, as the coordinator tells it; ``None``: it knows of none.
        age: Seconds for which the branch has been prepared.
        grace: So old it must be to be presumed aborted: a younger one may be racing its enrolment.
    """
    if status in ("committing", "committed"):
        return "commit"
    if status in ("aborting", "aborted") or (status is None and age > grace):
        return "rollback"
    return None


def finish_orphan(
    database: Any, orphan: Orphan, decision: Literal["commit", "rollback"], *, prefix: str | None = None
) -> None:
    """
    Commit or roll back an orphan as the coordinator would.

    Raises:
        UpkeepFailed: It could not be done; the message says why.
    """
    driver = cast(Driver, driver_of(database))
    _checked(run(driver, _finish(driver.dialect, orphan, decision, prefix or default_prefix()), nothing))


async def finish_orphan_async(
    database: Any, orphan: Orphan, decision: Literal["commit", "rollback"], *, prefix: str | None = None
) -> None:
    """As :func:`finish_orphan`, for a database of asyncio."""
    driver = cast(AsyncDriver, driver_of(database))
    fence = _finish(driver.dialect, orphan, decision, prefix or default_prefix())
    _checked(await run_async(driver, fence, nothing))


# -- steps -------------------------------------------------------------------------------------------


def _create(dialect: Dialect) -> Fence:
    try:
        if dialect.is_made is not None:
            found: Result = yield Run(dialect.is_made, (), rows=True)
            if found.rows[0][0]:
                return Done()
        for statement in dialect.create:
            yield Run(statement)
    except Fault as fault:
        if fault.state not in _MADE_BY_ANOTHER:
            return Unknown(detail=f"the fence's table could not be made: {fault}")
    return Done()


def _purge(dialect: Dialect, before_ms: int) -> Fence:
    purged = 0
    try:
        # The mark first: from here on a late call is refused, whether or not its row is gone yet.
        yield Run(dialect.raise_mark, (before_ms, before_ms))
        for _ in range(_BATCHES):
            result: Result = yield Run(dialect.purge, (before_ms,))
            purged += result.count
            if result.count == 0:
                break
    except Fault as fault:
        return Unknown(detail=f"the fence could not be purged: {fault}")
    return Done(reply=purged)


def _list(prefix: str) -> Fence:
    try:
        found: Result = yield from _prepared_with(prefix)
    except Fault as fault:
        return Unknown(detail=f"the prepared transactions could not be listed: {fault}")
    listed = []
    for name, age in found.rows:
        parts = name.split(":")
        if len(parts) == 3:
            listed.append(Orphan(gid=parts[1], branch=parts[2], age=float(age)))
    return Done(reply=listed)


def _prepared_with(prefix: str) -> Generator[Step, Any, Result]:
    found: Result = yield Run(
        "SELECT gid, CAST(extract(epoch FROM clock_timestamp() - prepared) AS float8) FROM pg_prepared_xacts"
        " WHERE database = current_database() AND starts_with(gid, ?) ORDER BY prepared",
        (prepared_name(prefix, "", "").rstrip(":") + ":",),
        rows=True,
    )
    return found


def _finish(dialect: Dialect, orphan: Orphan, decision: str, prefix: str) -> Fence:
    call = Call(
        gid=orphan.gid,
        branch=orphan.branch,
        op=decision,
        kind="finish" if decision == "commit" else "undo",
    )
    return prepared(dialect, call, prefix)


# -- helpers -----------------------------------------------------------------------------------------


def _before(keep: float) -> int:
    if keep < KEEP_MIN:
        raise ValueError(
            f"keep is at least {KEEP_MIN:g} seconds, a day: so long a transaction may take; not {keep:g}"
        )
    return int((time.time() - keep) * 1000)


def _checked(answer: Answer) -> Any:
    if isinstance(answer, Done):
        return answer.reply
    detail = getattr(answer, "detail", None) or dict(getattr(answer, "problem", {})).get("detail")
    raise UpkeepFailed(str(detail))
