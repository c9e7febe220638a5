"""A branch that may come to another end than its transaction, and the operator who brings it to its own."""

from __future__ import annotations

import asyncio

from tests.transactions.conftest import Bench, until
from tests.transactions.participants import Asked, Says, no_of


async def test_a_confirm_that_says_no_is_asked_on_and_told_as_heuristic(bench: Bench) -> None:
    """Trap 11."""
    bench.party.script = no_of("b", "confirm")
    begun = await bench.begin("tcc", "a", "b")
    gid = begun.record.gid
    await until(lambda: begun.running.machine.heuristic is not None)
    found = await bench.coordinator.find("shop", status="heuristic", limit=10)

    assert [gid] == [view["gid"] for view in found]
    bench.party.script = no_of("nobody", "confirm")
    assert 1 == await bench.coordinator.retry("shop", gid)
    view = await bench.end(gid)
    assert "committed" == view["status"]
    assert "mixed" == view["heuristic"]["kind"]


async def test_an_operator_resolves_what_is_in_doubt_and_it_stays_known(bench: Bench) -> None:
    bench.party.script = no_of("b", "confirm")
    begun = await bench.begin("tcc", "a", "b")
    await until(lambda: begun.running.machine.heuristic is not None)

    view = await bench.coordinator.resolve(
        "shop", begun.record.gid, outcome="finished", branches=["b"], reason="booked by hand", operator="ada"
    )

    assert "committed" == view["status"]
    kept = await bench.coordinator.get("shop", begun.record.gid)
    assert "ada" == kept["heuristic"]["resolved"][0]["operator"]


async def test_an_operator_need_not_wait_until_a_branch_is_found_to_be_in_doubt(bench: Bench) -> None:
    """Who knows that a participant is gone for good says so at once; that makes the transaction heuristic."""
    bench.party.script = no_of("b", "rollback", 404)
    begun = await bench.begin("xa")
    gid = begun.record.gid
    await bench.enrol(gid, "b")
    await bench.coordinator.decide("shop", gid, commit=False, wait=0)
    await until(lambda: bench.party.count()["b", "rollback"])

    view = await bench.coordinator.resolve(
        "shop", gid, outcome="undone", branches=["b"], reason="it never took part in XA", operator="ada"
    )

    assert ("aborted", "hazard") == (view["status"], view["heuristic"]["kind"])
    assert 1 == bench.coordinator.counts.heuristic  # it is told, as any other
    found = await bench.coordinator.find("shop", status="heuristic", limit=10)
    assert [gid] == [one["gid"] for one in found]


async def test_an_operators_word_is_durable_before_it_is_answered(bench: Bench) -> None:
    """Also where other branches are called next: a crash then does not have the operator asked again."""

    async def script(asked: Asked) -> Says:
        return Says(500 if asked.op == "cancel" else 200)

    bench.party.script = script
    begun = await bench.begin("tcc")
    gid = begun.record.gid
    await bench.enrol(gid, "a")
    await bench.enrol(gid, "b", after=["a"])
    await bench.coordinator.decide("shop", gid, commit=False, wait=0)
    await until(lambda: bench.party.count()["b", "cancel"])

    resolving = bench.coordinator.resolve(
        "shop", gid, outcome="undone", branches=["b"], reason="by hand", operator="ada"
    )
    task = asyncio.create_task(resolving)
    await until(lambda: bench.party.count()["a", "cancel"])
    entry = await bench.store.get(begun.record.key)
    await task

    assert entry is not None
    assert b'"by hand"' in entry.value
