"""
What an initiator learns when its node is killed under a commit (traps 2 and 4), with real processes.

A commit request is not written down, its decision is. So before the decision the transaction is open again
once its node is back, after it the decision stands; in both cases the same request may be made again, and
the client does so until there is an answer.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.client.nodes import NodeProcess
from tests.databases import LIMIT
from tests.transactions.participants import Asked, Party, Says, serving
from unisono import client
from unisono.client import transactions
from unisono.client.asking import Asking
from unisono.client.questions import Ask, Node


@dataclass
class Case:
    """A node, a participant that holds one operation back, and a connection to look with."""

    node: NodeProcess
    party: Party
    asking: Asking
    go_on: asyncio.Event = field(default_factory=asyncio.Event)

    def hold(self, op: str) -> None:
        """Answer this operation only once told."""

        async def script(asked: Asked) -> Says:
            if asked.op == op:
                await self.go_on.wait()
            return Says()

        self.party.script = script

    async def enrol(self, gid: str) -> None:
        """A branch whose try is not waited for."""
        body = {"id": "a", "url": f"{self.party.url}/a", "wait_ms": 0}
        await self.asking.ask(Ask(method="POST", path=f"/v1/transactions/{gid}/branches", body=body))

    async def status(self, gid: str, wait_ms: int = 0) -> str:
        """As the node tells it."""
        query = (("wait_ms", str(wait_ms)),)
        told = await self.asking.ask(
            Ask(method="GET", path=f"/v1/transactions/{gid}", query=query, wait=wait_ms / 1000)
        )
        return str(told.content["status"])

    async def until_status(self, gid: str, wanted: str) -> None:
        """Wait until the node tells this status."""
        await _until(lambda: self.status(gid), wanted)

    async def restart(self) -> None:
        """``kill -9``, and another node on the same folder."""
        await asyncio.to_thread(self.node.kill)
        await asyncio.to_thread(self.node.start)


@pytest.fixture
async def case(own_node: NodeProcess) -> AsyncIterator[Case]:
    """A fresh one."""
    async with serving() as party:
        asking = Asking(Node.at(own_node.api, namespace="shop"))
        yield Case(own_node, party, asking)
        asking.close()


@pytest.mark.parametrize(("held", "standing"), [("try", "preparing"), ("confirm", "committing")])
async def test_a_commit_whose_node_dies_is_repeated_until_it_is_known(
    case: Case, held: str, standing: str
) -> None:
    """Before the decision the repeated request makes it, after it finds it; a further one changes nothing."""
    case.hold(held)

    async def initiate() -> str:
        async with client.transaction("tcc", gid="g", **case.node.where) as t:
            await case.enrol("g")
        return t.status

    initiating = asyncio.create_task(initiate())
    await case.until_status("g", standing)
    await case.restart()
    case.go_on.set()
    told = await asyncio.wait_for(initiating, LIMIT)
    again = await case.asking.ask(Ask(method="POST", path="/v1/transactions/g:commit", wait=30))
    other = await case.asking.ask(Ask(method="POST", path="/v1/transactions/g:abort", wait=30))

    assert told in ("committing", "committed")
    assert (200, "committed") == (again.status, again.content["status"])
    assert (409, "committed") == (other.status, other.content["code"])
    assert not any(op == "cancel" for _, op in case.party.ops())


async def test_a_commit_that_nobody_can_answer_is_in_doubt_and_ends_by_its_deadline(
    case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody decided, and the initiator has given up: the deadline aborts, and the gid tells so later."""
    monkeypatch.setattr(transactions, "GRACE", 0.0)
    case.hold("try")

    async def initiate() -> None:
        async with client.transaction("tcc", gid="g", timeout=3, **case.node.where):
            await case.enrol("g")

    initiating = asyncio.create_task(initiate())
    await case.until_status("g", "preparing")
    await asyncio.to_thread(case.node.kill)
    with pytest.raises(client.InDoubt) as caught:
        await asyncio.wait_for(initiating, LIMIT)
    await asyncio.to_thread(case.node.start)
    case.go_on.set()

    assert "g" == caught.value.gid
    assert "aborted" == await case.status("g", wait_ms=30_000)
    assert ("a", "cancel") in case.party.ops()
    assert not any(op == "confirm" for _, op in case.party.ops())


async def _until(ask: Callable[[], Any], wanted: str) -> None:
    end = time.monotonic() + LIMIT
    while (found := await ask()) != wanted:
        assert time.monotonic() < end, found
        await asyncio.sleep(0.01)
