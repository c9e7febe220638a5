"""
``unisono demo``: the shop of examples/ under load, while things are done to it that hurt elsewhere.

Everything goes through what a user has as well: the ``unisono`` command, the node's API, kill. The node has
a state folder and ports of its own and is gone afterwards, also after Ctrl-C. Progress goes to stderr, the
result to stdout.
"""

from __future__ import annotations

import json as js
import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from unisono.cli import output
from unisono.cli.exits import CommandFailed
from unisono.cli.options import JsonOption
from unisono.client import NodeClient, NodeError
from unisono.client.views import InstanceView
from unisono.node.paths import StateFolder

APPLICATION = "shop"
SERVICES = ("orders", "payments", "inventory")
REQUEST = "/orders/quote/book"  # reaches all three services
RATE = 60.0  # requests per second, sent whether or not answers come
CONNECTIONS = 32
STEADY_SECONDS = 4.0
KILLS = 6
COMMAND_TIMEOUT = 60.0
REPLACE_TIMEOUT = 30.0


@dataclass(frozen=True, kw_only=True)
class Phase:
    """What the clients of the shop saw while one thing was done to it; latencies are milliseconds."""

    name: str
    seconds: float
    requests: int
    failures: int
    p50_ms: float
    p99_ms: float
    statuses: dict[str, int]  # answers by HTTP status; a request without one failed as well


@dataclass(kw_only=True)
class Outcome:
    """All that is shown at the end."""

    phases: list[Phase] = field(default_factory=list)
    replaced_seconds: list[float] = field(default_factory=list)  # kill -9 to ready again, each
    problems: list[str] = field(default_factory=list)

    @property
    def succeeded(self) -> bool:
        """No request failed, and everything that was done took effect."""
        return not self.problems and all(phase.requests and not phase.failures for phase in self.phases)


def demo(json: JsonOption = False) -> None:
    """
    Show what unisono does: start a shop, load it, kill instances, roll out, scale, kill the node.

    Runs for less than a minute, in a state folder and on ports of its own. Ends with 0 only if no request
    failed.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that nothing is left running then either
    stage = Stage(find_shop())
    try:
        outcome = play(stage)
    finally:
        stage.clear()
    if json:
        output.data(as_data(outcome))
    else:
        show(outcome)
    if not outcome.succeeded:
        raise CommandFailed("; ".join(outcome.problems) or failures_of(outcome))


def find_shop() -> Path:
    """
    The example's folder in the checkout that this module belongs to.

    Raises:
        CommandFailed: unisono was installed without its examples.
    """
    folder = Path(__file__).resolve().parents[3] / "examples" / "shop"
    if not (folder / "unisono.yaml").is_file():
        raise CommandFailed(
            f"the demo needs the example application, and there is none in {folder}",
            hint="run it in a checkout of unisono: `make demo`",
        )
    return folder


class Stage:
    """A node of the demo's own, spoken to as a user would."""

    def __init__(self, shop: Path) -> None:
        self._shop = shop
        self._path = Path(tempfile.mkdtemp(prefix="unisono-demo-"))
        folder = StateFolder(self._path / "state")
        self._state = str(folder.path)
        self._listen = f"127.0.0.1:{_free_port()}"
        self.url = f"http://{self._listen}{REQUEST}"
        self.client = NodeClient(folder.api_socket)

    def unisono(self, *arguments: str, revision: int = 1) -> None:
        """
        Run a command.

        Raises:
            CommandFailed: It failed; the message is the command's own.
        """
        output.say(f"$ {f'SHOP_REVISION={revision} ' if revision > 1 else ''}unisono {' '.join(arguments)}")
        binaries = os.path.dirname(sys.executable)
        environment = {
            **os.environ,
            "UNISONO_STATE": self._state,
            "UNISONO_LISTEN": self._listen,
            "SHOP_REVISION": str(revision),
            "PYTHON": sys.executable,
            "PATH": f"{binaries}:{os.environ.get('PATH', os.defpath)}",
        }
        environment.pop("UNISONO_PROJECT", None)
        done = subprocess.run(
            [sys.executable, "-m", "unisono", *arguments],
            cwd=self._shop,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=COMMAND_TIMEOUT,
            check=False,
        )
        if done.returncode:
            raise CommandFailed(f"unisono {' '.join(arguments)} failed: {done.stderr.strip()[-2000:]}")

    def ready(self, service: str) -> list[InstanceView]:
        """The service's instances that get requests."""
        return [
            one for one in self.client.instances(APPLICATION) if one["service"] == service and is_ready(one)
        ]

    def clear(self) -> None:
        """Take everything down, whatever state it is in."""
        gateway, left = None, []
        with suppress(NodeError):
            gateway = self.client.node()["gateway"]["pid"]
            left = [one["pid"] for one in self.client.instances(APPLICATION) if one["pid"]]
        with suppress(CommandFailed, subprocess.TimeoutExpired):
            self.unisono("down")
        with suppress(NodeError):
            self.client.stop_node()  # only one that was not there to see its last application go
        for pid in [*left, *([gateway] if gateway else [])]:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        shutil.rmtree(self._path, ignore_errors=True)


def play(stage: Stage) -> Outcome:
    """The whole story; what goes wrong in it is in the outcome."""
    outcome = Outcome()
    stage.unisono("up", "-d")
    with phase(outcome, stage, "steady"):
        time.sleep(STEADY_SECONDS)
    with phase(outcome, stage, f"kill -9 of {KILLS} instances"):
        for turn in range(KILLS):
            outcome.replaced_seconds.append(kill_one(stage, SERVICES[turn % len(SERVICES)]))
    with phase(outcome, stage, "rollout to revision 2"):
        before = {one["id"] for one in stage.client.instances(APPLICATION)}
        stage.unisono("apply", "--yes", revision=2)
    if before & {one["id"] for one in stage.client.instances(APPLICATION) if is_ready(one)}:
        outcome.problems.append("instances of the old revision still run after the rollout")
    with phase(outcome, stage, "scale orders to 4 and back"):
        stage.unisono("scale", "orders=4")
        stage.unisono("scale", "orders=2")
    with phase(outcome, stage, "kill -9 of the node"):
        kill_node(stage, outcome)
    return outcome


def kill_one(stage: Stage, service: str) -> float:
    """Kill an instance and wait for its replacement; the seconds between."""
    victim = stage.ready(service)[0]
    wanted = len(stage.ready(service))
    output.say(f"$ kill -9 {victim['pid']}  # {victim['id']}")
    os.kill(victim["pid"] or 0, signal.SIGKILL)
    return wait_until(
        lambda: len([one for one in stage.ready(service) if one["pid"] != victim["pid"]]) >= wanted,
        f"{victim['id']} was replaced",
    )


def kill_node(stage: Stage, outcome: Outcome) -> None:
    """Kill the node, let the shop run without one for a moment, and have a new one adopt it."""
    before = processes(stage)
    pid = stage.client.node()["pid"]
    output.say(f"$ kill -9 {pid}  # the node")
    os.kill(pid, signal.SIGKILL)
    time.sleep(1.0)
    stage.unisono("up", "-d", revision=2)
    after = processes(stage)
    if before != after:
        outcome.problems.append(f"the new node did not adopt every instance: {before} became {after}")


def processes(stage: Stage) -> dict[str, int | None]:
    """The process of each instance that gets requests; those on their way out are left out."""
    return {one["id"]: one["pid"] for one in stage.client.instances(APPLICATION) if is_ready(one)}


@contextmanager
def phase(outcome: Outcome, stage: Stage, name: str) -> Iterator[None]:
    """Load the shop for as long as the block lasts, and add what its clients saw to the outcome."""
    from unisono._engine import Load  # noqa: PLC0415 - only this command needs the engine

    output.say(f"\n{name}")
    with Load(stage.url, rate=RATE, connections=CONNECTIONS) as load:
        yield
    seen = js.loads(load.report())
    outcome.phases.append(
        Phase(
            name=name,
            seconds=seen["seconds"],
            requests=seen["requests"],
            failures=seen["failed"],
            p50_ms=seen["latency_ms"]["p50"],
            p99_ms=seen["latency_ms"]["p99"],
            statuses=seen["statuses"],
        )
    )
    output.say(f"  {seen['requests']} requests, {seen['failed']} failed")


def show(outcome: Outcome) -> None:
    """The table on stdout, and a sentence for what it does not hold."""
    from rich.table import Table  # noqa: PLC0415 - as everywhere in the CLI, only when something is shown

    table = Table(title="The shop, as its clients saw it", title_justify="left")
    table.add_column("while")
    for name in ("requests", "failures", "p50 ms", "p99 ms"):
        table.add_column(name, justify="right")
    for one in outcome.phases:
        style = "red" if one.failures else None
        table.add_row(
            one.name,
            str(one.requests),
            str(one.failures),
            f"{one.p50_ms:.1f}",
            f"{one.p99_ms:.1f}",
            style=style,
        )
    console = output.console(sys.stdout)
    console.print(table)
    if outcome.replaced_seconds:
        median, worst = statistics.median(outcome.replaced_seconds), max(outcome.replaced_seconds)
        console.print(
            f"kill -9 to ready again, the start of the service in it: {median:.2f} s, {worst:.2f} s at worst"
        )


def failures_of(outcome: Outcome) -> str:
    """How many requests failed during what, with the answers that they had."""
    said = []
    for one in outcome.phases:
        if not one.requests:
            said.append(f"no request was sent while {one.name}")
        elif one.failures:
            answers = [
                f"{n} times {status}" for status, n in sorted(one.statuses.items()) if int(status) >= 400
            ]
            unanswered = one.requests - sum(one.statuses.values())
            answers += [f"{unanswered} times no answer"] if unanswered else []
            said.append(f"{one.failures} of {one.requests} failed while {one.name}: {', '.join(answers)}")
    return "; ".join(said)


def as_data(outcome: Outcome) -> dict[str, Any]:
    """The outcome for programs."""
    return {**asdict(outcome), "succeeded": outcome.succeeded}


def is_ready(instance: InstanceView) -> bool:
    """Whether the instance gets requests."""
    return instance["phase"] == "ready"


def wait_until(is_so: Callable[[], bool], what: str) -> float:
    """
    Wait; returns the seconds it took.

    Raises:
        CommandFailed: It took longer than REPLACE_TIMEOUT.
    """
    began = time.monotonic()
    while not is_so():
        if time.monotonic() - began > REPLACE_TIMEOUT:
            raise CommandFailed(f"waited {REPLACE_TIMEOUT:g} s in vain until {what}")
        time.sleep(0.02)
    return time.monotonic() - began


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port
