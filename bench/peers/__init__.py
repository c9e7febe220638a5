"""
The peers that unisono is measured against: how each is found, configured, started and stopped.

A peer out of the box is what its manual's first page gives; a tuned one is what we would run ourselves for
instances with few places. The configurations lie beside this file. Peers come from the distribution
(nginx, HAProxy) or from ``python -m bench.peers install`` (Envoy, Ray Serve), which keeps to
``bench/.cache``.
"""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from bench.harness import free_port, listens, wait_until
from unisono.gateway.link import GatewayLink
from unisono.gateway.table import Backend, Hedge, Listener, Rule, Table, Target

HERE = Path(__file__).resolve().parent
CACHE = HERE.parent / ".cache"
ENVOY = CACHE / "envoy" / "envoy"
RAY = CACHE / "ray" / "bin" / "python"
SERVICE = "bench/service"


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What a peer is to do."""

    ports: Sequence[int]  # of the instances
    places: int  # requests at a time that an instance serves
    workers: int = 1
    pids: Sequence[int | None] = ()  # of the instances' processes, where each has its own
    service: str = ""  # service times and speeds, for peers that bring their own instances
    speeds: Sequence[float] = ()
    options: dict[str, Any] = field(default_factory=dict)  # of unisono's Backend
    under: Sequence[str] = ()  # a command that runs the peer, such as valgrind


class Running:
    """A peer at work; use it as a context manager."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.port = free_port()
        self.folder = Path(tempfile.mkdtemp(prefix="bench-peer-"))
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, *command: str) -> None:
        """Start its program and wait until it listens."""
        with open(self.folder / "log", "wb") as log:
            self.process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=log, stderr=log, start_new_session=True
            )
        process = self.process

        def is_up() -> bool:
            if process.poll() is not None:
                said = (self.folder / "log").read_text(errors="replace")[-2000:]
                raise RuntimeError(f"{self.name} ended with {process.returncode}: {said}")
            return listens(self.port)

        wait_until(is_up, f"{self.name} listens")

    def processes(self) -> list[psutil.Process]:
        """All its processes."""
        assert self.process is not None
        with suppress(psutil.NoSuchProcess):
            parent = psutil.Process(self.process.pid)
            return [parent, *parent.children(recursive=True)]
        return []

    def cpu_seconds(self) -> float:
        """Processor time of all its processes."""
        total = 0.0
        for process in self.processes():
            with suppress(psutil.Error):
                times = process.cpu_times()
                total += times.user + times.system
        return total

    def resident(self) -> int:
        """Bytes of memory of all its processes, what they share counted once for each."""
        return sum(process.memory_info().rss for process in self.processes())

    def __enter__(self) -> Running:
        return self

    def __exit__(self, *_: object) -> None:
        processes = self.processes()
        if self.process is not None:
            assert self.process.stdin is not None
            self.process.stdin.close()
            with suppress(ProcessLookupError):
                self.process.terminate()
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(5)
        for process in processes:
            with suppress(psutil.Error):
                process.kill()
        if self.process is not None:
            self.process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)


class Gateway(Running):
    """Our gateway alone, with a table as the node would give it."""

    def __init__(self, setting: Setting) -> None:
        super().__init__("unisono")
        self.setting = setting
        self.version = 0
        self.link = GatewayLink(self.folder / "g.sock")
        self.process = subprocess.Popen(
            [
                *setting.under, sys.executable, "-m", "unisono.gateway", "--workers", str(setting.workers),
                str(self.folder / "g.sock"), str(self.folder / "table.json"),
            ],
            stdin=subprocess.PIPE,
            start_new_session=True,
        )  # fmt: skip
        wait_until(self.link.alive, "the gateway answers", interval=0.005)
        self.put(range(len(setting.ports)))
        wait_until(lambda: listens(self.port), "the gateway listens")

    def put(self, indexes: Sequence[int], generations: dict[int, int] | None = None) -> None:
        """Give it a table with these of the instances."""
        self.version += 1
        pids = self.setting.pids or [None] * len(self.setting.ports)
        targets = tuple(
            Target(
                id=f"i{index}",
                generation=(generations or {}).get(index, 1),
                address=f"127.0.0.1:{self.setting.ports[index]}",
                pid=pids[index],
            )
            for index in indexes
        )
        options: dict[str, Any] = {
            "concurrency": self.setting.places, "wait_ms": 30_000, **self.setting.options,
        }  # fmt: skip
        table = Table(
            version=self.version,
            listeners=(Listener(address=f"127.0.0.1:{self.port}", rules=(Rule(service=SERVICE),)),),
            services={SERVICE: Backend(targets=targets, **options)},
        )
        asyncio.run(self.link.put_table(table))

    def measurements(self) -> dict[str, Any]:
        """What the gateway counts of the service."""
        service: dict[str, Any] = asyncio.run(self.link.measurements())["services"][SERVICE]
        return service


@dataclass(frozen=True)
class Peer:
    """A way to carry requests; ``missing`` says why it is not to be had here, or is empty."""

    name: str
    start: Callable[[Setting], Running]
    missing: Callable[[], str] = lambda: ""


def unisono(name: str = "unisono", *, workers: int = 0, **options: Any) -> Peer:
    """Our gateway, with options of its table for the service."""

    def start(setting: Setting) -> Running:
        merged = {**vars(setting), "options": {**setting.options, **options}}
        return Gateway(Setting(**{**merged, "workers": workers or setting.workers}))

    return Peer(name, start)


def _from_file(
    name: str, file: str, server: Callable[[int, int, Setting], str], *command: str, **more: str
) -> Peer:
    def start(setting: Setting) -> Running:
        running = Running(name)
        servers = "\n".join(server(i, port, setting) for i, port in enumerate(setting.ports))
        text = (HERE / file).read_text()
        found = {
            "PORT": running.port,
            "WORKERS": setting.workers,
            "FOLDER": running.folder,
            "SERVERS": servers,
            **more,
        }
        for key, value in found.items():
            text = text.replace(f"@{key}@", str(value))
        path = running.folder / file
        path.write_text(text)
        try:
            given = {"FILE": str(path), "N": str(setting.workers)}
            running.start(*setting.under, *[given.get(part, part) for part in command])
        except BaseException:
            running.__exit__()
            raise
        return running

    def missing() -> str:
        if shutil.which(command[0]):
            return ""
        how = (
            "python -m bench.peers install"
            if command[0].startswith(str(CACHE))
            else f"apt install {command[0]}"
        )
        return f"{Path(command[0]).name} is not installed ({how})"

    return Peer(name, start, missing)


def _nginx(index: int, port: int, setting: Setting) -> str:
    return f"        server 127.0.0.1:{port} max_fails=3 fail_timeout=5s;"


def _haproxy(index: int, port: int, setting: Setting) -> str:
    return f"    server i{index} 127.0.0.1:{port}"


def _haproxy_tuned(index: int, port: int, setting: Setting) -> str:
    return f"    server i{index} 127.0.0.1:{port} maxconn {setting.places}"


def _envoy(index: int, port: int, setting: Setting) -> str:
    address = f"{{socket_address: {{address: 127.0.0.1, port_value: {port}}}}}"
    return f"            - {{endpoint: {{address: {address}}}}}"


def _plain(index: int, port: int, setting: Setting) -> str:
    return f"        server 127.0.0.1:{port};"


_ENVOY_COMMAND = (
    str(ENVOY), "-c", "FILE", "--concurrency", "N", "--disable-hot-restart", "-l", "error",
)  # fmt: skip

NGINX = _from_file("nginx", "nginx.conf", _plain, "nginx", "-c", "FILE")
NGINX_TUNED = _from_file("nginx tuned", "nginx_tuned.conf", _nginx, "nginx", "-c", "FILE")
NGINX_ALONE = _from_file(
    "nginx tuned", "nginx_tuned.conf", _nginx, "nginx", "-c", "FILE", "-g", "master_process off;"
)  # one process, for tools that look into it
HAPROXY = _from_file("haproxy", "haproxy.cfg", _haproxy, "haproxy", "-db", "-f", "FILE")
HAPROXY_TUNED = _from_file(
    "haproxy tuned", "haproxy_tuned.cfg", _haproxy_tuned, "haproxy", "-db", "-f", "FILE"
)
ENVOY_RR = _from_file("envoy", "envoy.yaml", _envoy, *_ENVOY_COMMAND, POLICY="ROUND_ROBIN")
ENVOY_LEAST = _from_file("envoy least_request", "envoy.yaml", _envoy, *_ENVOY_COMMAND, POLICY="LEAST_REQUEST")
ENVOY_TUNED = _from_file("envoy tuned", "envoy_tuned.yaml", _envoy, *_ENVOY_COMMAND)


def _start_ray(setting: Setting) -> Running:
    running = Running("ray serve")
    speeds = ",".join(str(one) for one in setting.speeds or [1.0] * len(setting.ports))
    try:
        running.start(
            str(RAY), str(HERE / "ray_service.py"), str(running.port), str(len(setting.ports)),
            str(setting.places), setting.service, speeds,
        )  # fmt: skip
        wait_until(lambda: b"ready" in (running.folder / "log").read_bytes(), "ray serve is ready")
    except BaseException:
        running.__exit__()
        raise
    return running


RAY_SERVE = Peer(
    "ray serve",
    _start_ray,
    lambda: "" if RAY.exists() else "ray serve is not installed (python -m bench.peers install)",
)
UNISONO = unisono()
UNISONO_HEDGED = unisono("unisono hedged", hedge=Hedge())
UNISONO_AUTO = unisono("unisono auto", concurrency="auto")
UNTUNED = (NGINX, HAPROXY, ENVOY_RR)
TUNED = (NGINX_TUNED, HAPROXY_TUNED, ENVOY_LEAST, ENVOY_TUNED)
