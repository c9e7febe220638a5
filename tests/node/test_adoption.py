"""A node that dies and comes back: instances never notice, and nothing is left over or doubled."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import pytest_asyncio

import unisono
from tests.node.world import World, gone, python, spec_of, world
from unisono.control.records import (
    Goal,
    Instance,
    Phase,
    Status,
    decode,
    encode,
    instance_key,
    status_key,
)
from unisono.node import processes
from unisono.node.drivers.base import Order
from unisono.node.drivers.process import ProcessDriver
from unisono.node.pipes import Pipes
from unisono.node.ports import Ports
from unisono.store.base import Delete, NotDone, Put, Snapshot

CHILD = """
import asyncio, json, sys
from pathlib import Path
from unisono.control.records import Phase, Status, decode
from tests.node.fake_gateway import FakeGateway
from unisono.node.agent import Agent
from unisono.node.paths import NodeLock, StateFolder
from unisono.store.sqlite import SqliteStore

async def main() -> None:
    folder = StateFolder(Path(sys.argv[1]))
    folder.prepare()
    with NodeLock(folder):
        store = await SqliteStore.open(folder.store_file)
        gateway = FakeGateway()
        agent = asyncio.create_task(Agent(store, "here", folder, gateway, "127.0.0.1:8080").run())
        await gateway.until(lambda: len(gateway.targets()) == 3)
        seen = await store.scan("status/")
        while any(decode(Status, entry.value).phase is not Phase.READY for entry in seen.entries):
            await asyncio.sleep(0.01)
            seen = await store.scan("status/")
        print(json.dumps({target.id: target.pid for target in gateway.targets()}), flush=True)
        await agent

asyncio.run(main())
"""


@pytest_asyncio.fixture
async def node(tmp_path: Path) -> AsyncIterator[World]:
    """A world whose agent has not been started."""
    async with world(tmp_path / "state") as it:
        yield it


@contextmanager
def node_process(path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A tiny node as a process of its own; killed at the end."""
    source, root = Path(unisono.__file__).parents[1], Path(__file__).parents[2]
    process = subprocess.Popen(
        [sys.executable, "-c", CHILD, path],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (source, root)))},
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


async def test_killing_the_node_kills_no_instance_and_the_next_adopts_all(tmp_path: Path) -> None:
    """kill -9 of a node with three instances: same pids, same generation, ready throughout."""
    path = tmp_path / "state"
    async with world(path) as before:
        await before.want(spec_of(), "web-1", "web-2", "web-3")
    with node_process(path) as process:
        assert process.stdout is not None
        pids = json.loads(await asyncio.to_thread(process.stdout.readline))
        process.send_signal(signal.SIGKILL)
        process.wait()
    alive = [processes.start_time(pid) is not None for pid in pids.values()]

    async with world(path) as after:
        await after.start_agent()
        await after.gateway.until(lambda: len(after.gateway.tables) > 0)
        first_table = after.gateway.tables[0].services or {}

        assert alive == [True, True, True]
        targets = {target.id: target.pid for target in first_table["shop/web"].targets}
        assert targets == pids
        for id, pid in pids.items():
            status = await after.status(id)
            assert status is not None
            assert (status.phase, status.pid, status.generation) == (Phase.READY, pid, 1)


async def test_an_agent_that_ends_leaves_instances_running(node: World) -> None:
    """Stopping the node is not stopping the application."""
    await node.start_agent()
    await node.want(spec_of(), "web-1")
    before = await node.until_phase("web-1", Phase.READY)
    await node.stop_agent()
    alive = processes.start_time(before.pid or 0)
    await node.start_agent()

    after = await node.until_phase("web-1", Phase.READY)
    assert alive == before.start_time
    assert after == before


async def test_what_died_while_the_node_was_down_is_started_again(node: World) -> None:
    """With another generation, and the status says what happened."""
    await node.start_agent()
    await node.want(spec_of(), "web-1")
    before = await node.until_phase("web-1", Phase.READY)
    await node.stop_agent()
    os.kill(before.pid or 0, signal.SIGKILL)
    await gone(before.pid or 0)
    await node.start_agent()

    after = await node.until("web-1", lambda s: s.phase is Phase.READY and s.generation > before.generation)
    assert after.restarts == 1
    told = [happening.message for happening in await node.happenings()]
    assert any(message.startswith("ended while the node was down") for message in told)


async def test_an_instance_that_should_have_stopped_meanwhile_is_stopped(node: World) -> None:
    """In the usual order: the first table may have it, the one before its signal has not."""
    await node.start_agent()
    await node.want(spec_of(), "web-1")
    before = await node.until_phase("web-1", Phase.READY)
    await node.stop_agent()
    await node.aim("web-1", Goal.STOP)
    await node.start_agent()

    stopped = await node.until_phase("web-1", Phase.STOPPED)
    await gone(before.pid or 0)
    assert stopped.exit_code == -signal.SIGTERM
    assert node.gateway.calls[-2:] == ["table", "drained web-1"]


async def test_an_instance_whose_record_went_meanwhile_is_stopped(node: World) -> None:
    """Its status is the only trace of it."""
    await node.start_agent()
    await node.want(spec_of(), "web-1")
    before = await node.until_phase("web-1", Phase.READY)
    await node.stop_agent()
    await node.remove("web-1")
    await node.start_agent()

    await node.until_gone(status_key("shop", "web", "web-1"))
    await gone(before.pid or 0)


async def test_pipes_of_what_is_no_more_are_removed(node: World) -> None:
    """Records and process went while the node was down; its pipes would stay for ever."""
    await node.start_agent()
    await node.want(spec_of(), "web-1", "web-2")
    before = await node.until_phase("web-1", Phase.READY)
    await node.until_phase("web-2", Phase.READY)
    await node.stop_agent()
    processes.send(before.pid or 0, signal.SIGKILL)
    await gone(before.pid or 0)
    await node.remove("web-1")
    await node.start_agent()

    left = sorted(path.name for path in (node.folder.pipes / "shop" / "web").iterdir())
    assert left == ["web-2.err", "web-2.out"]


@pytest.mark.parametrize("goal", [Goal.RUN, Goal.STOP, None])
async def test_what_was_started_but_never_written_down_is_adopted_or_ended(
    node: World, goal: Goal | None
) -> None:
    """The node died between the start and the status: found by the marks in its environment."""
    instance = Instance(application="shop", service="web", id="web-1", revision=1, node="here")
    pipes = Pipes(node.folder)
    driver = ProcessDriver("here", node.folder, Ports(), pipes)
    running = await driver.spawn(Order(instance=instance, spec=spec_of(), generation=1))
    await node.want(spec_of(), "web-1")
    if goal is None:
        await node.remove("web-1")
    else:
        await node.aim("web-1", goal)
    await driver.close()
    pipes.close()
    await node.start_agent()

    if goal is Goal.RUN:
        status = await node.until_phase("web-1", Phase.READY)
        assert (status.pid, status.generation) == (running.pid, 1)
    else:
        await gone(running.pid)


async def test_what_a_running_instance_started_in_a_session_of_its_own_lives_on(
    node: World, tmp_path: Path
) -> None:
    """It bears the instance's marks, which are inherited; PostgreSQL's processes, for one, are such."""
    code = f"""
import os, subprocess, time
helper = subprocess.Popen(["sleep", "600"], start_new_session=True)
with open({str(tmp_path / "new")!r}, "w") as file:
    file.write(str(helper.pid))
os.rename({str(tmp_path / "new")!r}, {str(tmp_path / "helper")!r})
time.sleep(600)
"""
    await node.start_agent()
    await node.want(spec_of(python(code), serves=False), "web-1")
    async with asyncio.timeout(20):
        while not (tmp_path / "helper").exists():  # noqa: ASYNC110 - the child's, so no event
            await asyncio.sleep(0.01)
    before = await node.until_phase("web-1", Phase.READY)
    await node.stop_agent()
    await node.start_agent()
    after = await node.until_phase("web-1", Phase.READY)

    assert (before.pid, before.generation) == (after.pid, after.generation)
    assert processes.start_time(int((tmp_path / "helper").read_text())) is not None


async def test_a_process_that_got_the_pid_meanwhile_is_neither_adopted_nor_killed(node: World) -> None:
    """The start time tells them apart: a stranger goes on, the instance is started anew."""
    stranger = await asyncio.create_subprocess_exec("sleep", "600")
    try:
        await node.want(spec_of(), "web-1")
        status = Status(
            phase=Phase.READY,
            since=0.0,
            generation=1,
            pid=stranger.pid,
            start_time=(processes.start_time(stranger.pid) or 0) - 1,
            boot_id=processes.boot_id(),
        )
        await node.store.transact(success=[Put(key=status_key("shop", "web", "web-1"), value=encode(status))])
        await node.start_agent()

        ready = await node.until("web-1", lambda s: s.phase is Phase.READY and s.generation > 1)
        assert ready.pid != stranger.pid
        assert stranger.returncode is None
        assert processes.start_time(stranger.pid) is not None
    finally:
        stranger.kill()
        await stranger.wait()


async def test_no_table_goes_out_before_all_that_runs_is_in_it(node: World) -> None:
    """Each table that a restarted node sends has every instance that serves."""
    await node.start_agent()
    await node.want(spec_of(), "web-1", "web-2", "web-3")
    for id in ("web-1", "web-2", "web-3"):
        await node.until_phase(id, Phase.READY)
    await node.gateway.until(lambda: len(node.gateway.targets()) == 3)
    await node.stop_agent()
    node.gateway.tables.clear()
    await node.start_agent()
    await node.gateway.until(lambda: len(node.gateway.tables) > 0)

    assert [len((table.services or {})["shop/web"].targets) for table in node.gateway.tables] == [3]


async def test_a_watch_that_lost_its_place_is_made_up_for(node: World) -> None:
    """Compaction while the agent was slow: it compares everything, and misses nothing."""
    agent = await node.start_agent()
    await node.want(spec_of(), "web-1", "web-2")
    await node.until_phase("web-1", Phase.READY)
    await node.until_phase("web-2", Phase.READY)
    entry = await node.store.get(instance_key("shop", "web", "web-2"))
    assert entry is not None
    # What _follow does when it is told Compacted, with changes that it has not seen as events.
    agent._wanted.instances.pop(("shop", "web", "web-2"))
    agent._wanted.instances[("shop", "web", "web-9")] = replace(decode(Instance, entry.value), id="web-9")
    agent._instance_put(("shop", "web", "web-9"), agent._wanted.instances[("shop", "web", "web-9")])
    await node.until_phase("web-9", Phase.READY)
    await node.store.transact(success=[Delete(key=instance_key("shop", "web", "web-1"))])
    await agent._catch_up()

    await node.until_gone(status_key("shop", "web", "web-1"))
    await node.until_gone(status_key("shop", "web", "web-9"))
    remaining = await node.status("web-2")
    assert remaining is not None
    assert remaining.phase is Phase.READY


async def test_a_store_that_is_away_while_all_is_compared_is_waited_for(
    node: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A running agent does not end for it: it has all once the store answers."""
    agent = await node.start_agent()
    await node.want(spec_of(), "web-1")
    await node.until_phase("web-1", Phase.READY)
    before = (await node.store.scan("")).revision
    scan, silent = node.store.scan, [NotDone("no member answered")]

    async def silent_once(prefix: str, *, revision: int | None = None) -> Snapshot:
        if silent:
            raise silent.pop()
        return await scan(prefix, revision=revision)

    monkeypatch.setattr(node.store, "scan", silent_once)
    revision = await agent._catch_up()

    assert silent == []
    assert revision >= before
