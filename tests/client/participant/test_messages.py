"""A message is sent exactly if the transaction of its sender committed, on every database and library."""

from __future__ import annotations

import time
from typing import Any

import pytest

from tests.client.participant.worlds import Caller, World
from unisono.client import participant
from unisono.client.participant.drivers import is_async
from unisono.client.participant.steps import Begin


@pytest.mark.parametrize("first", ["commit", "question", "rollback"])
async def test_a_message_is_sent_exactly_if_the_own_transaction_committed(world: World, first: str) -> None:
    """Whoever inserts the row first, the transaction or the question, decides; the answer never changes."""
    messages = participant.Messages(world.database)
    app = Caller(messages)  # type: ignore[arg-type] # an ASGI application as well
    ask = {"branch": "00", "Transaction-Mode": "msg"}

    if first == "question":
        await app("query_prepared", **ask)  # type: ignore[arg-type]
    recorded = await _own_transaction(messages, keep=first != "rollback")
    answers = [await app("query_prepared", **ask) for _ in range(2)]  # type: ignore[arg-type]

    assert (first != "question") is recorded
    assert [204 if first == "commit" else 409] * 2 == [answer.status_code for answer in answers]


async def test_a_message_whose_row_was_purged_is_not_said_to_have_failed(world: World) -> None:
    """Nobody knows any more: neither yes nor no, and the row that would refuse the commit is not written."""
    messages = participant.Messages(world.database)
    app = Caller(messages)  # type: ignore[arg-type] # an ASGI application as well
    await _own_transaction(messages, keep=True)
    world.age()
    await world.purge()
    began = str(int((time.time() - 50 * 86_400) * 1000))

    answer = await app("query_prepared", branch="00", Transaction_Mode="msg", Transaction_Began=began)

    assert 500 == answer.status_code
    assert "purged" in answer.json()["detail"]


async def _own_transaction(messages: participant.Messages, *, keep: bool) -> bool:
    """Record a message in a transaction of one's own; whether it could be."""
    driver: Any = messages.driver
    begin = Begin(lock_ms=1000, statement_ms=10_000)
    try:
        if is_async(driver):
            async with driver.session() as session:
                await session.begin(begin)
                await messages.record(session.handle, "t1")
                await session.end(keep=keep)
        else:
            with driver.session() as session:
                session.begin(begin)
                messages.record_sync(session.handle, "t1")
                session.end(keep=keep)
    except participant.Refused:
        return False
    return True
