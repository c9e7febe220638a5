"""What was open is found again: after a restart, and by another node (traps 1 and 3)."""

from __future__ import annotations

import asyncio
import time

import pytest

from tests.transactions.conftest import Bench, Services, coordinating, until
from tests.transactions.participants import Asked, Says, serving
from unisono.store.base import MaybeDone, Put
from unisono.store.sqlite import SqliteStore
from unisono.transactions import records
from unisono.transactions.records import Record
from unisono.transactions.retention import Retention
from unisono.transactions.takeover import Takeover


@pytest.mark.parametrize("decided", [False, True])
async def test_a_restart_takes_everything_up_at_once(store: SqliteStore, decided: bool) -> None:
    """Trap 1: the first coordinator goes while its calls are under way."""
    services = Services()
    stop = "confirm" if decided else "try"
    async with serving() as party:
        reached = asyncio.Event()

        async def script(asked: Asked) -> Says:
            if asked.op == stop and not reached.is_set():
                reached.set()
                await asyncio.Event().wait()
            return Says()

        party.script = script
        async with coordinating(store, services) as first:
            bench = Bench(store, party, services, first)
            begun = await bench.begin("tcc", "a", "b")
            await asyncio.wait_for(reached.wait(), 20)
        async with coordinating(store, services) as second:
            view = await Bench(store, party, services, second).end(begun.record.gid)

    assert "committed" == view["status"]
    epochs = [int(asked.headers["transaction-epoch"]) for asked in party.asked]
    assert epochs == sorted(epochs)
    assert epochs[0] < epochs[-1]


async def test_a_record_that_cant_be_read_keeps_no_other_from_going_on(store: SqliteStore) -> None:
    """Trap 16: neither at a start nor in a list; it stays where it is."""
    services = Services()
    broken = f"{records.ROOT}shop/broken"
    async with serving() as party:
        async with coordinating(store, services) as first:
            begun = await Bench(store, party, services, first).begin("tcc")
        await store.transact(success=[Put(key=broken, value=b'{"open":true,"v":1,"branches":' + b"[" * 300)])
        async with coordinating(store, services) as second:
            listed = await second.find("shop", status="", limit=10)
            view = await second.decide("shop", begun.record.gid, commit=True, wait=20)

    assert [begun.record.gid] == [one["gid"] for one in listed]
    assert "committed" == view["status"]
    assert await store.get(broken) is not None


async def test_an_owner_that_is_back_is_not_taken_over_from(store: SqliteStore) -> None:
    """It goes on without writing anything, so nothing but its key tells that it is back."""
    services = Services()
    async with (
        serving() as party,
        coordinating(store, services, "n1") as first,
        coordinating(store, services, "n2") as second,
    ):
        begun = await Bench(store, party, services, first).begin("tcc")
        entry = await store.get(begun.record.key)
        assert entry is not None

        log = second._log
        assert log is not None
        takeover = Takeover(store, "n2", log, Retention("n2", time.time), _never)
        claimed = await takeover.claim([(entry, records.decode(entry.key, entry.value))])

    assert not claimed


async def test_another_node_takes_over_when_one_is_gone(store: SqliteStore) -> None:
    """Trap 3: the old owner's writes are refused, and its epoch is lower."""
    services = Services()
    async with serving() as party, coordinating(store, services, "n2") as second:

        async def script(asked: Asked) -> Says:
            return Says(500 if len(party.asked) < 3 else 200)

        party.script = script
        async with coordinating(store, services, "n1") as first:
            begun = await Bench(store, party, services, first).begin("saga", "a")
            await until(lambda: party.asked)
            nodes = await store.scan("coordinator/n1")
            lease = nodes.entries[0].lease
            assert lease is not None
            await store.revoke(lease)
            view = await Bench(store, party, services, second).end(begun.record.gid)

    assert "committed" == view["status"]
    assert "n2" == view["node"]


async def test_an_answer_behind_the_end_of_a_term_leads_to_no_call_of_that_term(store: SqliteStore) -> None:
    """Trap 3: what the answer would have led to is for whoever coordinates now: the same node, anew."""
    reached, released = asyncio.Event(), asyncio.Event()

    async def script(asked: Asked) -> Says:
        if asked.branch == "a" and not reached.is_set():
            reached.set()
            await released.wait()
        return Says()

    async with serving() as party, coordinating(store, Services()) as coordinator:
        party.script = script
        bench = Bench(store, party, Services(), coordinator)
        begun = await bench.begin("saga", "a", {"id": "b", "after": ["a"]})
        await asyncio.wait_for(reached.wait(), 20)
        await _end_term(store)
        view = await bench.end(begun.record.gid)
        answers = sum(coordinator.counts.answers.values())
        released.set()
        await until(lambda: sum(coordinator.counts.answers.values()) > answers)
        await bench.run("saga", "c")  # so that a call that was wrongly made has arrived

    assert "committed" == view["status"]
    assert ["a", "a", "b", "c"] == [asked.branch for asked in party.asked]


async def test_a_commit_between_two_terms_is_taken_in_the_next(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The node coordinates the transaction, though at the moment it has not found it again."""
    may_begin = asyncio.Event()

    async def grant(ttl: float) -> int:
        await may_begin.wait()
        return await SqliteStore.grant(store, ttl)

    async with serving() as party, coordinating(store, Services()) as coordinator:
        bench = Bench(store, party, Services(), coordinator)
        begun = await bench.begin("tcc")
        await bench.enrol(begun.record.gid, "a")
        monkeypatch.setattr(store, "grant", grant)
        await _end_term(store)
        await until(lambda: not coordinator.ready.is_set())
        deciding = asyncio.create_task(coordinator.decide("shop", begun.record.gid, commit=True, wait=20))
        done, _ = await asyncio.wait([deciding], timeout=0.1)
        may_begin.set()
        view = await deciding

    assert not done
    assert "committed" == view["status"]


async def test_a_commit_whose_term_ends_before_it_is_done_is_to_be_asked_again(store: SqliteStore) -> None:
    """Trap 4: what became of it is not known here, so it is no answer that it goes on."""
    services = Services()
    reached = asyncio.Event()

    async def script(asked: Asked) -> Says:
        if asked.op == "confirm" and not reached.is_set():
            reached.set()
            await asyncio.Event().wait()
        return Says()

    async with serving() as party, coordinating(store, services) as coordinator:
        party.script = script
        bench = Bench(store, party, services, coordinator)
        begun = await bench.begin("tcc")
        await bench.enrol(begun.record.gid, "a")
        deciding = asyncio.create_task(coordinator.decide("shop", begun.record.gid, commit=True, wait=3600))
        await asyncio.wait_for(reached.wait(), 20)
        await _end_term(store)
        with pytest.raises(MaybeDone, match="ask again"):
            await asyncio.wait_for(deciding, 20)
        view = await coordinator.decide("shop", begun.record.gid, commit=True, wait=20)

    assert "committed" == view["status"]


async def _end_term(store: SqliteStore) -> None:
    """The only coordinator loses its term, as after a pause."""
    (entry,) = (await store.scan("coordinator/")).entries
    assert entry.lease is not None
    await store.revoke(entry.lease)


def _never(record: Record) -> None:
    raise AssertionError(f"{record.gid} was taken over")
