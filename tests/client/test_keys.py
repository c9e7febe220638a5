"""Keys of the client against a real node, with asyncio and without."""

from __future__ import annotations

import asyncio
import signal
from contextlib import aclosing

import pytest

from tests.client.nodes import NodeProcess
from tests.databases import LIMIT
from unisono import client
from unisono.client.insisting import insist
from unisono.client.keys import Watching
from unisono.client.questions import EventParser, ServerSent


async def test_what_is_put_is_there(node: NodeProcess) -> None:
    """With the revision that the write answered; a key that was deleted is not there."""
    kv = node.shared().kv

    revision = await kv.put("put/ä b", b"\x00\xff")
    found = await kv.get("put/ä b")
    await kv.delete("put/ä b")

    assert client.Value(key="put/ä b", value=b"\x00\xff", revision=revision, created=revision) == found
    assert await kv.get("put/ä b") is None


def test_the_twin_without_asyncio_sees_the_same(node: NodeProcess) -> None:
    """All operations, one after the other."""
    kv = node.shared_sync().kv

    first = kv.put("twin/a", "1")
    kv.put("twin/a", b"2")
    written = kv.transact(
        compare=[client.Compare("twin/a", value=b"2")], success=[client.Put("twin/b", b"3")]
    )

    assert written.succeeded
    assert [b"2", b"3"] == [entry.value for entry in kv.scan("twin/").entries]
    assert [b"2", b"1"] == [entry.value for entry in kv.history("twin/a")]
    old = kv.get("twin/a", revision=first)
    assert old is not None
    assert b"1" == old.value


async def test_a_key_that_is_not_as_expected_is_not_written(node: NodeProcess) -> None:
    """Changed says so; nothing happened."""
    kv = node.shared().kv
    revision = await kv.put("expected", b"1", expected=0)

    with pytest.raises(client.Changed):
        await kv.put("expected", b"2", expected=0)
    with pytest.raises(client.Changed):
        await kv.delete("expected", expected=revision + 1)

    found = await kv.get("expected")
    assert found is not None
    assert b"1" == found.value


async def test_a_repeat_with_the_same_request_id_has_one_effect(node: NodeProcess) -> None:
    """The second one answers what the first one did."""
    kv = node.shared().kv
    put = [client.Put("once", b"1")]
    absent = [client.Compare("once", created=0)]

    first = await kv.transact(compare=absent, success=put, request_id="order-1")
    again = await kv.transact(compare=absent, success=put, request_id="order-1")

    assert (True, first) == (first.succeeded, again)


async def test_a_key_with_a_time_to_live_goes(node: NodeProcess) -> None:
    """A watch sees it go."""
    kv = node.shared().kv
    await kv.put("short", b"1", ttl=0.2)

    async with asyncio.timeout(LIMIT), aclosing(kv.watch("short")) as watch:
        async for changes in watch:
            if any(change.value is None for change in changes.changes):
                break

    assert await kv.get("short") is None


async def test_a_look_back_does_not_set_a_session_back(node: NodeProcess) -> None:
    """What it had seen when it was handed on is seen still."""
    kv = node.shared().kv
    first = await kv.put("looked-back", b"1")
    with client.session() as here:
        await kv.put("looked-back", b"2")
    with client.session(here.token) as there:
        assert await kv.get("looked-back", revision=first) is not None

    assert here.revision == there.revision


async def test_a_session_reads_its_own_writes_in_another_client(node: NodeProcess) -> None:
    """The token carries what was seen from one service to the next."""
    with client.session() as here:
        await node.shared().kv.put("session", b"mine")
    with client.session(here.token):
        found = await node.shared().kv.get("session")

    assert found is not None
    assert b"mine" == found.value
    assert here.token


async def test_a_token_that_nobody_gave_out_is_refused(node: NodeProcess) -> None:
    """It is not taken for none."""
    with client.session("made up"), pytest.raises(client.Refused, match="token is malformed"):
        await node.shared().kv.get("session")


async def test_a_key_that_is_none_is_refused(node: NodeProcess) -> None:
    """The error says what would be right, and repeats nothing."""
    with pytest.raises(client.Refused, match="at most 512"):
        await node.shared().kv.put("k" * 513, b"")


async def test_a_watch_goes_on_over_the_death_of_the_node(own_node: NodeProcess) -> None:
    """Without gap or repeat: the revisions that were written are those that are seen."""
    kv = own_node.shared().kv
    written = [await kv.put("w/0", b"0")]
    seen: list[int] = []

    async def watch() -> None:
        async with aclosing(kv.watch("w/", after=written[0] - 1)) as found:
            async for changes in found:
                seen.append(changes.revision)
                if len(seen) == 6:
                    return

    watching = asyncio.create_task(watch())
    written += [await kv.put("w/1", b"1"), await kv.put("w/0", b"2")]
    await asyncio.to_thread(own_node.kill)
    await asyncio.to_thread(own_node.start)
    written += [await kv.put(f"w/{n}", b"3") for n in range(3)]
    async with asyncio.timeout(LIMIT):
        await watching

    assert written == seen


async def test_requests_outlast_a_restart_of_the_node(own_node: NodeProcess) -> None:
    """A write that is asked for while the node is away is done once it is back."""
    kv = own_node.shared().kv
    await kv.put("away", b"1")
    await asyncio.to_thread(own_node.kill)

    writing = asyncio.create_task(kv.put("away", b"2"))
    await asyncio.sleep(0.1)
    await asyncio.to_thread(own_node.start)
    await writing

    found = await kv.get("away")
    assert found is not None
    assert b"2" == found.value


async def test_no_node_is_not_done(own_node: NodeProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing was sent, so it is certain that nothing happened."""
    monkeypatch.setitem(insist.__kwdefaults__, "patience", 0.2)
    own_node.kill()

    with pytest.raises(client.NotRunning):
        await own_node.shared().kv.put("nobody", b"1")


async def test_a_node_that_dies_in_mid_call_is_maybe_done(
    own_node: NodeProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The request was sent and never answered: it may have happened."""
    monkeypatch.setitem(insist.__kwdefaults__, "patience", 0.5)
    kv = own_node.shared().kv
    await kv.put("mid", b"1")
    own_node.signal(signal.SIGSTOP)

    writing = asyncio.create_task(kv.put("mid", b"2"))
    await asyncio.sleep(0.3)
    await asyncio.to_thread(own_node.kill)

    with pytest.raises(client.MaybeDone):
        await writing


def test_a_resync_tells_what_is_gone() -> None:
    """Also what only an earlier connection had shown."""
    watching = Watching("", None)
    watching.take(_event("resync", 5, '{"kind":"put","key":"a","revision":5,"value":"MQ=="}'))

    found = watching.take(_event("resync", 9, '{"kind":"put","key":"b","revision":8,"value":"Mg=="}'))

    assert found is not None
    assert {"a": None, "b": b"2"} == {change.key: change.value for change in found.changes}


def test_what_was_seen_is_not_told_again() -> None:
    """A revision that comes twice is dropped, and the watch asks for what comes after it."""
    watching = Watching("p", 3)
    event = _event("changes", 4, '{"kind":"delete","key":"a","revision":4}')

    told = [watching.take(event), watching.take(event)]

    assert told[0] is not None
    assert told[1] is None
    assert (("prefix", "p"), ("after", "4")) == watching.ask().query


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
def test_events_may_come_in_pieces_of_any_size(size: int) -> None:
    """Comments are left out, whole events come once."""
    stream = b": alive\n\nid: 1\nevent: changes\ndata: {}\n\n: alive\n\ndata: 2\n\nid: 3\n"
    parser = EventParser()

    found = [event for at in range(0, len(stream), size) for event in parser.feed(stream[at : at + size])]

    assert [
        ServerSent(kind="changes", id="1", data="{}"),
        ServerSent(kind="message", id=None, data="2"),
    ] == found


def _event(kind: str, revision: int, change: str) -> ServerSent:
    return ServerSent(kind=kind, id=str(revision), data=f'{{"revision":{revision},"changes":[{change}]}}')
