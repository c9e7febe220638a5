"""How much a transaction may hold, and that what is too large harms nobody but who asked for it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.transactions.conftest import Bench, Services, coordinating
from tests.transactions.participants import Asked, Says, serving
from unisono.store.base import MAX_VALUE_BYTES, Compare, Delete, Outcome, Put
from unisono.store.sqlite import SqliteStore
from unisono.transactions.errors import Invalid
from unisono.transactions.modes import Mode
from unisono.transactions.records import MAX_TIMELINE, Record, decode
from unisono.transactions.states import Status
from unisono.transactions.submission import MAX_CONTENT_BYTES, MAX_PAYLOAD_BYTES, BranchSpec, Submission


class Small(SqliteStore):
    """A store that takes less at once than others, as an etcd may be told to."""

    most = 200_000

    async def transact(
        self,
        *,
        compares: Sequence[Compare] = (),
        success: Sequence[Put | Delete] = (),
        failure: Sequence[Put | Delete] = (),
    ) -> Outcome:
        if sum(len(put.value) for put in success if isinstance(put, Put)) > self.most:
            raise ValueError("takes no transaction as large as this")
        return await super().transact(compares=compares, success=success, failure=failure)


def _payload(size: int) -> str:
    """JSON text of ``size`` bytes, of two bytes a character."""
    return "é" * ((size - 2) // 2)


def _listed(count: int, size: int) -> list[dict[str, Any]]:
    return [{"id": f"b{n}", "url": "http://stock/x", "payload": _payload(size)} for n in range(count)]


def test_content_is_counted_in_bytes_of_all_branches_together() -> None:
    count = MAX_CONTENT_BYTES // MAX_PAYLOAD_BYTES

    with pytest.raises(Invalid, match=rf"branches: have \d+ bytes together.*at most {MAX_CONTENT_BYTES}"):
        Submission.of({"mode": "saga", "branches": _listed(count, MAX_PAYLOAD_BYTES)})


def test_addresses_and_orders_count_as_payloads_do() -> None:
    """The payloads alone are less than half of what is allowed."""
    ids = [f"{n:040}" for n in range(100)]
    branches = [
        {"id": id, "url": "http://stock/" + "x" * 1900, "payload": _payload(3000), "after": ids[:n]}
        for n, id in enumerate(ids)
    ]

    with pytest.raises(Invalid, match="bytes together"):
        Submission.of({"mode": "saga", "branches": branches})


def test_the_largest_transaction_fits_one_value_of_the_store_whatever_was_noted_of_it() -> None:
    specs = []
    left = MAX_CONTENT_BYTES
    while left > 300:
        overhead = BranchSpec(id=f"b{len(specs)}", url="http://stock/x", payload="").size()
        size = min(MAX_PAYLOAD_BYTES - 2, left - overhead)
        specs.append(BranchSpec(id=f"b{len(specs)}", url="http://stock/x", payload="x" * size))
        left -= specs[-1].size()
    record = Record(
        namespace="shop",
        gid="g" * 100,
        mode=Mode.SAGA,
        owner="n1",
        digest="0" * 24,
        began=1.0,
        deadline=2.0,
        status=Status.COMMITTING,
        specs=specs,
        timeline=[[1.5, "b1", "action", 409, "no", 1.0, "\x01" * 200]] * MAX_TIMELINE,
    )

    short = record.encode()
    record.timeline[0][-1] = "\x01" * 200_000
    shortened = record.encode()

    assert max(len(short), len(shortened)) <= MAX_VALUE_BYTES
    assert MAX_TIMELINE == len(decode(record.key, short).timeline)
    assert specs == decode(record.key, shortened).specs


async def test_an_enrolment_that_would_be_too_much_is_refused_and_the_transaction_goes_on(
    bench: Bench,
) -> None:
    begun = await bench.begin("tcc")
    for n in range(MAX_CONTENT_BYTES // MAX_PAYLOAD_BYTES - 1):
        await bench.enrol(begun.record.gid, f"b{n}", payload=_payload(MAX_PAYLOAD_BYTES))

    with pytest.raises(Invalid, match="bytes together"):
        await bench.enrol(begun.record.gid, "last", payload=_payload(MAX_PAYLOAD_BYTES))
    view = await bench.coordinator.decide("shop", begun.record.gid, commit=True, wait=20)

    assert "committed" == view["status"]
    assert "last" not in {asked.branch for asked in bench.party.asked}


async def test_what_the_store_finds_too_large_is_refused_and_others_are_served(tmp_path: Path) -> None:
    """Written with others in one batch it must not harm them, and the coordinator outlives it."""
    store = await Small.open(tmp_path / "store.db")
    services = Services()
    try:
        async with serving() as party, coordinating(store, services) as coordinator:
            bench = Bench(store, party, services, coordinator)
            large = [{"id": f"b{n}", "payload": "x" * 60_000} for n in range(4)]
            before = await bench.begin("saga", "a")
            refused = bench.given("saga", *large)

            with pytest.raises(Exception, match="takes no transaction as large as this") as caught:
                await coordinator.begin("shop", refused, trusted=True)
            after = await bench.run("saga", "c")

            assert "NotDone" == type(caught.value).__name__
            assert "committed" == after["status"]
            assert "committed" == (await bench.end(before.record.gid))["status"]
    finally:
        await store.close()


async def test_many_large_transactions_are_taken_over_in_parts_that_fit(tmp_path: Path) -> None:
    """Fifty with the most content are more than one write of any store may hold."""
    store = await SqliteStore.open(tmp_path / "store.db")
    services = Services()
    try:
        async with serving() as party:
            busy = True

            async def script(asked: Asked) -> Says:
                return Says(425 if busy else 200)

            party.script = script
            async with coordinating(store, services, "n1") as first:
                bench = Bench(store, party, services, first)
                branches = [{"id": f"b{n}", "payload": "x" * 60_000} for n in range(10)]
                gids = [(await bench.begin("saga", *map(dict, branches))).record.gid for _ in range(16)]
            for entry in (await store.scan("coordinator/n1")).entries:
                assert entry.lease is not None
                await store.revoke(entry.lease)
            busy = False
            async with coordinating(store, services, "n2") as second:
                ends = [await Bench(store, party, services, second).end(gid) for gid in gids]

        assert {"committed"} == {end["status"] for end in ends}
        assert {"n2"} == {end["node"] for end in ends}
    finally:
        await store.close()
