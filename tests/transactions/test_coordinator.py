"""The coordinator on a real store, with participants over HTTP: what it calls, when, and what it tells."""

from __future__ import annotations

import asyncio
import time

import pytest

from tests.transactions.conftest import Bench, until
from tests.transactions.participants import Asked, Says, no_of
from unisono.transactions import admission
from unisono.transactions.errors import Decided, NotActive, Reused, TooMany, Unknown, UrlNotAllowed
from unisono.transactions.submission import Submission


async def test_a_saga_calls_every_action_once_and_commits(bench: Bench) -> None:
    view = await bench.run("saga", "a", "b")

    assert "committed" == view["status"]
    assert [("a", "action"), ("b", "action")] == sorted(bench.party.ops())


async def test_a_saga_compensates_what_was_done_when_a_branch_saysno_of(bench: Bench) -> None:
    bench.party.script = no_of("b", "action")

    view = await bench.run("saga", "a", {"id": "b", "after": ["a"]}, {"id": "c", "after": ["b"]})

    assert "aborted" == view["status"]
    assert "branch b refused" in view["reason"]
    assert [("a", "action"), ("b", "action"), ("a", "compensate")] == bench.party.ops()


async def test_tcc_tries_all_then_confirms_all(bench: Bench) -> None:
    view = await bench.run("tcc", "a", "b")

    assert "committed" == view["status"]
    assert ["try", "try", "confirm", "confirm"] == [op for _, op in bench.party.ops()]


async def test_xa_rolls_back_what_was_prepared_when_a_branch_saysno_of(bench: Bench) -> None:
    bench.party.script = no_of("b", "prepare")

    view = await bench.run("xa", "a", "b")

    assert "aborted" == view["status"]
    assert 1 == bench.party.count()["a", "rollback"]
    assert 0 == bench.party.count()["b", "rollback"]
    assert not any(op == "commit" for _, op in bench.party.ops())


async def test_undo_goes_in_the_reverse_order_of_the_graph(bench: Bench) -> None:
    """Trap 14."""
    bench.party.script = no_of("d", "action")

    await bench.run(
        "saga",
        "a",
        {"id": "b", "after": ["a"]},
        {"id": "c", "after": ["a"]},
        {"id": "d", "after": ["b", "c"]},
    )

    undone = [branch for branch, op in bench.party.ops() if op == "compensate"]
    assert {"b", "c"} == set(undone[:2])
    assert ["a"] == undone[2:]


async def test_branches_of_a_phase_run_in_parallel(bench: Bench) -> None:
    """Each try waits until all have come: one after the other would never end."""
    barrier = asyncio.Barrier(8)

    async def script(asked: Asked) -> Says:
        await barrier.wait()
        return Says()

    bench.party.script = script
    view = await bench.run("tcc", *"abcdefgh")

    assert "committed" == view["status"]


async def test_dynamic_branches_are_called_when_enrolled_and_confirmed_at_the_commit(bench: Bench) -> None:
    begun = await bench.begin("tcc")
    gid = begun.record.gid

    async def script(asked: Asked) -> Says:
        return Says(200, {"content-type": "application/json"}, b'{"seat": 7}')

    bench.party.script = script
    branch = await bench.enrol(gid, "a", payload={"n": 1})
    view = await bench.coordinator.decide("shop", gid, commit=True, wait=20)

    assert {"seat": 7} == branch["reply"]
    assert "committed" == view["status"]
    assert [("a", "try"), ("a", "confirm")] == bench.party.ops()


async def test_a_branch_is_durable_before_it_is_called(bench: Bench) -> None:
    """Trap 6: the call finds its branch in the store."""
    found: list[bool] = []

    async def script(asked: Asked) -> Says:
        entry = await bench.store.get(f"transaction/shop/{asked.headers['transaction-id']}")
        found.append(entry is not None and b'"/a"' in entry.value.replace(bench.party.url.encode(), b""))
        return Says()

    bench.party.script = script
    begun = await bench.begin("tcc")
    await bench.enrol(begun.record.gid, "a")

    assert [True] == found


async def test_the_decision_is_durable_before_the_first_confirm(bench: Bench) -> None:
    """Trap 2."""
    found: list[bytes] = []

    async def script(asked: Asked) -> Says:
        if asked.op == "confirm":
            entry = await bench.store.get(f"transaction/shop/{asked.headers['transaction-id']}")
            assert entry is not None
            found.append(entry.value)
        return Says()

    bench.party.script = script
    await bench.run("tcc", "a")

    assert b'"status":"committing"' in found[0]


async def test_an_enrolment_after_the_decision_is_refused_and_nothing_is_called(bench: Bench) -> None:
    """Trap 7."""
    begun = await bench.begin("tcc")
    await bench.coordinator.decide("shop", begun.record.gid, commit=True, wait=20)

    with pytest.raises(NotActive):
        await bench.enrol(begun.record.gid, "late")

    assert [] == bench.party.asked


async def test_the_same_gid_with_the_same_content_is_the_same_transaction(bench: Bench) -> None:
    """Trap 4: whoever lost the answer asks again and gets the end."""
    first = await bench.run("saga", {"id": "a", "payload": {"x": 1, "y": 2}}, gid="g")

    again = await bench.begin("saga", {"id": "a", "payload": {"y": 2, "x": 1}}, gid="g")

    assert not again.created
    assert "committed" == first["status"] == again.record.status
    assert [("a", "action")] == bench.party.ops()


@pytest.mark.parametrize("ended", [True, False])
async def test_a_gid_with_another_content_is_refused(bench: Bench, ended: bool) -> None:
    """Trap 5."""
    if ended:
        await bench.run("saga", {"id": "a", "payload": 1}, gid="g")
    else:
        await bench.begin("tcc", gid="g")

    with pytest.raises(Reused):
        await bench.begin("saga", {"id": "a", "payload": 2}, gid="g")


async def test_two_begins_of_one_gid_at_once_make_one_transaction(bench: Bench) -> None:
    begun = await asyncio.gather(*[bench.begin("saga", "a", gid="g") for _ in range(5)])
    await bench.end("g")

    assert 1 == sum(one.created for one in begun)
    assert [("a", "action")] == bench.party.ops()


async def test_the_other_decision_is_refused_and_the_same_one_is_repeated(bench: Bench) -> None:
    begun = await bench.begin("tcc")
    gid = begun.record.gid
    await bench.enrol(gid, "a")
    first = await bench.coordinator.decide("shop", gid, commit=True, wait=20)

    again = await bench.coordinator.decide("shop", gid, commit=True, wait=20)
    with pytest.raises(Decided):
        await bench.coordinator.decide("shop", gid, commit=False, wait=20)

    assert "committed" == first["status"] == again["status"]


async def test_the_deadline_aborts_what_is_undecided(bench: Bench) -> None:
    begun = await bench.begin("tcc", timeout_ms=300)
    await bench.enrol(begun.record.gid, "a")

    view = await bench.end(begun.record.gid)

    assert "aborted" == view["status"]
    assert [("a", "try"), ("a", "cancel")] == bench.party.ops()
    with pytest.raises(Decided):
        await bench.coordinator.decide("shop", begun.record.gid, commit=True, wait=1)


async def test_the_deadline_means_nothing_after_the_decision(bench: Bench) -> None:
    """Trap 8: confirms fail until long after the deadline."""
    failures = 4

    async def script(asked: Asked) -> Says:
        nonlocal failures
        if asked.op == "confirm" and failures:
            failures -= 1
            return Says(500)
        return Says()

    bench.party.script = script
    view = await bench.run("tcc", "a", timeout_ms=200)

    assert "committed" == view["status"]
    assert view["ended_at"] > view["deadline"]


async def test_a_call_before_the_decision_is_given_no_more_time_than_the_transaction_has(
    bench: Bench,
) -> None:
    """Afterwards it has its whole time, however little was left."""
    view = await bench.run("tcc", "a", timeout_ms=1000)

    given = {asked.op: int(asked.headers["deadline-ms"]) for asked in bench.party.asked}
    assert "committed" == view["status"]
    assert given["try"] <= 1000
    assert given["confirm"] == 5000


async def test_a_branch_that_is_undone_is_not_answered_with_yes(bench: Bench) -> None:
    """Its enrolment waited for its answer, and the transaction was aborted meanwhile."""

    async def script(asked: Asked) -> Says:
        return Says(503 if asked.op == "try" else 200)

    bench.party.script = script
    begun = await bench.begin("tcc")
    enrolling = asyncio.create_task(bench.enrol(begun.record.gid, "a"))
    await until(lambda: bench.party.count()["a", "try"])
    await bench.coordinator.decide("shop", begun.record.gid, commit=False, wait=20)

    with pytest.raises(Decided, match="the initiator asked for it"):
        await enrolling


async def test_a_branch_that_was_never_called_does_not_wait_for_what_is_undone(bench: Bench) -> None:
    """Its turn had not come when the transaction was aborted, and another's undo takes for ever."""

    async def script(asked: Asked) -> Says:
        return Says(503)

    bench.party.script = script
    begun = await bench.begin("tcc")
    first = asyncio.create_task(bench.enrol(begun.record.gid, "a"))
    await until(lambda: bench.party.count()["a", "try"])
    second = asyncio.create_task(bench.enrol(begun.record.gid, "b", after=["a"]))
    await until(lambda: "b" in begun.running.machine.branches)
    await bench.coordinator.decide("shop", begun.record.gid, commit=False, wait=0)

    with pytest.raises(Decided):
        await second
    with pytest.raises(Decided):
        await first
    assert 0 == bench.party.count()["b", "try"]


async def test_what_was_waited_for_in_vain_is_told(bench: Bench) -> None:
    """A wrong address, say: who asked learns it from the reason, without looking through the timeline."""

    async def script(asked: Asked) -> Says:
        if asked.op != "action" or asked.branch == "a":
            return Says()
        return Says(404) if asked.branch == "b" else Says(302, {"location": "/elsewhere"})

    bench.party.script = script
    view = await bench.run("saga", "a", "b", "c", timeout_ms=300)

    assert (
        "its time was over before it was decided: branch b answered action with 404;"
        " branch c answered action with 302 (redirects are not followed)" == view["reason"]
    )


async def test_a_wall_clock_that_is_set_back_prolongs_no_transaction(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Trap 8: what is prepared would be locked for as long as the clock was ahead."""
    begun = await bench.begin("tcc", timeout_ms=300)

    runtime = begun.running._runtime
    monkeypatch.setattr(runtime, "now", lambda: time.time() - 3600)
    view = await bench.end(begun.record.gid)

    assert "aborted" == view["status"]


async def test_a_message_is_sent_when_its_initiator_commits(bench: Bench) -> None:
    begun = await bench.begin("msg", "a", "b", query_prepared=f"{bench.party.url}/ask")
    gid = begun.record.gid

    view = await bench.coordinator.decide("shop", gid, commit=True, wait=20)

    assert "committed" == view["status"]
    assert [("a", "action"), ("b", "action")] == sorted(bench.party.ops())


@pytest.mark.parametrize(("said", "end", "sent"), [(200, "committed", 1), (409, "aborted", 0)])
async def test_a_message_whose_initiator_is_silent_is_asked_back(
    bench: Bench, said: int, end: str, sent: int
) -> None:
    answers = [500, said]

    async def script(asked: Asked) -> Says:
        return Says(answers.pop(0) if asked.op == "query_prepared" else 200)

    bench.party.script = script
    view = await bench.run("msg", "a", query_prepared=f"{bench.party.url}/ask", timeout_ms=50)

    assert end == view["status"]
    assert ["/ask", "/ask"] == [asked.path for asked in bench.party.asked if asked.op == "query_prepared"]
    assert sent == bench.party.count()["a", "action"]


async def test_a_participant_gets_the_headers_of_the_contract(bench: Bench) -> None:
    begun = await bench.coordinator.begin(
        "shop",
        bench.given("tcc", {"id": "a", "payload": {"n": 1}}, gid="g"),
        trusted=True,
        traceparent="00-t-s-01",
    )
    await bench.end("g")

    asked = bench.party.asked[0]
    headers = asked.headers
    assert b'{"n":1}' == asked.body
    assert ("g", "a", "try", "tcc") == tuple(
        headers[f"transaction-{name}"] for name in ("id", "branch", "op", "mode")
    )
    assert "g/a/try" == headers["idempotency-key"]
    assert 0 < int(headers["deadline-ms"]) <= 5000
    assert int(begun.record.began * 1000) == int(headers["transaction-began"])
    assert 16 == len(headers["unisono-clock"])
    assert "00-t-s-01" == headers["traceparent"]


async def test_a_service_may_call_only_services_of_its_application(bench: Bench) -> None:
    """Trap 18: an address inside is not reached by naming it in a transaction."""
    bench.services.ports["stock"] = int(bench.party.url.rpartition(":")[2])
    inside = Submission.of({"mode": "saga", "branches": [{"id": "a", "url": "http://stock/reserve"}]})
    by_address = Submission.of(
        {"mode": "saga", "branches": [{"id": "a", "url": f"{bench.party.url}/reserve"}]}
    )
    outside = Submission.of(
        {"mode": "saga", "branches": [{"id": "a", "url": "http://169.254.169.254/latest"}]}
    )

    for submission in (inside, by_address):
        await bench.coordinator.begin("shop", submission)
        assert "committed" == (await bench.end(submission.gid))["status"]
    with pytest.raises(UrlNotAllowed):
        await bench.coordinator.begin("shop", outside)
    with pytest.raises(Unknown):
        await bench.coordinator.get("shop", outside.gid)
    assert ["/reserve/action"] * 2 == [asked.path for asked in bench.party.asked]


async def test_a_node_takes_no_more_than_its_limit(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Trap 16: work is bounded."""
    monkeypatch.setattr(admission, "MAX_OPEN", 2)
    await bench.begin("tcc")
    await bench.begin("tcc")

    with pytest.raises(TooMany):
        await bench.begin("tcc")
