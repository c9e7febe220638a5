"""One bank: takes part in transfers as saga and TCC, and with PostgreSQL as XA."""

import os
from typing import Any

from fastapi import FastAPI
from ledger import Ledger

from unisono.client import participant

DATABASE = os.environ["BANK_DATABASE"]

database: Any
if DATABASE.startswith("postgresql:"):
    from psycopg_pool import ConnectionPool

    database = ConnectionPool(DATABASE, min_size=1, max_size=8, open=True)
    ledger = Ledger("%s")
else:
    database = DATABASE  # the path of a SQLite file
    ledger = Ledger("?")

app = FastAPI(title="bank")


@app.get("/healthz")
def healthz() -> dict[str, str]:
    return {"status": "ok"}


@participant.saga(database)
class Saga:
    """Moves the money at once, and back if the transfer fails elsewhere."""

    def action(self, tx: Any, entry: dict[str, int]) -> None:
        ledger.add(tx, entry)

    def compensate(self, tx: Any, entry: dict[str, int]) -> None:
        ledger.take_back(tx, entry)


@participant.tcc(database)
class Tcc:
    """Sets the money aside, and moves it when all have done so."""

    def try_(self, tx: Any, entry: dict[str, int]) -> None:
        ledger.hold(tx, entry)

    def confirm(self, tx: Any, entry: dict[str, int]) -> None:
        ledger.settle(tx, entry)

    def cancel(self, tx: Any, entry: dict[str, int]) -> None:
        ledger.release(tx, entry)


app.mount("/saga", Saga)
app.mount("/tcc", Tcc)

if DATABASE.startswith("postgresql:"):

    @participant.xa(database)
    def xa(tx: Any, entry: dict[str, int]) -> None:
        """Moves the money in a transaction that PostgreSQL keeps until the coordinator has decided."""
        ledger.add(tx, entry)

    app.mount("/xa", xa)
