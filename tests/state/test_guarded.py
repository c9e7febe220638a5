"""Transactions under guards: a fence or a request id changes when they happen, never what they do."""

from __future__ import annotations

import random

import pytest

from tests.state.virtual import VirtualStore, now
from unisono.state.kv import Kv
from unisono.state.locks import Locks
from unisono.state.tokens import Tokens
from unisono.store.base import Compare, Delete, Entry, Field, Put, Store

KEYS = ("a", "b", "c")
VALUES = (b"", b"1", b"2")
ABSENT = Entry(key="", value=b"", created=0, modified=0, lease=None)


def make(store: Store, namespace: str) -> Kv:
    return Kv(store, namespace, Tokens(b"secret" * 4), clock=now)


async def compare(kv: Kv, key: str, field: Field, *, fits: bool, value: bytes) -> Compare:
    """A condition that holds, or one about a revision or a value that the key does not have."""
    entry = (await kv.get(key)).entry or ABSENT
    if field is Field.VALUE:
        return Compare(key=key, field=field, target=entry.value if fits else value)
    right, other = entry.created, entry.modified
    if field is Field.MODIFIED:
        right, other = other, right
    wrong = other if other != right else right + 1
    return Compare(key=key, field=field, target=right if fits else wrong)


async def contents(kv: Kv) -> dict[str, bytes]:
    return {entry.key: entry.value for entry in (await kv.scan()).entries}


def operation(chance: random.Random) -> Put | Delete:
    key = chance.choice(KEYS)
    return Put(key=key, value=chance.choice(VALUES)) if chance.random() < 0.7 else Delete(key=key)


@pytest.mark.parametrize("guard", ["fence", "request id", "both"])
async def test_a_guard_changes_nothing_of_what_a_transaction_does(store: VirtualStore, guard: str) -> None:
    """Beside an unguarded one: the same list is done, whatever is compared, and the same is left behind."""
    chance = random.Random(guard)
    plain, guarded = make(store, "plain"), make(store, "guarded")
    outcomes = set()
    async with Locks(store, "guarded", clock=now).lock("l") as held:
        for number in range(150):
            conditions = [
                (
                    chance.choice(KEYS),
                    chance.choice(list(Field)),
                    chance.random() < 0.7,
                    chance.choice(VALUES),
                )
                for _ in range(chance.randint(1, 3))
            ]
            success, failure = [
                {op.key: op for op in (operation(chance), operation(chance))} for _ in range(2)
            ]

            done = [
                await kv.transact(
                    compares=[
                        await compare(kv, key, field, fits=fits, value=value)
                        for key, field, fits, value in conditions
                    ],
                    success=list(success.values()),
                    failure=list(failure.values()),
                    request_id=f"r{number}" if kv is guarded and guard != "fence" else None,
                    fences=[held.fence] if kv is guarded and guard != "request id" else [],
                )
                for kv in (plain, guarded)
            ]

            assert done[0].succeeded == done[1].succeeded, conditions
            assert await contents(plain) == await contents(guarded)
            outcomes.add(done[0].succeeded)
    assert outcomes == {True, False}
