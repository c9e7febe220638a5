"""The bank of examples/ with a real node and real databases, at rest and under crashes."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.system.bank import BALANCE, Bank, Transfer, opened, schedule, settle

pytestmark = pytest.mark.system


@pytest.fixture(scope="module")
def bank(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bank]:
    """One bank for all tests, because it takes seconds to open."""
    with opened(tmp_path_factory.mktemp("bank")) as found:
        yield found


@pytest.mark.parametrize(
    ("mode", "payer", "payee"),
    [("saga", "north", "village"), ("tcc", "village", "south"), ("xa", "north", "south")],
)
def test_a_transfer_is_made_on_both_sides(bank: Bank, mode: str, payer: str, payee: str) -> None:
    """In each mode, across PostgreSQL and SQLite."""
    before = bank.balances()

    answer = bank.transfer(Transfer(f"both-{mode}", mode, (payer, 1), (payee, 2), 10))

    assert answer is not None
    assert 201 == answer.status_code, answer.text
    settle(bank, 0)
    after = bank.balances()
    changed = {
        account: after[account] - before[account] for account in after if after[account] != before[account]
    }
    assert {(payer, 1): -10, (payee, 2): 10} == changed


@pytest.mark.parametrize(("mode", "payee"), [("saga", "village"), ("tcc", "village"), ("xa", "south")])
def test_a_transfer_that_a_bank_refuses_is_made_on_neither_side(bank: Bank, mode: str, payee: str) -> None:
    """The payer's bank says no, whatever the payee's has done by then."""
    before = bank.balances()

    answer = bank.transfer(Transfer(f"none-{mode}", mode, ("north", 3), (payee, 3), 100 * BALANCE))

    assert answer is not None
    assert 409 == answer.status_code, answer.text
    assert "does not cover" in answer.text
    settle(bank, 0)
    assert before == bank.balances()


def test_xa_with_a_bank_that_has_none_is_refused_at_once(bank: Bank) -> None:
    """A participant that can't answer would hold the transaction until its deadline."""
    answer = bank.transfer(Transfer("xa-village", "xa", ("north", 1), ("village", 1), 1))

    assert answer is not None
    assert (422, "aborted") == (answer.status_code, bank.status("xa-village")), answer.text


@pytest.mark.parametrize("seed", [1, 2])
def test_whatever_is_killed_transfers_end_on_both_sides_or_on_none(bank: Bank, seed: int) -> None:
    """Node, banks, initiator, database: `python -m tests.system.bank` runs a hundred of these."""
    seen = schedule(bank, seed)

    assert 24 == seen["committed"] + seen["aborted"]
