"""
What lies in the store's file, and how one is made, recognised and opened.

One table holds every change, in the order in which it happened. A row names the row that it replaced, and
bears a checksum over all the rest of it.

Durability: WAL with synchronous=FULL, that is one fsync of the log for each commit, before it returns
(https://sqlite.org/pragma.html#pragma_synchronous). Exclusive locking keeps every other process out.
"""

from __future__ import annotations

import os
import sqlite3
import zlib
from pathlib import Path

from unisono.store.base import Broken
from unisono.store.sqlite.entries import Change

FORMAT = 1
_APPLICATION_ID = 0x556E6973  # "Unis", so that no other program's database is taken for ours
_WAL_BYTES_KEPT = 16 * 1024 * 1024  # a log that grew beyond it is cut once its content is in the file
_BUSY_TIMEOUT = 1.0  # seconds: a predecessor that was killed may still be on its way out


_SCHEMA = """
CREATE TABLE change (
  id INTEGER PRIMARY KEY,     -- the order of all changes; never used again
  revision INTEGER NOT NULL,  -- never falls from row to row
  previous INTEGER,           -- id of the entry replaced or removed; NULL if there was none
  key TEXT NOT NULL,
  created INTEGER,            -- revision that made the key; NULL when the key was removed
  lease INTEGER,
  checksum INTEGER NOT NULL,  -- CRC-32 of all the rest
  value BLOB                  -- NULL when the key was removed
);
CREATE TABLE lease (id INTEGER PRIMARY KEY, ttl REAL NOT NULL);
CREATE TABLE mark (           -- a single row
  compacted INTEGER NOT NULL, -- oldest revision still there
  swept INTEGER NOT NULL,     -- id up to which compaction has deleted
  lease INTEGER NOT NULL      -- last id given to a lease
);
INSERT INTO mark VALUES (0, 0, 0);
"""

COLUMNS = 8
INSERTS = {
    count: "INSERT INTO change VALUES " + ", ".join([f"({', '.join('?' * COLUMNS)})"] * count)  # noqa: S608
    for count in (64, 16, 4, 1)
}
"""How to insert so many changes at once; few statements, so that all stay prepared."""


def connect(path: Path) -> sqlite3.Connection:
    """
    Open the file, making it if it does not exist; every statement is a transaction until one is begun.

    Raises:
        Broken: It can't be opened, is in use, damaged, of a newer format, or not a store's.
    """
    try:
        _create(path)
        db = sqlite3.connect(path, timeout=_BUSY_TIMEOUT, isolation_level=None)
    except (OSError, sqlite3.Error) as error:
        raise Broken(f"{path} can't be opened: {error}") from error
    try:
        _prepare(db, path)
    except sqlite3.Error as error:
        db.close()
        raise Broken(_why_not_opened(path, error)) from error
    except BaseException:
        db.close()
        raise
    return db


def row_of(change: Change) -> tuple[int | str | bytes | None, ...]:
    """The columns of the row that keeps a change."""
    created = lease = value = None
    if change.entry is not None:
        created, lease, value = change.entry.created, change.entry.lease, change.entry.value
    columns = (change.row, change.revision, change.previous, change.key, created, lease)
    return (*columns, checksum_of(columns, value), value)


def checksum_of(columns: tuple[int | str | None, ...], value: bytes | None) -> int:
    """CRC-32 of a row, without the checksum itself: columns before it, then the value."""
    # ascii(), for what repr() makes of a character depends on the version of Python's Unicode tables.
    return zlib.crc32(value or b"", zlib.crc32(ascii(columns).encode()))


def damaged(path: Path, what: str) -> str:
    """What to say of a file in which something is wrong."""
    return f"{path} is damaged ({what}): restore a copy of it, or move it away to start empty"


def _create(path: Path) -> None:
    """Make an empty file that only its owner may read, and make its name durable."""
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    except FileExistsError:
        return
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _prepare(db: sqlite3.Connection, path: Path) -> None:
    db.execute("PRAGMA locking_mode = EXCLUSIVE")
    _check_format(db, path)
    (mode,) = db.execute("PRAGMA journal_mode = WAL").fetchone()
    if mode != "wal":
        raise Broken(f"{path}: SQLite can't keep a write-ahead log there, only {mode!r}")
    db.execute("PRAGMA synchronous = FULL")
    db.execute(f"PRAGMA journal_size_limit = {_WAL_BYTES_KEPT}")
    if db.execute("PRAGMA user_version").fetchone() == (0,):
        db.executescript(
            f"BEGIN IMMEDIATE; {_SCHEMA}"
            f"PRAGMA application_id = {_APPLICATION_ID}; PRAGMA user_version = {FORMAT}; COMMIT;"
        )
    # A predecessor killed between write and fsync leaves commits in the log that nobody was told
    # of and that no fsync covers, yet SQLite takes them for committed. Whoever reads them now
    # must find them after a power loss, so bring them to disk before anyone can.
    db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()


def _check_format(db: sqlite3.Connection, path: Path) -> None:
    (found,) = db.execute("PRAGMA user_version").fetchone()
    (owner,) = db.execute("PRAGMA application_id").fetchone()
    (tables,) = db.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    if owner != _APPLICATION_ID and (tables or found):
        raise Broken(f"{path} is a database, but not a unisono store: give another path")
    if found > FORMAT:
        raise Broken(
            f"{path} has format {found}, this version of unisono knows formats up to {FORMAT}:"
            " start the newer version"
        )


def _why_not_opened(path: Path, error: sqlite3.Error) -> str:
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF  # the primary code
    if code == sqlite3.SQLITE_BUSY:
        return f"{path} is in use by another process: stop that one, or give another path"
    if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return damaged(path, str(error))
    if code == sqlite3.SQLITE_FULL:
        return f"{path} can't be opened: its disk is full; free space"
    return f"{path} can't be opened: {error}"
