"""
What the measurements share: a private node, applications of tiny servers, load, and how a verdict is said.

Everything a measurement starts is on loopback, in a folder of its own, and gone when its block ends, also
when it fails. Nodes and applications are handled as a user would: by the ``unisono`` command, and
by the node's API for what is looked at often.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import psutil

from unisono._engine import Load
from unisono.client import NodeClient, NodeError
from unisono.client.views import InstanceView
from unisono.node.paths import StateFolder
from unisono.node.ports import Ports

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results"
APPLICATION = "bench"
SERVICE = "tiny"
TINY_COMMAND = (sys.executable, "-IS", str(HERE / "tiny_server.py"))
WAIT_SECONDS_MAX = 120.0
CONNECTIONS = 32  # enough to keep two cores busy

_ports = Ports(first=12_000, last=19_999, start=12_000 + os.getpid() % 8_000)


class PrivateNode:
    """A node with a state folder and ports of its own; use it as a context manager."""

    def __init__(self) -> None:
        self.path = Path(tempfile.mkdtemp(prefix="unisono-bench-"))
        self.folder = StateFolder(self.path / "state")
        self.port = free_port()
        self.client = NodeClient(self.folder.api_socket)
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> PrivateNode:
        signal.signal(
            signal.SIGTERM, signal.default_int_handler
        )  # so that nothing is left running then either
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        pids = [instance["pid"] for instance in self._instances() if instance["pid"]]
        gateway = self._gateway_pid()
        with suppress(RuntimeError, subprocess.SubprocessError):  # it may be down already
            self.cli("down", "-p", APPLICATION)
        if self._process is not None:
            self._process.terminate()
            self._process.wait(30)
        for pid in [*pids, *([gateway] if gateway else [])]:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        shutil.rmtree(self.path, ignore_errors=True)

    @property
    def url(self) -> str:
        """Where the service answers."""
        return f"http://127.0.0.1:{self.port}/"

    @property
    def pid(self) -> int:
        """The node process."""
        assert self._process is not None
        return self._process.pid

    @property
    def gateway_pid(self) -> int:
        """The gateway process."""
        pid = self._gateway_pid()
        assert pid is not None, "no gateway runs"
        return pid

    def start(self) -> None:
        """Start the node process and wait until its API answers."""
        self.spawn()
        self.wait_for_api()

    def spawn(self) -> None:
        """Start the node process."""
        with open(self.path / "node.log", "ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "unisono", "node", "--listen", f"127.0.0.1:{self.port}"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self.environment(),
                start_new_session=True,
            )

    def wait_for_api(self) -> None:
        """Wait until its API answers."""
        process = self._process
        assert process is not None

        def answers() -> bool:
            if process.poll() is not None:
                raise RuntimeError(f"the node ended: {(self.path / 'node.log').read_text()[-2000:]}")
            with suppress(NodeError):
                self.client.node()
                return True
            return False

        wait_until(answers, "the node answers", interval=0.002)

    def kill(self) -> None:
        """SIGKILL the node process."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def environment(self) -> dict[str, str]:
        """The environment in which commands speak to this node."""
        return {**os.environ, "UNISONO_STATE": str(self.folder.path)}

    def cli(self, *arguments: str) -> str:
        """Run ``unisono`` with these arguments; its standard output."""
        done = subprocess.run(
            [sys.executable, "-m", "unisono", *arguments],
            env=self.environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=WAIT_SECONDS_MAX,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"unisono {' '.join(arguments)} ended with {done.returncode}: {done.stderr}")
        return done.stdout

    def write(self, replicas: int, *, label: str = "", command: tuple[str, ...] = (), **more: Any) -> Path:
        """Write the file of an application with one service of tiny servers; its path."""
        service = {
            "command": [*(command or (*TINY_COMMAND, "{port}")), *([label] if label else [])],
            "routes": [{"path": "/"}],
            "deploy": {"replicas": replicas, "update_config": {"monitor": "1s"}},
            **more,
        }
        path = self.path / "unisono.yaml"
        path.write_text(json.dumps({"name": APPLICATION, "services": {SERVICE: service}}))  # JSON is YAML
        return path

    def up(self, replicas: int, *, label: str = "", command: tuple[str, ...] = (), **more: Any) -> None:
        """Bring up so many tiny servers and wait until all are ready."""
        self.cli("up", "-d", "-f", str(self.write(replicas, label=label, command=command, **more)))

    def instances(self) -> list[InstanceView]:
        """All instances that there are."""
        return self.client.instances(APPLICATION)

    def pids(self) -> dict[str, int]:
        """The process of each ready instance, by id."""
        return {i["id"]: i["pid"] for i in self.instances() if i["phase"] == "ready" and i["pid"]}

    def table(self) -> dict[str, Any]:
        """The routing table in force, as the gateway says it."""
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.connect(str(self.folder.gateway_socket))
        connection = HTTPConnection("gateway")
        connection.sock = sock
        try:
            connection.request("GET", "/v1/table")
            found: dict[str, Any] = json.loads(connection.getresponse().read())
        finally:
            connection.close()
        return found

    def targets(self) -> dict[str, dict[str, Any]]:
        """The instances that the gateway sends requests to, by id."""
        backend = self.table()["services"].get(f"{APPLICATION}/{SERVICE}", {"targets": []})
        return {target["id"]: target for target in backend["targets"]}

    def _instances(self) -> list[InstanceView]:
        try:
            return self.instances()
        except NodeError:
            return []

    def _gateway_pid(self) -> int | None:
        try:
            return self.client.node()["gateway"]["pid"]
        except NodeError:
            return None


def full_load(url: str) -> Load:
    """A closed loop on a URL for as long as a block lasts: each connection asks again once answered."""
    return Load(url, connections=CONNECTIONS)


def seen_by(load: Load) -> tuple[int, dict[str, Any]]:
    """Failed requests, and what else is worth printing of a load that is over."""
    report = json.loads(load.report())
    details: dict[str, Any] = {
        "requests": report["requests"],
        "per second": round(report["rate"]),
        "p50 ms": round(report["latency_ms"]["p50"], 2),
        "p99 ms": round(report["latency_ms"]["p99"], 2),
        "max ms": round(report["latency_ms"]["max"], 1),
    }
    if report["failed"]:
        details["failures"] = {**report["failures"], "statuses": report["statuses"]}
    return report["failed"], details


def free_port() -> int:
    """Another port that nobody has, below those that the kernel gives to outgoing connections."""
    return _ports.take()


def wait_until(
    is_so: Callable[[], bool], what: str, *, timeout: float = WAIT_SECONDS_MAX, interval: float = 0.02
) -> float:
    """Wait until ``is_so()``; returns the seconds it took. TimeoutError names ``what``."""
    began = time.perf_counter()
    while not is_so():
        if time.perf_counter() - began > timeout:
            raise TimeoutError(f"waited {timeout:g} s in vain until {what}")
        time.sleep(interval)
    return time.perf_counter() - began


def listens(port: int) -> bool:
    """Whether someone accepts connections on a port of loopback."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def end_all_of(folder: Path) -> None:
    """Kill all processes that were started for a folder: those whose arguments or environment name it."""
    for _ in range(10):  # what is killed may have been started again by what is killed a moment later
        found = [process for process in psutil.process_iter() if _is_of(process, str(folder))]
        if not found:
            return
        for process in found:
            with suppress(psutil.Error):
                process.kill()
        psutil.wait_procs(found, timeout=2.0)


def _is_of(process: psutil.Process, folder: str) -> bool:
    if process.pid == os.getpid():
        return False
    with suppress(psutil.Error):
        told = [process.environ().get("UNISONO_STATE", ""), *process.cmdline()]
        return any(folder in word for word in told)
    return False


def resident_mb(pid: int) -> float:
    """Resident memory of a process, 10^6 bytes."""
    return float(psutil.Process(pid).memory_info().rss) / 1e6


def cpu_seconds(pid: int) -> float:
    """Processor time that a process has used, its waited-for children left out."""
    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system)


def quantile(values: list[float], q: float) -> float:
    """The smallest value that at least the share ``q`` of all values does not exceed."""
    ordered = sorted(values)
    return ordered[max(0, -int(-q * len(ordered) // 1) - 1)]


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One measured figure against its goal."""

    claim: str
    figure: float
    unit: str
    goal: float  # the figure may not exceed it
    details: Mapping[str, Any]
    at_least: bool = False  # the figure may not be below the goal instead

    @property
    def holds(self) -> bool:
        """Whether the goal is met."""
        return self.figure >= self.goal if self.at_least else self.figure <= self.goal


def report(name: str, findings: list[Finding]) -> int:
    """Print findings, append them to ``bench/results/NAME.jsonl``; the exit code, 0 if all goals are met."""
    RESULTS.mkdir(exist_ok=True)
    at = datetime.now(UTC).isoformat(timespec="seconds")
    machine = {"cores": os.cpu_count(), "kernel": platform.release(), "python": platform.python_version()}
    with open(RESULTS / f"{name}.jsonl", "a") as file:
        for finding in findings:
            verdict = "holds" if finding.holds else "MISSED"
            bound = f"{'>=' if finding.at_least else '<='} {finding.goal:g}"
            print(f"{finding.claim}: {finding.figure:g} {finding.unit} (goal: {bound}) {verdict}")
            print("  " + ", ".join(f"{key} {value}" for key, value in finding.details.items()), flush=True)
            line = {
                "bench": name,
                "at": at,
                "claim": finding.claim,
                "figure": finding.figure,
                "unit": finding.unit,
                "goal": finding.goal,
                "at_least": finding.at_least,
                "holds": finding.holds,
                "details": dict(finding.details),
                "machine": machine,
            }
            file.write(json.dumps(line) + "\n")
    return 0 if all(finding.holds for finding in findings) else 1
