"""The coordinator on a real store, with participants over HTTP: what it calls, when, and what it tells."""

from __future__ import annotations

import asyncio
import time

import pytest

from tests.transactions.conftest import Bench, until
from tests.transactions.participants import Asked, Says
from unisono.transactions import admission
from unisono.transactions.errors import Decided, NotActive, Reused, TooMany, Unknown, UrlNotAllowed
from unisono.transactions.submission import Submission


def _no(branch: str, op: str, status: int = 409) -> object:
    async def script(asked: Asked) -> Says:
        return Says(status if (asked.branch, asked.op) == (branch, op) else 200)

    return script


async def test_a_saga_calls_every_action_once_and_commits(bench: Bench) -> None:
    view = await bench.run("saga", "a", "b")

    assert "committed" == view["status"]
    assert [("a", "action"), ("b", "action")] == sorted(bench.party.ops())


async def test_a_saga_compensates_what_was_done_when_a_branch_says_no(bench: Bench) -> None:
    bench.party.script = _no("b", "action")

    view = await bench.run("saga", "a", {"id": "b", "after": ["a"]}, {"id": "c", "after": ["b"]})

    assert "aborted" == view["status"]
    assert "branch b refused" in view["reason"]
    assert [("a", "action"), ("b", "action"), ("a", "compensate")] == bench.party.ops()


async def test_tcc_tries_all_then_confirms_all(bench: Bench) -> None:
    view = await bench.run("tcc", "a", "b")

    assert "committed" == view["status"]
    assert ["try", "try", "confirm", "confirm"] == [op for _, op in bench.party.ops()]


async def test_xa_rolls_back_what_was_prepared_when_a_branch_says_no(bench: Bench) -> None:
    bench.party.script = _no("b", "prepare")

    view = await bench.run("xa", "a", "b")

    assert "aborted" == view["status"]
    assert 1 == bench.party.count()["a", "rollback"]
    assert 0 == bench.party.count()["b", "rollback"]
    assert not any(op == "commit" for _, op in bench.party.ops())


async def test_undo_goes_in_the_reverse_order_of_the_graph(bench: Bench) -> None:
    """Trap 14."""
    bench.party.script = _no("d", "action")

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


@pytest.mark.parametrize("status", [302, 400, 404, 408, 418, 429, 500, 503])
async def test_an_unknown_answer_is_asked_again_and_decides_nothing(bench: Bench, status: int) -> None:
    """Trap 10; a redirect is not followed."""
    left = 1

    async def script(asked: Asked) -> Says:
        nonlocal left
        left -= 1
        return Says(status, {"location": f"{bench.party.url}/elsewhere"}) if left >= 0 else Says()

    bench.party.script = script
    view = await bench.run("saga", "a")

    assert "committed" == view["status"]
    assert ["/a/action", "/a/action"] == [asked.path for asked in bench.party.asked]


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"HTTP/1.1 200 OK\r\ncontent-le",
        b"HTTP/1.1 200 OK\r\ncontent-length: 20\r\n\r\nhalf",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhalf",
        b'HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\r\n{"half": ',
        b"nonsense\r\n\r\n",
    ],
)
async def test_an_answer_that_breaks_off_is_unknown(bench: Bench, raw: bytes) -> None:
    """Trap 10: half a body is no answer."""
    left = 1

    async def script(asked: Asked) -> Says:
        nonlocal left
        left -= 1
        return Says(raw=raw) if left >= 0 else Says()

    bench.party.script = script
    view = await bench.run("saga", "a")

    assert "committed" == view["status"]
    assert 2 == len(bench.party.asked)


async def test_words_in_a_body_decide_nothing(bench: Bench) -> None:
    """Trap 10: FAILURE in a 200 is a yes."""

    async def script(asked: Asked) -> Says:
        return Says(200, {"content-type": "application/json"}, b'{"dtm_result": "FAILURE"}')

    bench.party.script = script

    assert "committed" == (await bench.run("saga", "a"))["status"]


async def test_still_working_is_asked_again_at_its_own_pace_and_is_no_attempt(bench: Bench) -> None:
    """Trap 15."""
    left = 30

    async def script(asked: Asked) -> Says:
        nonlocal left
        left -= 1
        return Says(425, {"retry-after": "0.01"}) if left >= 0 else Says()

    bench.party.script = script
    begun = await bench.begin("saga", "a")
    running = begun.running
    assert running is not None
    await bench.end(begun.record.gid)

    assert 31 == len(bench.party.asked)
    assert 1 == running.machine.branches["a"].attempts


async def test_gone_counts_as_done_for_an_undo_but_not_for_a_forward_call(bench: Bench) -> None:
    """Trap 12."""

    async def script(asked: Asked) -> Says:
        return Says(410)

    bench.party.script = script
    view = await bench.run("tcc", "a", timeout_ms=300)

    assert "aborted" == view["status"]
    assert 1 == bench.party.count()["a", "cancel"]
    assert bench.party.count()["a", "try"] > 1


async def test_a_no_undoes_also_those_that_never_answered(bench: Bench) -> None:
    """Trap 13: c's call is on its way when b says no."""
    asked_c = asyncio.Event()

    async def script(asked: Asked) -> Says:
        if (asked.branch, asked.op) == ("c", "action"):
            asked_c.set()
            return Says(raw=b"")
        if (asked.branch, asked.op) == ("b", "action"):
            await asked_c.wait()
            return Says(409)
        return Says()

    bench.party.script = script
    view = await bench.run("saga", "a", "b", "c")

    assert "aborted" == view["status"]
    assert 1 == bench.party.count()["a", "compensate"]
    assert 1 == bench.party.count()["c", "compensate"]
    assert 0 == bench.party.count()["b", "compensate"]


async def test_a_no_after_an_unknown_answer_is_undone_all_the_same(bench: Bench) -> None:
    """The first call may have been carried out, whatever the second was told."""
    answers = [Says(500), Says(409)]

    async def script(asked: Asked) -> Says:
        return answers.pop(0) if asked.op == "action" else Says()

    bench.party.script = script
    view = await bench.run("saga", "a")

    assert "aborted" == view["status"]
    assert 1 == bench.party.count()["a", "compensate"]


async def test_a_confirm_that_says_no_is_asked_on_and_told_as_heuristic(bench: Bench) -> None:
    """Trap 11."""
    bench.party.script = _no("b", "confirm")
    begun = await bench.begin("tcc", "a", "b")
    gid = begun.record.gid
    await until(lambda: begun.running.machine.heuristic is not None)
    found = await bench.coordinator.find("shop", status="heuristic", limit=10)

    assert [gid] == [view["gid"] for view in found]
    bench.party.script = _no("nobody", "confirm")
    assert 1 == await bench.coordinator.retry("shop", gid)
    view = await bench.end(gid)
    assert "committed" == view["status"]
    assert "mixed" == view["heuristic"]["kind"]


async def test_an_operator_resolves_what_is_in_doubt_and_it_stays_known(bench: Bench) -> None:
    bench.party.script = _no("b", "confirm")
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
    bench.party.script = _no("b", "rollback", 404)
    begun = await bench.begin("xa")
    gid = begun.record.gid
    await bench.enrol(gid, "b")
    await bench.coordinator.decide("shop", gid, commit=False, wait=0)
    await until(lambda: bench.party.count()["b", "rollback"])

    view = await bench.coordinator.resolve(
        "shop", gid, outcome="undone", branches=["b"], reason="it never took part in XA", operator="ada"
    )

    assert ("aborted", "hazard") == (view["status"], view["heuristic"]["kind"])
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
