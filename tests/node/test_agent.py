"""An agent with a real store and real processes: what is wanted comes to be, and stays so."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path

import pytest_asyncio

from tests.node.world import SECONDS, World, gone, python, spec_of, world
from unisono.control.records import (
    Goal,
    Instance,
    NodeRecord,
    Phase,
    decode,
    encode,
    instance_key,
    node_key,
    status_key,
)
from unisono.node import processes
from unisono.node.logs import LogQuery, follow_logs, read_logs
from unisono.spec.model import Dependency, HealthCheck, Resources, Restart
from unisono.store.base import Put

IGNORES_SIGTERM = """
import signal
signal.signal(signal.SIGTERM, signal.SIG_IGN)
"""
SERVER_THAT_FAILS_ON_REQUEST = """
import http.server, os, pathlib
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(503 if pathlib.Path(os.environ["ILL"]).exists() else 200); self.end_headers()
    def log_message(self, *args): pass
http.server.HTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
"""


@pytest_asyncio.fixture
async def node(tmp_path: Path) -> AsyncIterator[World]:
    async with world(tmp_path / "state") as it:
        await it.start_agent()
        yield it


async def kinds(node: World, *wanted: str) -> list[str]:
    """The kinds of happenings so far, once those that are wanted are among them."""
    async with asyncio.timeout(SECONDS):
        while True:
            found = [happening.kind for happening in await node.happenings()]
            if set(wanted) <= set(found):
                return found
            await asyncio.sleep(0.02)


async def eventually(condition: Callable[[], bool]) -> None:
    """For what another process does, which sends us no event."""
    async with asyncio.timeout(SECONDS):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.05)


async def test_instances_come_up_and_get_requests(node: World) -> None:
    """Recorded, started, found listening, in the table with the identity of their process."""
    await node.want(spec_of(), "web-1", "web-2")

    first = await node.until_phase("web-1", Phase.READY)
    await node.until_phase("web-2", Phase.READY)
    await node.gateway.until(lambda: len(node.gateway.targets()) == 2)

    target = node.gateway.targets()[0]
    assert (target.id, target.generation, target.pid, target.start_time) == (
        "web-1",
        1,
        first.pid,
        first.start_time,
    )
    assert target.address == f"127.0.0.1:{first.port}"


async def test_a_crashed_instance_is_replaced_at_once(node: World) -> None:
    """Killed: another process, another generation, in the table again; the status counts it."""
    await node.want(spec_of(), "web-1")
    before = await node.until_phase("web-1", Phase.READY)
    os.kill(before.pid or 0, signal.SIGKILL)

    after = await node.until("web-1", lambda s: s.phase is Phase.READY and s.generation == 2)
    await node.gateway.until(lambda: [t.generation for t in node.gateway.targets()] == [2])

    assert after.pid != before.pid
    assert (after.restarts, after.failures, after.exit_code) == (1, 1, -signal.SIGKILL)


async def test_one_that_keeps_crashing_waits_longer_and_says_why(node: World) -> None:
    """Backoff with the exit code, the last line of stderr and the time of the next try."""
    code = "import sys; print('starting'); sys.exit('no database at db:5432')"
    await node.want(spec_of(python(code)), "web-1")

    status = await node.until("web-1", lambda s: s.phase is Phase.BACKOFF and "last line" in s.reason)

    assert status.reason.startswith("exited with 1 after ")
    assert status.reason.endswith("s; last line: no database at db:5432")
    assert status.retry_at is not None
    assert status.retry_at > status.since
    later = await node.until("web-1", lambda s: s.phase is Phase.BACKOFF and s.failures >= 4)
    assert (later.retry_at or 0) - later.since > 0.25


async def test_what_can_not_be_started_says_so(node: World) -> None:
    """The reason is the driver's, and it is tried again: the program may be installed meanwhile."""
    await node.want(spec_of(("no-such-program",)), "web-1")

    status = await node.until_phase("web-1", Phase.BACKOFF)

    assert status.reason.startswith("cannot start: no such command: no-such-program")
    assert "instance-unstartable" in await kinds(node, "instance-unstartable")


async def test_the_goodbye_waits_for_the_gateway_and_for_requests(node: World) -> None:
    """Table without it, then drained, and only then the signal."""
    await node.want(spec_of(), "web-1")
    before = await node.until_phase("web-1", Phase.READY)
    await node.gateway.until(lambda: len(node.gateway.targets()) == 1)
    node.gateway.in_flight["web-1"] = 3
    await node.aim("web-1", Goal.STOP)
    await node.gateway.until(lambda: node.gateway.targets() == ())
    draining = await node.until_phase("web-1", Phase.DRAINING)
    lived_while_busy = processes.start_time(before.pid or 0) == before.start_time
    await node.gateway.finish("web-1")

    stopped = await node.until_phase("web-1", Phase.STOPPED)
    assert draining.pid == before.pid
    assert lived_while_busy
    assert node.gateway.calls[-2:] == ["table", "drained web-1"]
    assert (stopped.exit_code, stopped.reason) == (-signal.SIGTERM, "stopped")


async def test_what_ignores_its_signal_is_killed_after_the_grace(node: World) -> None:
    """And the user is told."""
    spec = spec_of(python(IGNORES_SIGTERM + spec_of().command[-1]), stop_grace_period=0.2)
    await node.want(spec, "web-1")
    before = await node.until_phase("web-1", Phase.READY)
    await node.aim("web-1", Goal.STOP)

    stopped = await node.until_phase("web-1", Phase.STOPPED)

    assert stopped.exit_code == -signal.SIGKILL
    assert stopped.reason == "stopped: still running 0.2 s after SIGTERM: killed"
    assert "instance-killed" in await kinds(node, "instance-killed")
    await gone(before.pid or 0)


async def test_an_instance_whose_record_is_removed_ends_and_leaves_nothing(node: World) -> None:
    """Neither process nor status nor pipes."""
    await node.want(spec_of(), "web-1")
    before = await node.until_phase("web-1", Phase.READY)

    await node.remove("web-1")

    await node.until_gone(status_key("shop", "web", "web-1"))
    await gone(before.pid or 0)
    await eventually(lambda: not (node.folder.pipes / "shop").exists())


async def test_a_sick_instance_leaves_the_table_and_comes_back_when_well(node: World, tmp_path: Path) -> None:
    """Unhealthy after `retries` failures, with the reason; ready again after one success."""
    ill = tmp_path / "ill"
    check = HealthCheck(kind="http", path="/healthz", interval=0.05, retries=2)
    spec = spec_of(python(SERVER_THAT_FAILS_ON_REQUEST), environment={"ILL": str(ill)}, healthcheck=check)
    await node.want(spec, "web-1")
    await node.until_phase("web-1", Phase.READY)
    ill.touch()
    sick = await node.until_phase("web-1", Phase.UNHEALTHY)
    await node.gateway.until(lambda: node.gateway.targets() == ())
    ill.unlink()

    await node.until_phase("web-1", Phase.READY)
    await node.gateway.until(lambda: len(node.gateway.targets()) == 1)
    assert sick.reason == "http /healthz answered 503 (2 times in a row)"


async def test_a_command_decides_over_health(node: World, tmp_path: Path) -> None:
    """Without a port of its own, as a worker's."""
    well = tmp_path / "well"
    check = HealthCheck(
        kind="command",
        command=("test", "-e", str(well)),
        interval=0.05,
        start_interval=0.05,
        start_period=60.0,
    )
    await node.want(spec_of(python("import time; time.sleep(600)"), serves=False, healthcheck=check), "web-1")
    waiting = await node.until("web-1", lambda s: "health command test exited with 1" in s.reason)
    well.touch()

    ready = await node.until_phase("web-1", Phase.READY)
    assert waiting.phase is Phase.STARTING
    assert ready.port is None


async def test_one_that_listens_on_another_port_is_told_the_remedy(node: World) -> None:
    """After a few seconds of waiting in vain."""
    code = """
import socket, time
server = socket.create_server(("127.0.0.1", 0))
time.sleep(600)
"""
    await node.want(spec_of(python(code)), "web-1")

    status = await node.until("web-1", lambda s: "but on" in s.reason)

    assert status.reason.endswith("let its command take {port}, or $PORT")


async def test_a_job_runs_once_and_its_end_is_kept(node: World) -> None:
    """A release command: not routed, not started again, its exit code told."""
    await node.want(spec_of(), "web-release", job=python("import sys; sys.exit('migration 7 failed')"))

    status = await node.until("web-release", lambda s: s.phase is Phase.FAILED and "last line" in s.reason)

    assert status.exit_code == 1
    assert status.reason.endswith("last line: migration 7 failed")
    assert node.gateway.targets() == ()


async def test_a_service_that_ends_well_is_completed(node: World) -> None:
    """on-failure: an exit with 0 is the end."""
    spec = spec_of(python(""), restart=Restart(policy="on-failure"), serves=False)
    await node.want(spec, "web-1")

    status = await node.until_phase("web-1", Phase.COMPLETED)

    assert status.exit_code == 0


async def test_a_dependency_is_seen_as_url(node: World) -> None:
    """<NAME>_URL leads to the gateway's own address for that service."""
    await node.want(spec_of(name="user-db", serves=False), "db-1")
    code = "import os, time; print(os.environ['USER_DB_URL']); time.sleep(600)"
    spec = spec_of(python(code), serves=False, depends_on=(Dependency(service="user-db"),))
    await node.want(spec, "web-1")

    async with asyncio.timeout(SECONDS):
        async for lines in follow_logs(node.folder.logs, LogQuery(application="shop", service="web")):
            if lines:
                break

    assert [line.text for line in lines] == ["http://127.0.0.1:20000"]


async def test_a_limit_that_can_not_be_had_is_told(node: World) -> None:
    """In the status, and as an event; the instance runs all the same."""
    assert node.agent is not None
    node.agent._driver._cgroups = type(node.agent._driver._cgroups)()  # type: ignore[attr-defined]
    await node.want(spec_of(resources=Resources(cpus=2.0)), "web-1")

    status = await node.until_phase("web-1", Phase.READY)

    assert status.reason.startswith("the limit of 2 CPUs is not applied")
    assert "instance-limited" in await kinds(node, "instance-limited")


async def test_what_instances_write_survives_the_log_process(node: World, tmp_path: Path) -> None:
    """It is killed; another one reads what was written meanwhile, and goes on."""
    go = tmp_path / "go"
    code = f"""
import os, time
for number in range(30):
    while number == 6 and not os.path.exists({str(go)!r}):
        time.sleep(0.01)
    print("line", number)
"""
    await node.want(spec_of(python(code + "time.sleep(600)"), serves=False), "web-1")
    query = LogQuery(application="shop")
    assert node.agent is not None
    found: list[str] = []
    async with asyncio.timeout(SECONDS):
        async for lines in follow_logs(node.folder.logs, query):
            found += [line.text for line in lines]
            if len(found) == 6:
                os.kill(node.agent._log_keeper.pid or 0, signal.SIGKILL)
                go.touch()
            if len(found) >= 30:
                break

    assert found == [f"line {number}" for number in range(30)]
    assert "logger-restarted" in await kinds(node, "logger-restarted")


async def test_a_flood_of_output_harms_nobody(node: World) -> None:
    """More than a pipe holds, as fast as it goes: the instance ends by itself, all lines are there."""
    code = "import sys\nfor number in range(40_000): sys.stdout.write(f'{number:06d} ' + 'x' * 60 + '\\n')"
    await node.want(spec_of(python(code), serves=False, restart=Restart(policy="no")), "web-1")
    await node.until_phase("web-1", Phase.COMPLETED)

    query = LogQuery(application="shop")
    await eventually(lambda: len(list(read_logs(node.folder.logs, query))) >= 40_000)
    lines = list(read_logs(node.folder.logs, query))
    assert [int(line.text[:6]) for line in lines] == list(range(40_000))


async def test_a_spec_with_the_same_digest_takes_effect_on_what_runs(node: World) -> None:
    """A new grace period needs no new process."""
    command = python(IGNORES_SIGTERM + spec_of().command[-1])
    await node.want(spec_of(command, stop_grace_period=600.0), "web-1")
    before = await node.until_phase("web-1", Phase.READY)
    changed = spec_of(command, stop_grace_period=0.1)
    await node.want(changed, revision=2)
    await node.aim("web-1", Goal.STOP)

    stopped = await node.until_phase("web-1", Phase.STOPPED)
    assert stopped.generation == before.generation == 1


async def test_instances_of_another_node_are_left_alone(node: World) -> None:
    """Each agent runs what bears its node's name."""
    await node.want(spec_of(), "web-1")
    ours = Instance(application="shop", service="web", id="web-2", revision=1, node="there")
    theirs = replace(ours, id="web-3")
    await node.store.transact(success=[Put(key=instance_key("shop", "web", "web-3"), value=encode(theirs))])
    await node.until_phase("web-1", Phase.READY)

    assert await node.status("web-3") is None


async def test_the_node_writes_itself_down(node: World) -> None:
    """For those that place instances."""
    async with asyncio.timeout(SECONDS):
        batch = await anext(aiter(node.store.watch(node_key("here"), after=0)))

    entry = batch.events[0].entry
    assert entry is not None
    assert decode(NodeRecord, entry.value).id == "here"
