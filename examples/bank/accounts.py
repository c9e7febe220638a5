"""
Makes the databases' tables and accounts; with ``sum`` it prints what is in them instead.

    python accounts.py          ten accounts of 1000 at each bank, unless they are there
    python accounts.py sum      each bank's sum, what is set aside, what is prepared, and the total
"""

import os
import sqlite3
import sys
from typing import Any

import psycopg
from ledger import TABLE

from unisono.client import participant

ACCOUNTS = 10
BALANCE = 1000
BANKS = {
    "north": os.environ.get("NORTH", "postgresql:///north"),
    "south": os.environ.get("SOUTH", "postgresql:///south"),
    "village": os.environ.get("VILLAGE", "village.db"),
}


def connect(database: str) -> Any:
    """A connection in autocommit."""
    if database.startswith("postgresql:"):
        return psycopg.connect(database, autocommit=True)
    return sqlite3.connect(database, isolation_level=None, timeout=30)


def make(database: str) -> None:
    """The tables and accounts of one bank, unless they are there."""
    connection = connect(database)
    connection.execute(TABLE)
    if connection.execute("SELECT count(*) FROM account").fetchone()[0] == 0:
        for number in range(1, ACCOUNTS + 1):
            connection.execute(f"INSERT INTO account VALUES ({number}, {BALANCE}, 0)")
    connection.close()
    if database.startswith("postgresql:"):
        participant.create_fence(
            participant.connections(lambda: psycopg.connect(database), dialect="postgresql")
        )
    else:
        participant.create_fence(database)


def summed(database: str) -> tuple[int, int, int]:
    """What one bank has, what of it is set aside, and how many transactions are prepared."""
    connection = connect(database)
    balance, held = connection.execute("SELECT sum(balance), sum(held) FROM account").fetchone()
    prepared = 0
    if database.startswith("postgresql:"):
        found = connection.execute(
            "SELECT count(*) FROM pg_prepared_xacts WHERE database = current_database()"
        )
        prepared = found.fetchone()[0]
    connection.close()
    return int(balance), int(held), prepared


if __name__ == "__main__":
    if sys.argv[1:] == ["sum"]:
        total = 0
        for bank, database in BANKS.items():
            balance, held, prepared = summed(database)
            total += balance
            print(f"{bank:8} {balance:6}  set aside {held}  prepared {prepared}")
        print(f"{'total':8} {total:6}")
    else:
        for database in BANKS.values():
            make(database)
