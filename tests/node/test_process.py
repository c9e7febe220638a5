"""The process driver with real processes: what they see, how they end, and how they are found again."""

from __future__ import annotations

import asyncio
import json
import os
import re
import resource
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from tests.node.test_cgroups import needs_cpu, needs_memory
from tests.node.world import gone, python, sweep
from unisono.control.records import Instance, Phase, Status
from unisono.node import processes
from unisono.node.drivers.base import CannotStart, Ended, Order, Running
from unisono.node.drivers.process import ProcessDriver
from unisono.node.paths import StateFolder
from unisono.node.pipes import Pipes
from unisono.node.ports import Ports
from unisono.spec.model import Dependency, HealthCheck, Resources, ServiceSpec

INSTANCE = Instance(application="shop", service="web", id="web-1", revision=3, node="here")
SLEEP = python("import time; time.sleep(600)")
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")


class Bench:
    """A driver and the folder it works in."""

    def __init__(self, folder: StateFolder) -> None:
        self.folder = folder
        self.pipes = Pipes(folder)
        self.driver = self.another()

    def another(self, node: str = "here") -> ProcessDriver:
        return ProcessDriver(node, self.folder, Ports(first=31000, last=31900), self.pipes)

    async def spawn(self, command: tuple[str, ...] = SLEEP, **changes: Any) -> Running:
        links = changes.pop("links", {})
        spec = ServiceSpec(name="web", command=command, inherited={"PATH": os.environ["PATH"]})
        order = Order(instance=INSTANCE, spec=replace(spec, **changes), generation=4, links=links)
        return await self.driver.spawn(order)

    async def ended(self, running: Running) -> Ended:
        async with asyncio.timeout(20):
            return await self.driver.ended(running)


@pytest_asyncio.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    folder = StateFolder(tmp_path / "state")
    folder.prepare()
    it = Bench(folder)
    yield it
    await it.driver.close()
    it.pipes.close()
    sweep(folder)


def status_of(running: Running, **changes: Any) -> Status:
    known = Status(
        phase=Phase.READY,
        since=0.0,
        generation=running.generation,
        pid=running.pid,
        start_time=running.start_time,
        boot_id=running.boot_id,
        port=running.port,
    )
    return replace(known, **changes)


def read(pid: int, name: str) -> str:
    return Path(f"/proc/{pid}/{name}").read_text()


async def test_an_instance_sees_its_port_its_links_and_its_name(bench: Bench, tmp_path: Path) -> None:
    """Own variables win over links, marks over all; {port} stands for the port."""
    file = tmp_path / "seen"
    code = f"""
import json, os, sys
json.dump([dict(os.environ), sys.argv, os.getcwd()], open({str(file)!r}, 'w'))
"""
    running = await bench.spawn(
        (*python(code), "--port={port}"),
        working_dir=str(tmp_path),
        environment={"A": "{port}", "B_URL": "mine", "UNISONO_NODE": "forged"},
        links={"B_URL": "http://127.0.0.1:20001", "C_URL": "http://127.0.0.1:20002"},
        depends_on=(Dependency(service="b"),),
    )
    await bench.ended(running)

    environment, arguments, folder = json.loads(file.read_text())
    port = str(running.port)
    assert arguments[-1] == f"--port={port}"
    assert folder == str(tmp_path)
    assert environment.items() >= {
        ("PORT", port),
        ("A", port),
        ("B_URL", "mine"),
        ("C_URL", "http://127.0.0.1:20002"),
        ("PYTHONUNBUFFERED", "1"),
        ("UNISONO_APPLICATION", "shop"),
        ("UNISONO_SERVICE", "web"),
        ("UNISONO_INSTANCE", "web-1"),
        ("UNISONO_NODE", "here"),
        ("UNISONO_GENERATION", "4"),
        ("UNISONO_REVISION", "3"),
    }


async def test_the_node_may_have_many_files_open_and_its_instances_as_many_as_before(tmp_path: Path) -> None:
    """Each instance takes two of the node's; a program may do something for each that it could have."""
    before = soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    folder = StateFolder(tmp_path / "state")
    folder.prepare()
    with ExitStack() as after:
        after.callback(sweep, folder)
        after.callback(resource.setrlimit, resource.RLIMIT_NOFILE, before)
        resource.setrlimit(resource.RLIMIT_NOFILE, (512, hard))
        it = Bench(folder)
        after.callback(it.pipes.close)
        running = await it.spawn()
        async with asyncio.timeout(20):
            while not re.search(r"Max open files +512 ", read(running.pid, "limits")):  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        own, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        await it.driver.close()

    assert own == min(hard, processes.FILES_MAX) >= soft


async def test_an_instance_leads_its_own_session_and_holds_no_descriptor_of_ours(bench: Bench) -> None:
    """Nothing ties it to the node: neither terminal nor open files."""
    running = await bench.spawn()
    async with asyncio.timeout(20):
        # What it opens while it loads itself comes and goes; what it inherited would stay.
        while {*descriptors(running.pid)} != {0, 1, 2}:  # noqa: ASYNC110 - another's, so no event
            await asyncio.sleep(0.01)

    stat = processes.read_stat(running.pid)
    fds = descriptors(running.pid)
    assert stat is not None
    assert stat.session == running.pid
    assert fds[0] == "/dev/null"
    assert fds[1].endswith("pipes/shop/web/web-1.out")
    assert fds[2].endswith("pipes/shop/web/web-1.err")


def descriptors(pid: int) -> dict[int, str]:
    """What a process has open; what it closes while we look is left out."""
    found = {}
    for name in os.listdir(f"/proc/{pid}/fd"):
        with suppress(FileNotFoundError):
            found[int(name)] = os.readlink(f"/proc/{pid}/fd/{name}")
    return found


@pytest.mark.parametrize(
    ("code", "expected"), [("raise SystemExit(3)", 3), ("import os; os.kill(os.getpid(), 9)", -9), ("", 0)]
)
async def test_the_exit_code_is_told(bench: Bench, code: str, expected: int) -> None:
    """A signal is a negative number."""
    running = await bench.spawn(python(code))

    assert await bench.ended(running) == Ended(code=expected)


async def test_a_crash_leaves_no_child_behind(bench: Bench, tmp_path: Path) -> None:
    """Not in its group, and not in another group of its session."""
    code = f"""
import os, subprocess, time
a = subprocess.Popen(["sleep", "600"])
b = subprocess.Popen(["sleep", "600"], process_group=0)
open({str(tmp_path / "tmp")!r}, "w").write(f"{{a.pid}} {{b.pid}}")
os.rename({str(tmp_path / "tmp")!r}, {str(tmp_path / "pids")!r})
os.kill(os.getpid(), 9)
"""
    running = await bench.spawn((sys.executable, "-c", code))
    await bench.ended(running)

    for pid in map(int, (tmp_path / "pids").read_text().split()):
        await gone(pid)


async def test_a_shell_in_front_passes_the_signal_on(bench: Bench, tmp_path: Path) -> None:
    """The program behind it gets the signal and the time it was promised, though the shell dies at once."""
    script = tmp_path / "server.py"
    script.write_text(f"""
import signal, sys, time
def stop(*_):
    time.sleep(0.3)
    open({str(tmp_path / "clean")!r}, "w").close()
    sys.exit(0)
signal.signal(signal.SIGTERM, stop)
open({str(tmp_path / "up")!r}, "w").close()
time.sleep(600)
""")
    running = await bench.spawn(("/bin/sh", "-c", f"{sys.executable} {script}; true"))
    async with asyncio.timeout(20):
        while not (tmp_path / "up").exists():  # noqa: ASYNC110 - the child's, so no event
            await asyncio.sleep(0.01)

    bench.driver.signal(running, "SIGTERM")
    end = await bench.ended(running)

    assert end.code == -signal.SIGTERM
    assert (tmp_path / "clean").exists()


async def test_a_kill_ends_what_ignores_the_signal_and_all_it_started(bench: Bench, tmp_path: Path) -> None:
    """SIGKILL goes to the whole session."""
    code = f"""
import signal, subprocess, time, os
signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = subprocess.Popen(["sleep", "600"])
open({str(tmp_path / "tmp")!r}, "w").write(str(child.pid))
os.rename({str(tmp_path / "tmp")!r}, {str(tmp_path / "pid")!r})
time.sleep(600)
"""
    running = await bench.spawn((sys.executable, "-c", code))
    async with asyncio.timeout(20):
        while not (tmp_path / "pid").exists():  # noqa: ASYNC110 - the child's, so no event
            await asyncio.sleep(0.01)
    bench.driver.signal(running, "SIGTERM")
    waiting = asyncio.create_task(bench.ended(running))
    await asyncio.sleep(0.1)
    ended_early = waiting.done()
    bench.driver.kill(running)

    assert (ended_early, (await waiting).code) == (False, -9)
    await gone(int((tmp_path / "pid").read_text()))


@pytest.mark.parametrize(
    ("command", "changes", "words"),
    [
        (("no-such-program",), {}, "cannot start: no such command: no-such-program"),
        (("./no-such-file",), {}, "cannot start: no such file: /no-such-file"),
        (("/etc/passwd",), {}, "cannot start: /etc/passwd is not executable"),
        (SLEEP, {"working_dir": "/no/such/folder"}, "no such folder: /no/such/folder"),
        (SLEEP, {"user": "no-such-user"}, "cannot start: no such user: no-such-user"),
        ((), {}, "cannot start: the service has no command"),
    ],
)
async def test_what_can_not_be_started_is_told_in_words(
    bench: Bench, command: tuple[str, ...], changes: dict[str, Any], words: str
) -> None:
    """And the port that was taken for it is free again."""
    with pytest.raises(CannotStart) as caught:
        await bench.spawn(command, **changes)

    assert words in str(caught.value)
    assert not bench.driver._ports._taken


async def test_the_port_is_free_again_after_the_end(bench: Bench) -> None:
    """For another instance, some day."""
    running = await bench.spawn(python(""))
    assert running.port in bench.driver._ports._taken

    await bench.ended(running)

    assert running.port not in bench.driver._ports._taken


async def test_a_worker_gets_no_port_unless_it_asks_for_one(bench: Bench) -> None:
    """Ports are for those that serve."""
    worker = HealthCheck(kind="none")
    without = await bench.spawn(serves=False, healthcheck=worker)
    asking = await bench.spawn((*SLEEP, "{port}"), serves=False, healthcheck=worker)

    assert without.port is None
    assert asking.port is not None


@needs_root
async def test_an_instance_can_run_as_another_user(bench: Bench, tmp_path: Path) -> None:
    """User, group, and its own pipes by their device names."""
    code = """
import os
open("/dev/stderr", "w").write("here")
os._exit(10 + (os.getuid() == os.getgid() == 65534))
"""
    running = await bench.spawn(("/usr/bin/env", "python3", "-c", code), user="65534:65534", inherited={})

    assert (await bench.ended(running)).code == 11


@needs_memory
async def test_an_instance_over_its_memory_limit_is_killed_and_it_says_so(bench: Bench) -> None:
    """With the limit of its service, by the kernel."""
    running = await bench.spawn(python("x = bytearray(300 << 20)"), resources=Resources(memory=64 << 20))

    assert await bench.ended(running) == Ended(code=-9, detail="over its memory limit")


@needs_cpu
@needs_root
async def test_limits_and_another_user_go_together(bench: Bench) -> None:
    """The instance is in its groups, with the pid that was told, and is not root."""
    running = await bench.spawn(
        ("/bin/sleep", "600"), user="65534:65534", resources=Resources(cpus=0.5, memory=64 << 20)
    )
    async with asyncio.timeout(20):
        while read(running.pid, "comm") != "sleep\n":  # noqa: ASYNC110 - not seen by us, so no event
            await asyncio.sleep(0.01)

    assert "shop-web-1-4" in read(running.pid, "cgroup")
    assert "Uid:\t65534\t65534\t65534\t65534\n" in read(running.pid, "status")


@needs_memory
async def test_control_groups_are_removed_after_the_end(bench: Bench) -> None:
    """Nothing is left on the machine."""
    running = await bench.spawn(python(""), resources=Resources(memory=64 << 20))
    folders = bench.driver._processes[running.pid].group.folders
    await bench.ended(running)
    async with asyncio.timeout(20):
        while any(folder.exists() for folder in folders):  # noqa: ASYNC110 - the kernel's, so no event
            await asyncio.sleep(0.01)

    assert folders


async def test_another_driver_adopts_the_very_process(bench: Bench) -> None:
    """What a restarted node does: same pid, its end is seen, its port counts as taken."""
    running = await bench.spawn()
    second = bench.another()

    adopted = second.adopt(INSTANCE, status_of(running))
    assert adopted == running
    assert running.port in second._ports._taken
    os.kill(running.pid, signal.SIGKILL)
    async with asyncio.timeout(20):
        assert (await second.ended(running)).code == -9
    await second.close()


@pytest.mark.parametrize("changes", [{"start_time": 1}, {"boot_id": "another boot"}, {"pid": 2**22 - 7}])
async def test_another_process_is_neither_adopted_nor_harmed(bench: Bench, changes: dict[str, Any]) -> None:
    """A reused pid is told from the instance by its start time and boot."""
    running = await bench.spawn()
    second = bench.another()

    assert second.adopt(INSTANCE, status_of(running, **changes)) is None
    assert processes.start_time(running.pid) == running.start_time


async def test_an_orphan_is_found_by_its_marks(bench: Bench) -> None:
    """Started, never written down: found with all that is needed to adopt it; its children are not."""
    running = await bench.spawn(("/bin/sh", "-c", "sleep 600 & wait"))
    second = bench.another()

    (orphan,) = second.orphans(known=())

    assert (orphan.application, orphan.service, orphan.running) == ("shop", "web", running)
    assert second.orphans(known=[running.pid]) == []
    assert bench.another(node="there").orphans(known=()) == []
    assert second.take(orphan) == running
    await second.close()


async def test_a_fixed_port_that_someone_uses_is_told(bench: Bench) -> None:
    """Before the program runs into it."""
    server = await asyncio.start_server(lambda reader, writer: None, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server:
        with pytest.raises(CannotStart, match=f"cannot start: port {port} is in use"):
            await bench.spawn(port=port)
