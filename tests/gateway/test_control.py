"""What the node says to the gateway: tables, and what becomes of those that cannot be followed."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from tests.gateway.backend import Backend as Scripted
from tests.gateway.backend import answering
from tests.gateway.conftest import Running, Stage, eventually, target
from tests.ports import free_port
from unisono.gateway.errors import Outdated, Refused, Unbound, Unreachable
from unisono.gateway.link import GatewayLink
from unisono.gateway.process import GatewayProcess
from unisono.gateway.table import (
    Backend,
    HashOn,
    HeaderMatch,
    Hedge,
    Listener,
    Mirror,
    Retry,
    Rule,
    Share,
    Sticky,
    Table,
)

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"


def table_of(version: int, port: int, backend: Backend, *more: Listener) -> Table:
    """A table with one service behind one listener."""
    listener = Listener(address=f"127.0.0.1:{port}", rules=(Rule(service="shop/web"),))
    return Table(version=version, listeners=(listener, *more), services={"shop/web": backend})


async def get(port: int) -> bytes:
    """The first line of the answer to a GET."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(GET)
    try:
        return await reader.readline()
    finally:
        writer.transport.abort()


async def test_an_older_table_is_refused(stage: Stage) -> None:
    """The error carries the version in force, from which the node goes on."""
    await stage.push()

    with pytest.raises(Outdated) as caught:
        await stage.link.put_table(Table(version=0))

    assert caught.value.version == stage.running.version


async def test_the_table_in_force_can_be_read(stage: Stage) -> None:
    """It reads as it was written."""
    await stage.push(concurrency=3)

    table = await stage.link.table()

    assert (table["version"], table["services"]["shop/web"]["concurrency"]) == (stage.running.version, 3)


async def test_every_field_of_a_table_is_understood(stage: Stage) -> None:
    """Both sides mean the same words: what the gateway gives back has each value that was written."""
    backend = Backend(
        targets=(replace(target(0, 1), revision="2", weight=50),),
        concurrency="auto",
        protocol="h2",
        balance="ring_hash",
        hash_on=HashOn(of="header", name="x-user"),
        hash_load=None,
        hold=True,
        queue_max=7,
        queue_bytes_max=8,
        retry=Retry(attempts=2, budget=0.5, floor_per_s=1.5, statuses=(500,), backoff_ms=1, backoff_max_ms=2),
        hedge=Hedge(after_ms=50, budget=0.25),
        eject=False,
        slow_start_ms=0,
        sticky=Sticky(cookie="at"),
        mirror=Mirror(service="shop/copy", percent=12.5),
        split=(Share(revision="2", weight=5.0, header=HeaderMatch(name="x-canary", value="yes")),),
    )
    listener = Listener(
        address=f"127.0.0.1:{free_port()}", rules=(Rule(service="shop/web", priority="high"),), mode="tcp"
    )
    services = {"shop/web": backend, "shop/copy": Backend(hash_on=HashOn(of="client"))}
    stage.running.version += 1
    table = Table(version=stage.running.version, listeners=(listener,), services=services)
    await stage.link.put_table(table)

    read = await stage.link.table()

    assert read == json.loads(json.dumps(table.to_json()))


@pytest.mark.parametrize(
    "table",
    [
        table_of(9999, 1, Backend(concurrency=0)),
        table_of(9999, 1, Backend(retry=Retry(attempts=0))),
        Table(version=9999, listeners=(Listener(address="nowhere", rules=()),)),
        Table(version=9999, listeners=(Listener(address="127.0.0.1:1", rules=(Rule(service="a/b"),)),)),
    ],
    ids=["no concurrency", "no attempts", "no address", "no service"],
)
async def test_a_malformed_table_changes_nothing(stage: Stage, table: Table) -> None:
    """The error says what is wrong."""
    await stage.serve(answering())

    with pytest.raises(Refused, match=r"0|nowhere|address|a/b"):
        await stage.link.put_table(table)

    assert ((await stage.ask(GET)).status, (await stage.link.table())["version"]) == (
        200,
        stage.running.version,
    )


async def test_a_taken_address_leaves_the_table_in_force(stage: Stage) -> None:
    """Each listener that cannot be bound is named, with the reason; nothing is changed or bound."""
    await stage.serve(answering())
    with socket.socket() as taken, socket.socket() as again:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        free = free_port()

        with pytest.raises(Unbound) as caught:
            await stage.link.put_table(
                table_of(
                    stage.running.version + 1,
                    stage.port,
                    replace(stage.backend, targets=()),
                    Listener(address=f"127.0.0.1:{free}", rules=()),
                    Listener(address=address, rules=()),
                )
            )

        assert list(caught.value.addresses) == [address]
        assert "in use" in caught.value.addresses[address]
        assert (await stage.ask(GET)).status == 200
        again.bind(("127.0.0.1", free))


async def test_a_wider_address_takes_the_place_of_a_narrower_one(stage: Stage) -> None:
    """127.0.0.1 of a port gives way to 0.0.0.0 of the same in one table."""
    await stage.serve(answering())

    stage.running.version += 1
    listener = Listener(address=f"0.0.0.0:{stage.port}", rules=stage.rules)
    await stage.link.put_table(
        Table(version=stage.running.version, listeners=(listener,), services={"shop/web": stage.backend})
    )

    assert (await stage.ask(GET)).status == 200


async def test_a_listener_that_goes_ends_its_connections_with_an_answer(stage: Stage) -> None:
    """A kept-alive client of an address that is gone is told so, and to go."""
    await stage.serve(answering())
    client = await stage.connect()
    await client.say(GET)
    await client.answer()
    stage.running.version += 1
    await stage.link.put_table(Table(version=stage.running.version))

    await client.say(GET)
    answer = await client.answer()

    assert (answer.status, answer.reason, await client.is_closed()) == (404, "no_route", True)


async def test_calls_to_nobody_did_not_happen(folder: Path) -> None:
    """Where no gateway is, the error says that nothing can have happened."""
    link = GatewayLink(folder / "g.sock")

    with pytest.raises(Unreachable) as caught:
        await link.put_table(Table(version=1))

    assert (link.alive(), link.in_flight(), caught.value.may_have_happened) == (False, {}, False)


async def test_figures_can_be_had_at_once(stage: Stage) -> None:
    """in_flight() answers within the call."""
    await stage.serve(answering())
    await stage.ask(GET)

    assert stage.link.in_flight() == {"web-0": 0}
    assert (await stage.figures())["requests"] == 1


async def test_a_second_gateway_at_a_socket_is_refused(running: Running) -> None:
    """One is enough: the second ends with a line that says so and harms nothing."""
    command = [sys.executable, "-m", "unisono.gateway", str(running.socket), str(running.table)]
    second = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, check=False)

    assert (second.returncode, GatewayLink(running.socket).alive()) == (1, True)
    assert "another gateway runs" in second.stderr


async def test_a_gateway_told_to_stop_ends_its_answers(folder: Path) -> None:
    """After SIGTERM it takes nobody new, finishes what is in flight, and goes."""
    gateway, backend, release = Running(folder), Scripted(answering()), asyncio.Event()

    async def script(peer: object) -> None:
        await release.wait()
        await answering()(peer)  # type: ignore[arg-type]

    backend.script = script
    await backend.start()
    gateway.start()
    try:
        port = free_port()
        await GatewayLink(gateway.socket).put_table(
            table_of(1, port, Backend(targets=(target(0, backend.port),)))
        )
        answer = asyncio.create_task(get(port))
        link = GatewayLink(gateway.socket)
        await eventually(lambda: asyncio.to_thread(lambda: link.in_flight() == {"web-0": 1}))
        assert gateway.process is not None
        gateway.process.terminate()
        await eventually(lambda: asyncio.to_thread(lambda: not link.alive()))
        release.set()

        assert await answer == b"HTTP/1.1 200 OK\r\n"
        assert await asyncio.to_thread(gateway.process.wait, 20) == 0
    finally:
        gateway.stop()
        await backend.stop()


async def test_a_kept_table_that_is_none_is_passed_over(folder: Path) -> None:
    """A gateway starts without a table rather than not at all."""
    gateway = Running(folder)
    gateway.table.write_text("{")
    gateway.start()
    try:
        assert (await GatewayLink(gateway.socket).table())["version"] == 0
    finally:
        gateway.stop()


async def test_a_killed_gateway_is_replaced_and_serves_from_disk(folder: Path) -> None:
    """kill -9 of the gateway: another one serves the same table, though nobody pushed it."""
    backend, port, ready = Scripted(answering()), free_port(), asyncio.Queue[None]()
    await backend.start()
    process = GatewayProcess(folder / "g.sock", folder / "gateway.json")
    keeping = asyncio.create_task(process.run(lambda: ready.put_nowait(None)))
    try:
        async with asyncio.timeout(30):
            await ready.get()
            link = GatewayLink(folder / "g.sock")
            await link.put_table(table_of(1, port, Backend(targets=(target(0, backend.port),))))
            before, first = await get(port), process.pid
            assert first is not None
            os.kill(first, signal.SIGKILL)
            await ready.get()
            after = await get(port)

        assert (before, after) == (b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 200 OK\r\n")
        assert process.pid not in (None, first)
    finally:
        keeping.cancel()
        with suppress(asyncio.CancelledError):
            await keeping
        await process.stop()
        await backend.stop()
    assert not GatewayLink(folder / "g.sock").alive()


async def test_a_gateway_outlives_its_keeper_and_is_found_again(folder: Path) -> None:
    """A cancelled run leaves the gateway alone; the next keeper adopts the same process."""
    pids = []
    for _ in range(2):
        ready = asyncio.Event()
        process = GatewayProcess(folder / "g.sock", folder / "gateway.json")
        keeping = asyncio.create_task(process.run(ready.set))
        async with asyncio.timeout(30):
            await ready.wait()
        pids.append(process.pid)
        keeping.cancel()
        with suppress(asyncio.CancelledError):
            await keeping
    await process.stop()

    assert pids[0] == pids[1]


async def test_a_late_address_is_bound_once_it_is_free(folder: Path) -> None:
    """A gateway that starts while an address is taken serves the others, and this one as soon as it can."""
    backend, port = Scripted(answering()), free_port()
    await backend.start()
    gateway = Running(folder)
    gateway.table.write_text(
        json.dumps(table_of(1, port, Backend(targets=(target(0, backend.port),))).to_json())
    )
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", port))
        taken.listen()
        gateway.start()
    try:
        async with asyncio.timeout(20):
            while True:
                with suppress(ConnectionError):
                    if await get(port) == b"HTTP/1.1 200 OK\r\n":
                        break
                await asyncio.sleep(0.01)
    finally:
        gateway.stop()
        await backend.stop()
