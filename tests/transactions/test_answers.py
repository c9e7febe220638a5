"""What an answer of a participant makes the coordinator do, on a real store and over HTTP."""

from __future__ import annotations

import asyncio

import pytest

from tests.transactions.conftest import Bench
from tests.transactions.participants import Asked, Says


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
