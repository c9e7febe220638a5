"""
Initiators against a real node and real participants, with asyncio and without.

Participants on SQLite behind a server in this process.
"""

from __future__ import annotations

import asyncio
import sqlite3
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.routing import Mount

from tests.client.nodes import NodeProcess
from tests.databases import LIMIT, wait_for
from tests.ports import free_port
from unisono import client
from unisono.client import participant
from unisono.client.asking import Asking
from unisono.client.questions import Ask, Node, Told
from unisono.client.transactions import Plan, new_gid


class Site:
    """A node, and participants that note what was asked of them."""

    def __init__(self, folder: Path, node: NodeProcess) -> None:
        self.api = node.api
        self.where = node.where  # the arguments that name the node
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.file = folder / "fence.db"
        self.calls: list[tuple[str, str, str]] = []  # gid, branch, op

    def ops(self, gid: str) -> list[str]:
        """What was asked of the branches of a transaction."""
        return [f"{branch} {op}" for found, branch, op in self.calls if found == gid]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, node: NodeProcess) -> Iterator[Site]:
    """The site of all tests here."""
    folder = tmp_path_factory.mktemp("initiators")
    found = Site(folder, node)
    server = uvicorn.Server(
        uvicorn.Config(_participants(found, folder), port=found.port, log_level="warning")
    )
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        wait_for(lambda: server.started, "the participants", lambda: "")
        yield found
    finally:
        server.should_exit = True
        thread.join()


def _participants(site: Site, folder: Path) -> Starlette:
    file = site.file
    participant.create_fence(file)

    def note(tx: Any, payload: Any) -> Any:
        call = participant.current_call()
        site.calls.append((call.gid, call.branch, call.op))
        asked = payload or {}
        if call.op in ("try", "action") and "refuse" in asked:
            raise participant.Refused(asked["refuse"], code="insufficient")
        if call.op in ("try", "action"):
            time.sleep(asked.get("sleep", 0))
        return {"seen": asked}

    methods = {name: staticmethod(note) for name in ("try_", "confirm", "cancel", "action", "compensate")}
    code = type("Noted", (), methods)
    mounts = [
        Mount("/tcc", participant.tcc(file)(code)),
        Mount("/saga", participant.saga(file)(code)),
        Mount("/asked", participant.Messages(file)),
    ]
    return Starlette(routes=mounts)


async def test_leaving_the_block_commits(site: Site) -> None:
    """Branches are called at once, answer what they returned, and are confirmed."""
    async with client.transaction("tcc", **site.where) as t:
        replies = await asyncio.gather(*(t.call(f"{site.url}/tcc", {"n": n}, id=f"x{n}") for n in range(3)))

    assert [{"seen": {"n": n}} for n in range(3)] == replies
    assert {f"x{n} {op}" for n in range(3) for op in ("try", "confirm")} == set(site.ops(t.gid))


async def test_an_exception_aborts_and_goes_on(site: Site) -> None:
    """What was tried is cancelled."""
    with pytest.raises(KeyError, match="mine"):
        async with client.transaction("tcc", **site.where) as t:
            await t.call(f"{site.url}/tcc")
            raise KeyError("mine")

    await _until(lambda: site.ops(t.gid) == ["b1 try", "b1 cancel"])


async def test_a_branch_that_refuses_aborts_all(site: Site) -> None:
    """The caller gets to see which one and why."""
    with pytest.raises(client.BranchRefused) as caught:
        async with client.transaction("tcc", **site.where) as t:
            await t.call(f"{site.url}/tcc", id="stock")
            await t.call(f"{site.url}/tcc", {"refuse": "no money"}, id="pay")

    assert ("pay", "insufficient", "no money") == (
        caught.value.branch,
        caught.value.problem["code"],
        caught.value.problem["detail"],
    )
    await _until(lambda: "stock cancel" in site.ops(t.gid))


async def test_time_that_is_up_aborts(site: Site) -> None:
    """A commit that comes too late is told so: it did not happen."""
    with pytest.raises(client.Aborted):
        async with client.transaction("tcc", timeout=0.3, **site.where) as t:
            await t.call(f"{site.url}/tcc")
            await asyncio.sleep(0.6)

    await _until(lambda: site.ops(t.gid) == ["b1 try", "b1 cancel"])


async def test_a_cancelled_block_aborts(site: Site) -> None:
    """Cancelling the task leaves nothing tried."""
    entered = asyncio.Event()
    gid = new_gid()

    async def work() -> None:
        async with client.transaction("tcc", gid=gid, **site.where) as t:
            await t.call(f"{site.url}/tcc")
            entered.set()
            await asyncio.sleep(60)

    task = asyncio.create_task(work())
    await entered.wait()
    task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await task
    await _until(lambda: site.ops(gid) == ["b1 try", "b1 cancel"])


async def test_a_saga_is_submitted_whole(site: Site) -> None:
    """In order where branches say so; the replies are told."""
    gid = new_gid()
    branches = [
        client.Branch(id="first", url=f"{site.url}/saga", payload={"n": 1}),
        client.Branch(id="second", url=f"{site.url}/saga", payload={"n": 2}, after=("first",)),
    ]

    outcome = await client.submit("saga", branches, gid=gid, **site.where)

    assert ("committed", {"first": {"seen": {"n": 1}}, "second": {"seen": {"n": 2}}}) == (
        outcome.status,
        outcome.replies,
    )
    assert ["first action", "second action"] == site.ops(gid)


async def test_a_submitted_saga_that_is_refused_is_undone(site: Site) -> None:
    """Aborted says so, with the reason."""
    gid = new_gid()
    branches = [
        client.Branch(id="one", url=f"{site.url}/saga"),
        client.Branch(id="two", url=f"{site.url}/saga", payload={"refuse": "no"}, after=("one",)),
    ]

    with pytest.raises(client.Aborted):
        await client.submit("saga", branches, gid=gid, **site.where)

    await _until(lambda: "one compensate" in site.ops(gid))


async def test_the_same_gid_again_is_the_same_transaction(site: Site) -> None:
    """After a crash an initiator asks again, and nothing happens twice; another content is refused."""
    gid = new_gid()
    branch = client.Branch(id="one", url=f"{site.url}/saga")

    first = await client.submit("saga", [branch], gid=gid, **site.where)
    second = await client.submit("saga", [branch], gid=gid, **site.where)
    with pytest.raises(client.Refused) as caught:
        await client.submit(
            "saga", [client.Branch(id="other", url=f"{site.url}/saga")], gid=gid, **site.where
        )

    assert first.status == second.status == "committed"
    assert (422, "gid-reused") == (caught.value.status, caught.value.problem["code"])
    assert ["one action"] == site.ops(gid)


def test_without_asyncio_it_is_the_same(site: Site) -> None:
    """client.sync has the same names."""
    with client.sync.transaction("tcc", **site.where) as t:
        reply = t.call(f"{site.url}/tcc", {"n": 1})
    with pytest.raises(client.BranchRefused), client.sync.transaction("tcc", **site.where) as refused:
        refused.call(f"{site.url}/tcc", {"refuse": "no"})
    outcome = client.sync.submit("saga", [client.Branch(url=f"{site.url}/saga")], **site.where)

    assert ({"seen": {"n": 1}}, ["b1 try", "b1 confirm"]) == (reply, site.ops(t.gid))
    assert ("committed", ["b1 action"]) == (outcome.status, site.ops(outcome.gid))


async def test_a_message_goes_out_once_the_own_transaction_has_committed(site: Site) -> None:
    """Leaving the block sends it."""
    branches = [client.Branch(id="mail", url=f"{site.url}/saga", payload={"n": 1})]

    async with client.message(f"{site.url}/asked/back", branches, **site.where) as m:
        _commit_and_record(site, m.gid)

    await _until(lambda: site.ops(m.gid) == ["mail action"])


@pytest.mark.parametrize("committed", [True, False])
async def test_an_initiator_that_dies_is_asked_back(site: Site, committed: bool) -> None:
    """The message goes out if and only if the own transaction committed."""
    branches = [client.Branch(id="mail", url=f"{site.url}/saga")]

    with pytest.raises(KeyError):
        async with client.message(f"{site.url}/asked/back", branches, timeout=0.3, **site.where) as m:
            if committed:
                _commit_and_record(site, m.gid)
            raise KeyError("killed")
    outcome = await _final(site, m.gid)

    assert ("committed" if committed else "aborted", ["mail action"] if committed else []) == (
        outcome,
        site.ops(m.gid),
    )
    if not committed:
        with pytest.raises(participant.Refused, match="too late"):
            _commit_and_record(site, m.gid)


def _commit_and_record(site: Site, gid: str) -> None:
    """A transaction of the initiator's own."""
    with sqlite3.connect(site.file, timeout=30) as connection:
        participant.Messages(site.file).record_sync(connection, gid)


async def _final(site: Site, gid: str) -> str:
    asking = Asking(Node.at(site.api, namespace="shop"))
    told = await asking.ask(
        Ask(method="GET", path=f"/v1/transactions/{gid}", query=(("wait_ms", "30000"),), wait=30)
    )
    asking.close()
    return str(told.content["status"])


async def test_without_a_node_nothing_happened(tmp_path: Path) -> None:
    """NotRunning, and not InDoubt: no request was ever sent."""
    with pytest.raises(client.NotRunning, match=r"no\.sock"):
        async with client.transaction("tcc", api=f"unix:{tmp_path}/no.sock", namespace="shop"):
            pass
    with pytest.raises(client.NotRunning, match="UNISONO_API is not set"):
        Node.of_environment({})


def test_a_commit_without_an_answer_is_in_doubt() -> None:
    """It is asked again until the deadline and a while beyond; then the gid is all that is left."""
    plan = Plan(mode="tcc", timeout=0.01, gid="g1", status="active")
    steps = plan.commit()
    step = next(steps)
    assert isinstance(step, Ask)
    plan._deadline = time.monotonic() - 3600

    with pytest.raises(client.InDoubt, match="g1 is in doubt") as caught:
        steps.throw(client.MaybeDone("cut"))

    assert "g1" == caught.value.gid
    assert isinstance(caught.value, client.MaybeDone)


def test_an_answer_that_got_lost_is_asked_for_again() -> None:
    """A commit may be repeated: the second answer tells what the first did."""
    plan = Plan(mode="tcc", timeout=10, gid="g1", status="active")
    steps = plan.commit()
    first = next(steps)
    steps.throw(client.MaybeDone("cut"))
    again = next(steps)
    view = {"decision": "commit", "status": "committed", "branches": []}

    with pytest.raises(StopIteration) as end:
        steps.send(Told(status=200, content=view, headers={}))

    assert first == again
    assert "committed" == end.value.value.status


@pytest.mark.parametrize("asked", ["submit", "commit"])
def test_nobody_waits_beyond_the_deadline_for_what_cant_be_undone(asked: str) -> None:
    """By then it is decided, though a dead participant is told for as long as it takes."""
    plan = Plan(mode="tcc", timeout=0.5, gid="g1", status="active")
    steps = plan.submit([]) if asked == "submit" else plan.commit()
    first = next(steps)
    undecided = {"decision": None, "status": "preparing"}
    look = steps.send(Told(status=202, content=undecided, headers={}))
    plan._deadline = time.monotonic() - 1
    later = steps.send(Told(status=200, content=undecided, headers={}))

    assert isinstance(first, Ask)
    assert isinstance(look, Ask)
    assert isinstance(later, Ask)
    assert all(0 < ask.wait <= 0.5 for ask in (first, look, later))
    with pytest.raises(client.Aborted):
        steps.send(Told(status=200, content={"decision": "abort", "status": "aborting"}, headers={}))


def test_a_commit_at_a_node_that_was_taken_over_from_is_looked_up() -> None:
    """The node that has it now may have been told to commit, so it did not just not happen."""
    plan = Plan(mode="tcc", timeout=10, gid="g1", status="active")
    steps = plan.commit()
    next(steps)
    look = steps.send(Told(status=421, content={"code": "elsewhere"}, headers={}))

    with pytest.raises(StopIteration) as end:
        steps.send(Told(status=200, content=_committed(), headers={}))

    assert isinstance(look, Ask)
    assert ("GET", "/v1/transactions/g1") == (look.method, look.path)
    assert "committed" == end.value.value.status


def test_a_commit_of_what_is_forgotten_is_in_doubt() -> None:
    """It had begun, so it ended: how, nobody knows any more."""
    steps = Plan(mode="tcc", timeout=10, gid="g1", status="active").commit()
    next(steps)

    with pytest.raises(client.InDoubt):
        steps.send(Told(status=404, content={"code": "unknown-transaction"}, headers={}))


def test_a_node_that_failed_may_have_done_it() -> None:
    """So what follows, a refusal or no node at all, does not prove that nothing happened."""
    plan = Plan(mode="saga", timeout=10, gid="g1")
    steps = plan.submit([])
    next(steps)
    steps.send(Told(status=500, content={"code": "unknown"}, headers={}))
    next(steps)
    steps.send(Told(status=503, content={"code": "not-done"}, headers={}))
    next(steps)
    plan._deadline = time.monotonic() - 3600

    with pytest.raises(client.InDoubt):
        steps.throw(client.NotRunning("no node"))


def _committed() -> dict[str, Any]:
    return {"decision": "commit", "status": "committed", "branches": []}


async def test_half_an_answer_is_maybe_done(tmp_path: Path) -> None:
    """It was sent, so it may have been done."""

    async def cut(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b'HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{"half": ')
        await writer.drain()
        writer.close()

    server = await asyncio.start_unix_server(cut, tmp_path / "s")
    asking = Asking(Node.at(f"unix:{tmp_path}/s"))

    with pytest.raises(client.MaybeDone):
        await asking.ask(Ask(method="GET", path="/"))
    server.close()


@pytest.mark.parametrize("timeout", [0, -1, 86_401])
async def test_a_timeout_out_of_range_is_told(site: Site, timeout: float) -> None:
    """With what would be right."""
    with pytest.raises(ValueError, match=r"0\.001 to 86400 seconds"):
        async with client.transaction("tcc", timeout=timeout, **site.where):
            pass


def test_gids_sort_by_time_and_are_uuids() -> None:
    """UUIDv7, so that the coordinator can tell old ones."""
    gids = [new_gid()]
    time.sleep(0.002)
    gids.append(new_gid())

    assert sorted(gids) == gids
    assert [7, 7] == [uuid.UUID(gid).version for gid in gids]


async def _until(is_so: Any) -> None:
    end = time.monotonic() + LIMIT
    while not is_so():
        assert time.monotonic() < end
        await asyncio.sleep(0.02)
