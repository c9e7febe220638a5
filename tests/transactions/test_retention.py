"""What is remembered of transactions that are over, and what follows from forgetting them."""

from __future__ import annotations

import asyncio

import pytest

from tests.transactions.conftest import Bench, Services, coordinating, until
from tests.transactions.participants import Asked, Says, serving
from unisono.store.sqlite import SqliteStore
from unisono.transactions import retention
from unisono.transactions.errors import Expired


async def test_what_is_forgotten_is_refused_and_not_carried_out_again(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Trap 17: a late begin of a gid whose transaction has been cleaned."""
    monkeypatch.setattr(retention, "MAX_FINAL", 3)
    first = await bench.begin("saga", "a")
    gid = first.record.gid
    await bench.end(gid)
    for _ in range(6):
        await bench.run("saga", "a")
    calls = len(bench.party.asked)
    while await bench.store.get(first.record.key) is not None:  # noqa: ASYNC110 - nothing tells of it
        await asyncio.sleep(0.005)

    with pytest.raises(Expired):
        await bench.begin("saga", "a", gid=gid)
    assert calls == len(bench.party.asked)


async def test_a_gid_made_by_a_clock_that_is_ahead_keeps_nobody_from_beginning(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once it is forgotten: gids made now are no older than what is remembered."""
    monkeypatch.setattr(retention, "MAX_FINAL", 0)
    ahead = await bench.begin("saga", "a", gid="ffffffff-ffff-7000-8000-000000000000")
    await bench.end(ahead.record.gid)
    while await bench.store.get(ahead.record.key) is not None:
        await bench.run("saga", "a")

    view = await bench.run("saga", "a")

    assert "committed" == view["status"]


async def test_what_is_too_old_is_forgotten_though_nothing_else_ends(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A node on which nothing happens any more does not keep its last transactions for ever."""
    monkeypatch.setattr(retention, "_SWEEP_SECONDS", 0.02)
    async with serving() as party, coordinating(store, Services()) as coordinator:
        bench = Bench(store, party, Services(), coordinator)
        begun = await bench.begin("saga", "a")
        await bench.end(begun.record.gid)
        remembered = coordinator.figures()["remembered"]
        monkeypatch.setattr(retention, "RETENTION", 0.0)

        async with asyncio.timeout(20):
            while await store.get(begun.record.key) is not None:  # noqa: ASYNC110 - nothing tells of it
                await asyncio.sleep(0.005)

    assert remembered == 1


async def test_heuristic_ones_are_not_forgotten(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Trap 11: whatever else is cleaned."""
    monkeypatch.setattr(retention, "MAX_FINAL", 2)

    async def script(asked: Asked) -> Says:
        return Says(409 if asked.op == "confirm" and asked.branch == "doubt" else 200)

    bench.party.script = script
    begun = await bench.begin("tcc", "doubt")
    running = begun.running
    assert running is not None
    await until(lambda: running.machine.heuristic is not None)
    word = {"outcome": "finished", "branches": ["doubt"], "reason": "by hand", "operator": "ada"}
    await bench.coordinator.resolve("shop", begun.record.gid, **word)  # type: ignore[arg-type]
    for _ in range(8):
        await bench.run("saga", "a")

    assert 2 >= bench.coordinator.figures()["remembered"]
    kept = await bench.coordinator.get("shop", begun.record.gid)
    assert "mixed" == kept["heuristic"]["kind"]
