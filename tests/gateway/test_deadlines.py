"""How long a client waits is read, kept, and passed on."""

from __future__ import annotations

import asyncio
import json

import pytest

from tests.gateway.backend import OK, Backend, Peer, answering, breaking_late, resetting, silent
from tests.gateway.conftest import Stage


def get(*lines: str) -> bytes:
    """A request with further header lines."""
    return "\r\n".join(("GET / HTTP/1.1", "Host: a", *lines, "", "")).encode()


def header(backend: Backend, name: bytes, number: int = 0) -> str:
    """A header of a request as it arrived."""
    lines = backend.heads[number].lower().split(b"\r\n")
    (value,) = [line[len(name) + 1 :] for line in lines if line.startswith(name + b":")]
    return value.decode().strip()


@pytest.mark.parametrize("line", ["x-request-timeout: 0.2", "X-Request-Timeout: 200ms", "grpc-timeout: 200m"])
async def test_an_answer_later_than_the_client_waits_is_given_up(stage: Stage, line: str) -> None:
    """The client hears so, and the place is free again."""
    await stage.serve(silent)

    answer = await stage.ask(get(line))
    await stage.until("in_flight", 0)

    assert (answer.status, answer.reason) == (504, "deadline")
    assert json.loads(answer.body)["may_have_happened"] is True


async def test_the_services_own_limit_binds_where_it_is_smaller(stage: Stage) -> None:
    """A client cannot make the gateway wait for longer than the table says."""
    await stage.serve(silent)
    await stage.push(timeout_ms=100)

    answer = await stage.ask(get("x-request-timeout: 20"))

    assert answer.reason == "timeout"


async def test_no_time_is_left_for_a_place(stage: Stage) -> None:
    """A deadline of 0 is over: no instance hears of the request."""
    (backend,) = await stage.serve(answering())

    answer = await stage.ask(get("grpc-timeout: 0n"))

    assert (answer.reason, backend.heads) == ("deadline", [])
    assert json.loads(answer.body)["may_have_happened"] is False


async def test_what_is_left_goes_on_to_the_instance(stage: Stage) -> None:
    """The wait for a place is taken off."""
    release = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.head()
        await release.wait()
        await peer.say(OK)
        await peer.head()
        await peer.say(OK)
        await peer.gone()

    (backend,) = await stage.serve(script)
    await stage.push(concurrency=1)
    first = asyncio.create_task(stage.ask(get()))
    await stage.until("in_flight", 1)
    second = asyncio.create_task(stage.ask(get("x-request-timeout: 9", "grpc-timeout: 8S")))
    await stage.until("waiting", 1)
    await asyncio.sleep(0.2)
    release.set()
    assert ((await first).status, (await second).status) == (200, 200)

    left = float(header(backend, b"x-request-timeout", 1))
    grpc = header(backend, b"grpc-timeout", 1)

    assert 0 < left < 7.81
    assert (grpc[-1], 0 < int(grpc[:-1]) < 7_810_000) == ("u", True)


async def test_a_second_try_gets_what_the_first_left(stage: Stage) -> None:
    """Tries live inside one deadline."""

    first, second = await stage.serve(breaking_late, answering())
    while not first.heads:
        second.heads.clear()
        answer = await stage.ask(get("x-request-timeout: 9000ms"))

    assert answer.status == 200
    left = [int(header(backend, b"x-request-timeout").removesuffix("ms")) for backend in (first, second)]
    assert left[0] - left[1] >= 99


async def test_a_value_that_is_no_time_binds_nobody_and_goes_on_as_it_came(stage: Stage) -> None:
    """The service may mean something else by the name."""
    (backend,) = await stage.serve(answering())

    answer = await stage.ask(get("x-request-timeout: soon", "grpc-timeout: 5 minutes"))

    assert answer.status == 200
    assert header(backend, b"x-request-timeout") == "soon"
    assert header(backend, b"grpc-timeout") == "5 minutes"


async def test_no_try_begins_after_the_deadline(stage: Stage) -> None:
    """A request whose instances all break ends with its deadline at the latest."""
    backends = await stage.serve(resetting, resetting)

    answer = await stage.ask(get("x-request-timeout: 0.3"))
    tries = sum(len(backend.heads) for backend in backends)
    await asyncio.sleep(0.4)

    assert answer.status in (502, 504)
    assert sum(len(backend.heads) for backend in backends) == tries
