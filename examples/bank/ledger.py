"""How a bank moves money in its own database: the same for PostgreSQL and SQLite."""

from typing import Any

from unisono.client.participant import Refused

TABLE = """CREATE TABLE IF NOT EXISTS account (
    id integer PRIMARY KEY,
    balance bigint NOT NULL CHECK (balance >= 0),
    held bigint NOT NULL CHECK (held >= 0)
)"""


class Ledger:
    """Statements with the marker of the database's library."""

    def __init__(self, marker: str) -> None:
        self._marker = marker

    def add(self, tx: Any, entry: dict[str, int]) -> None:
        """Move ``amount`` onto the account, or off it where it is negative."""
        self._change(tx, "balance = balance + ?", "balance - held + ? >= 0", entry["amount"], entry)

    def take_back(self, tx: Any, entry: dict[str, int]) -> None:
        """Undo :meth:`add`."""
        self._change(tx, "balance = balance - ?", "balance >= ?", entry["amount"], entry)

    def hold(self, tx: Any, entry: dict[str, int]) -> None:
        """Set what is to be taken aside, so that nobody else can spend it."""
        self._change(tx, "held = held + ?", "balance - held >= ?", max(0, -entry["amount"]), entry)

    def settle(self, tx: Any, entry: dict[str, int]) -> None:
        """Take what was set aside, or put what comes in."""
        self.release(tx, entry)
        self._change(tx, "balance = balance + ?", "balance + ? >= 0", entry["amount"], entry)

    def release(self, tx: Any, entry: dict[str, int]) -> None:
        """Give back what was set aside."""
        self._change(tx, "held = held - ?", "held >= ?", max(0, -entry["amount"]), entry)

    def _change(self, tx: Any, change: str, condition: str, amount: int, entry: dict[str, int]) -> None:
        sql = f"UPDATE account SET {change} WHERE id = ? AND {condition}".replace("?", self._marker)
        if tx.execute(sql, (amount, entry["account"], amount)).rowcount != 1:
            raise Refused(
                f"account {entry['account']} does not cover {abs(entry['amount'])}", code="insufficient"
            )
