"""Probes against real servers and real commands."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from unisono.node import processes
from unisono.node.probes import Ill, probe
from unisono.spec.model import HealthCheck, ServiceSpec

HTTP = HealthCheck(kind="http", path="/healthz", timeout=5.0)


@asynccontextmanager
async def server(answer: bytes | None) -> AsyncIterator[tuple[str, list[bytes], asyncio.Event]]:
    """A server that answers so, or never; its address, what it was asked, and that the asker has gone."""
    requests: list[bytes] = []
    closed = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        requests.append(await reader.readuntil(b"\r\n\r\n") if answer is not None else b"")
        if answer is not None:
            writer.write(answer)
            await writer.drain()
        await reader.read()
        closed.set()
        writer.close()

    listener = await asyncio.start_server(serve, "127.0.0.1", 0)
    host, port = listener.sockets[0].getsockname()
    async with listener:
        yield f"{host}:{port}", requests, closed


def spec_of(check: HealthCheck, **more: Any) -> ServiceSpec:
    """A service that is asked so."""
    return ServiceSpec(name="web", healthcheck=check, inherited={"PATH": os.environ["PATH"]}, **more)


async def ask(check: HealthCheck, address: str | None = None) -> str:
    """What is wrong, or nothing."""
    try:
        await probe(spec_of(check), address)
    except Ill as error:
        return str(error)
    return ""


@pytest.mark.parametrize("status", [b"200 OK", b"204 No Content", b"302 Found", b"399"])
async def test_2xx_and_3xx_are_well(status: bytes) -> None:
    """A redirect shows that the program works."""
    async with server(b"HTTP/1.1 " + status + b"\r\n\r\n") as (address, requests, _):
        assert await ask(HTTP, address) == ""

    assert requests[0].startswith(b"GET /healthz HTTP/1.1\r\nHost: " + address.encode())


async def test_health_may_be_told_at_another_port() -> None:
    """Of the same host; a probe that fails names it."""
    async with server(b"HTTP/1.1 200 OK\r\n\r\n") as (address, _, _):
        port = int(address.rpartition(":")[2])
        well = await ask(HealthCheck(kind="http", port=port, timeout=5.0), "127.0.0.1:1")

    ill = await ask(HealthCheck(kind="http", port=port, timeout=5.0), "127.0.0.1:1")

    assert (well, ill) == ("", f"http port {port} /: connection refused")


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"HTTP/1.1 503 Service Unavailable\r\n\r\n", "http /healthz answered 503"),
        (b"HTTP/1.1 404 Not Found\r\n\r\n", "http /healthz answered 404"),
        (b"SSH-2.0-OpenSSH\r\n", "http /healthz answered 'SSH-2.0-OpenSSH\\r\\n', which is no HTTP"),
    ],
)
async def test_other_answers_are_ill(answer: bytes, words: str) -> None:
    """The reason names what was asked and what was answered."""
    async with server(answer) as (address, _, _):
        assert await ask(HTTP, address) == words


async def test_no_answer_in_time_is_ill_and_the_connection_is_closed() -> None:
    """A hanging program is found by the timeout, and no socket is left with it."""
    check = HealthCheck(kind="http", path="/healthz", timeout=0.05)
    async with server(None) as (address, _, closed):
        assert await ask(check, address) == "http /healthz did not answer within 0.05 s"
        async with asyncio.timeout(20):
            await closed.wait()


async def test_the_connection_is_closed_after_an_answer() -> None:
    """A probe leaves nothing open."""
    async with server(b"HTTP/1.1 200 OK\r\n\r\n") as (address, _, closed):
        await ask(HTTP, address)
        async with asyncio.timeout(20):
            await closed.wait()


@pytest.mark.parametrize("kind", ["tcp", "http"])
async def test_a_refused_connection_is_ill(kind: str) -> None:
    """In words, without an errno."""
    check = HealthCheck(kind=kind, path="/healthz")  # type: ignore[arg-type]

    assert "connection refused" in await ask(check, "127.0.0.1:1")


async def test_tcp_is_well_when_a_connection_can_be_made() -> None:
    """Nothing is said on it."""
    async with server(None) as (address, _, _):
        assert await ask(HealthCheck(kind="tcp"), address) == ""


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("raise SystemExit(0)", ""),
        ("raise SystemExit(3)", "health command {python} exited with 3"),
        ("import os; os.abort()", "health command {python} was killed by SIGABRT"),
    ],
)
async def test_a_command_is_judged_by_its_exit(code: str, words: str) -> None:
    """0 is well, as in Compose."""
    check = HealthCheck(kind="command", command=(sys.executable, "-c", code), timeout=20.0)

    assert await ask(check) == words.format(python=sys.executable)


async def test_a_command_sees_what_the_instance_sees() -> None:
    """Its own variables win over links; both know the port."""
    seen = '[ "$A" = 5:x ] && [ "$B_URL" = mine ] && [ "$C_URL" = c ] && [ "$PORT" = 5 ] && [ "$0" = 5 ]'
    check = HealthCheck(kind="command", command=("/bin/sh", "-c", seen, "{port}"), timeout=20.0)
    own = {"A": "{port}:x", "B_URL": "mine"}

    await probe(spec_of(check, environment=own), None, port=5, links={"B_URL": "b", "C_URL": "c"})


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
async def test_a_command_runs_as_the_user_of_its_service() -> None:
    """What that user wrote into the command's file would else run with the rights of the node."""
    check = HealthCheck(kind="command", command=("/bin/sh", "-c", '[ "$(id -u):$(id -G)" = 65534:65534 ]'))

    await probe(spec_of(check, user="65534:65534", working_dir="/"), None)


async def test_a_command_whose_user_is_gone_is_ill() -> None:
    """It says so; it does not run as somebody else."""
    check = HealthCheck(kind="command", command=("true",))

    with pytest.raises(Ill, match="health command true: cannot start: no such user: nobody-of-this-name"):
        await probe(spec_of(check, user="nobody-of-this-name"), None)


async def test_a_command_that_is_not_there_is_ill() -> None:
    """Not a fault of the node."""
    words = await ask(HealthCheck(kind="command", command=("no-such-check",)))

    assert words == "health command no-such-check: No such file or directory"


async def test_a_command_that_hangs_is_ended_with_all_it_started() -> None:
    """No process of a probe outlives it."""
    check = HealthCheck(kind="command", command=("/bin/sh", "-c", "sleep 77.25 & sleep 77.25"), timeout=0.2)

    assert await ask(check) == "health command sh did not answer within 0.2 s"
    async with asyncio.timeout(20):
        for pid in processes.all_pids():
            while _command(pid) == ["sleep", "77.25"]:  # noqa: ASYNC110 - not our child, so no event
                await asyncio.sleep(0.01)


def _command(pid: int) -> list[str]:
    try:
        with open(f"/proc/{pid}/cmdline") as file:
            return file.read().split("\0")[:-1]
    except OSError:
        return []
