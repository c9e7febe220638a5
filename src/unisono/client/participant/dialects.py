"""
The fence's table and statements in the SQL of PostgreSQL, of MySQL and MariaDB, and of SQLite. Pure.

``txn_fence`` has one row for each branch of a transaction: ``state`` is where the branch stands, ``op`` the
operation that brought it there, ``epoch`` the highest that was seen, ``reply`` what the forward call
answered, ``created`` milliseconds since the epoch. The row with an empty gid is the low-water mark.
"""

# ruff: noqa: S608 - nothing in these statements comes from outside

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from unisono.client.participant.steps import Why

TABLE = "txn_fence"

Name = Literal["postgresql", "mysql", "sqlite"]


@dataclass(frozen=True, kw_only=True)
class Dialect:
    """One engine's SQL; statements have ``?`` for their parameters."""

    name: Name
    create: tuple[str, ...]
    is_made: str | None = None  # tells whether what ``create`` makes is there, without waiting for a lock
    begin: tuple[str, ...]  # with {lock_ms}, {lock_s} and {statement_ms}
    insert: str  # gid, branch, op, state, epoch, reply, created; does nothing if the row is there
    select: str  # gid, branch; locks the row; gives state, epoch, reply, op and the transaction's mark
    insert_gives_mark: bool  # whether insert and select answer a mark of the transaction they ran in
    savepoint: bool  # whether a savepoint tells instead that the transaction is still the same
    raise_mark: str  # epoch, created
    purge: str  # created before; at most 1000 rows
    codes: dict[str, Why]


LOW_WATER = f"SELECT epoch FROM {TABLE} WHERE gid = '' AND branch = ''"
INSPECT = f"SELECT CAST(pg_current_xact_id() AS text), ({LOW_WATER})"  # of PostgreSQL, before PREPARE
ADVISORY = "SELECT count(*) FROM pg_locks WHERE pid = pg_backend_pid() AND locktype = 'advisory'"
SEAL = (
    f"UPDATE {TABLE} SET state = ?, op = ?, epoch = ?, reply = ? WHERE gid = ? AND branch = ? AND state = ?"
)
KEEP_EPOCH = f"UPDATE {TABLE} SET epoch = ? WHERE gid = ? AND branch = ?"
SAME = " AND CAST(pg_current_xact_id() AS text) = ?"
SAVEPOINT = "SAVEPOINT unisono_branch"
RELEASE = "RELEASE SAVEPOINT unisono_branch"

# What no retry of a coordinator can need any more. A try without confirm or cancel is kept whatever its age:
# without it a late cancel would be taken for one that came before its try.
_OVER = """(state IN ('finished', 'undone', 'fenced', 'refused')
    OR (state = 'done' AND op IN ('action', 'prepare', 'msg')))"""

_COLUMNS = "(gid, branch, op, state, epoch, reply, created)"
_VALUES = "VALUES (?, ?, ?, ?, ?, ?, ?)"

POSTGRESQL = Dialect(
    name="postgresql",
    begin=(
        "BEGIN ISOLATION LEVEL READ COMMITTED",
        "SELECT set_config('lock_timeout', '{lock_ms}', true),"
        " set_config('statement_timeout', '{statement_ms}', true)",
    ),
    create=(
        f"""CREATE TABLE IF NOT EXISTS {TABLE} (
    gid varchar(100) NOT NULL,
    branch varchar(64) NOT NULL,
    op varchar(16) NOT NULL,
    state varchar(16) NOT NULL,
    epoch bigint NOT NULL,
    reply text,
    created bigint NOT NULL,
    PRIMARY KEY (gid, branch)
)""",
        f"CREATE INDEX IF NOT EXISTS {TABLE}_created ON {TABLE} (created)",
    ),
    # CREATE INDEX IF NOT EXISTS waits for all that write to the table, also for what is prepared: who
    # makes the table at its start would wait for branches that it has to finish itself.
    is_made=f"SELECT to_regclass('{TABLE}_created') IS NOT NULL",
    insert=f"INSERT INTO {TABLE} {_COLUMNS} {_VALUES} ON CONFLICT DO NOTHING"
    " RETURNING CAST(pg_current_xact_id() AS text)",
    select=f"SELECT state, epoch, reply, op, CAST(pg_current_xact_id() AS text) FROM {TABLE}"
    " WHERE gid = ? AND branch = ? FOR UPDATE",
    insert_gives_mark=True,
    savepoint=False,
    raise_mark=f"INSERT INTO {TABLE} {_COLUMNS} VALUES ('', '', 'mark', 'mark', ?, NULL, ?)"
    f" ON CONFLICT (gid, branch) DO UPDATE SET epoch = greatest({TABLE}.epoch, excluded.epoch)",
    purge=f"""DELETE FROM {TABLE} WHERE ctid = ANY (ARRAY(SELECT ctid FROM {TABLE}
    WHERE created < ? AND gid <> '' AND {_OVER} LIMIT 1000 FOR UPDATE SKIP LOCKED))""",
    codes={
        "55P03": Why.BUSY,  # lock_timeout
        "57014": Why.BUSY,  # statement_timeout
        "55006": Why.BUSY,
        "40001": Why.AGAIN,
        "40P01": Why.AGAIN,
        "42P01": Why.NO_FENCE,
    },
)

# ascii_bin because MySQL compares without regard to case otherwise: "t1" and "T1" would be one transaction.
MYSQL = Dialect(
    name="mysql",
    begin=(
        "SET SESSION innodb_lock_wait_timeout = {lock_s}",
        "SET TRANSACTION ISOLATION LEVEL READ COMMITTED",
        "START TRANSACTION",
    ),
    create=(
        f"""CREATE TABLE IF NOT EXISTS {TABLE} (
    gid varchar(100) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    branch varchar(64) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    op varchar(16) NOT NULL,
    state varchar(16) NOT NULL,
    epoch bigint NOT NULL,
    reply mediumtext CHARACTER SET utf8mb4,
    created bigint NOT NULL,
    PRIMARY KEY (gid, branch),
    INDEX {TABLE}_created (created)
) ENGINE=InnoDB""",
    ),
    insert=f"INSERT IGNORE INTO {TABLE} {_COLUMNS} {_VALUES}",
    select=f"SELECT state, epoch, reply, op FROM {TABLE} WHERE gid = ? AND branch = ? FOR UPDATE",
    insert_gives_mark=False,
    savepoint=True,
    raise_mark=f"INSERT INTO {TABLE} {_COLUMNS} VALUES ('', '', 'mark', 'mark', ?, NULL, ?)"
    " ON DUPLICATE KEY UPDATE epoch = greatest(epoch, VALUES(epoch))",
    purge=f"DELETE FROM {TABLE} WHERE created < ? AND gid <> '' AND {_OVER} LIMIT 1000",
    codes={
        "1205": Why.BUSY,  # lock wait timeout
        "3572": Why.BUSY,
        "1969": Why.BUSY,  # max_statement_time
        "3024": Why.BUSY,
        "1213": Why.AGAIN,  # deadlock: duplicates share the row's lock before they want it alone
        "1020": Why.AGAIN,
        "1146": Why.NO_FENCE,
        "1053": Why.LOST,
        "2006": Why.LOST,
        "2013": Why.LOST,
        "2014": Why.LOST,
        "1927": Why.LOST,
        "0": Why.LOST,  # a client's word for a connection that is closed
    },
)

SQLITE = Dialect(
    name="sqlite",
    begin=("PRAGMA busy_timeout = {lock_ms}", "BEGIN IMMEDIATE"),
    create=(
        f"""CREATE TABLE IF NOT EXISTS {TABLE} (
    gid TEXT NOT NULL,
    branch TEXT NOT NULL,
    op TEXT NOT NULL,
    state TEXT NOT NULL,
    epoch INTEGER NOT NULL,
    reply TEXT,
    created INTEGER NOT NULL,
    PRIMARY KEY (gid, branch)
) WITHOUT ROWID""",
        f"CREATE INDEX IF NOT EXISTS {TABLE}_created ON {TABLE} (created)",
    ),
    insert=f"INSERT INTO {TABLE} {_COLUMNS} {_VALUES} ON CONFLICT DO NOTHING",
    select=f"SELECT state, epoch, reply, op FROM {TABLE} WHERE gid = ? AND branch = ?",
    insert_gives_mark=False,
    savepoint=True,
    raise_mark=f"INSERT INTO {TABLE} {_COLUMNS} VALUES ('', '', 'mark', 'mark', ?, NULL, ?)"
    " ON CONFLICT (gid, branch) DO UPDATE SET epoch = max(epoch, excluded.epoch)",
    purge=f"""DELETE FROM {TABLE} WHERE (gid, branch) IN (SELECT gid, branch FROM {TABLE}
    WHERE created < ? AND gid <> '' AND {_OVER} LIMIT 1000)""",
    codes={
        "SQLITE_BUSY": Why.BUSY,
        "SQLITE_BUSY_SNAPSHOT": Why.AGAIN,
        "SQLITE_BUSY_TIMEOUT": Why.BUSY,
        "SQLITE_LOCKED": Why.BUSY,
        "SQLITE_LOCKED_SHAREDCACHE": Why.BUSY,
        "SQLITE_IOERR": Why.LOST,
        "SQLITE_FULL": Why.LOST,
    },
)


DIALECTS = {one.name: one for one in (POSTGRESQL, MYSQL, SQLITE)}


def begin(dialect: Dialect, lock_ms: int, statement_ms: int) -> list[str]:
    """The statements that begin a transaction."""
    values = {"lock_ms": lock_ms, "lock_s": max(1, lock_ms // 1000), "statement_ms": statement_ms}
    return [statement.format(**values) for statement in dialect.begin]


def why(dialect: Dialect, state: str, message: str) -> Why:
    """Why a statement failed, from the engine's code; in doubt it is LOST, never "did not happen"."""
    known = dialect.codes.get(state)
    if known is not None:
        return known
    if dialect.name == "sqlite":
        if state == "SQLITE_ERROR" and f"no such table: {TABLE}" in message:
            return Why.NO_FENCE
        return Why.LOST if state.startswith("SQLITE_IOERR") else Why.OTHER
    # 08 connection, 53 resources, 57 intervention (57P01: shut down), 58 system, XX internal: pgjdbc 4438.
    if dialect.name == "postgresql" and state[:2] in ("08", "53", "57", "58", "XX", ""):
        return Why.LOST
    return Why.OTHER
