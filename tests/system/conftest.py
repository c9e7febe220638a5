"""A whole node for each test: its own state folder, its own address, and nothing left afterwards."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.ports import free_port
from unisono.client import NodeClient, NotRunning
from unisono.client.views import ApplicationView, InstanceView
from unisono.node.paths import StateFolder

LIMIT = 60.0
"""Seconds that anything may take on a slow machine; nothing waits for it when all is well."""

SERVER = '''\
"""Answers every GET with its version and pid; stops when it is told to."""
import http.server, os, signal, sys, time

class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        if self.path.endswith("/slow"):
            time.sleep(1.0)
        body = f"{os.environ.get('VERSION', '1')} {os.getpid()} {os.environ.get('PAYMENTS_URL', '')}".encode()
        self.send_response(500 if os.environ.get("FAIL") else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *args):
        pass

class Server(http.server.ThreadingHTTPServer):
    request_queue_size = 128

signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
if os.environ.get("BROKEN"):
    sys.exit("broken on purpose")
print("version", os.environ.get("VERSION", "1"), "listens", flush=True)
Server(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
'''


@dataclass
class Result:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """What it printed, as JSON."""
        return json.loads(self.out)


@dataclass
class Site:
    """A folder with a file of services, a node's state folder, and the command line."""

    folder: Path
    state: Path
    port: int
    started: list[subprocess.Popen[str]] = field(default_factory=list)

    @property
    def environment(self) -> dict[str, str]:
        """The commands' environment: nothing of who runs the tests gets in."""
        inherited = {name: os.environ[name] for name in ("PATH", "HOME", "PYTHONPATH") if name in os.environ}
        python_path = os.pathsep.join(
            os.path.abspath(entry) for entry in inherited.pop("PYTHONPATH", "").split(os.pathsep) if entry
        )
        return {
            **inherited,
            **({"PYTHONPATH": python_path} if python_path else {}),
            "UNISONO_STATE": str(self.state),
            "UNISONO_LISTEN": f"127.0.0.1:{self.port}",
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{inherited.get('PATH', os.defpath)}",
        }

    @property
    def client(self) -> NodeClient:
        """A client of the node."""
        return NodeClient(StateFolder(self.state).api_socket, timeout=LIMIT)

    def write(self, text: str) -> None:
        """Write the file of services."""
        (self.folder / "unisono.yaml").write_text(text)

    def run(self, *arguments: str, ok: bool = True, stdin: str | None = None, **environment: str) -> Result:
        """Run ``unisono`` to its end; with ``ok`` it must succeed."""
        done = subprocess.run(
            [sys.executable, "-m", "unisono", *arguments],
            cwd=self.folder,
            env={**self.environment, **environment},
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            capture_output=True,
            text=True,
            timeout=2 * LIMIT,
            check=False,
        )
        result = Result(done.returncode, done.stdout, done.stderr)
        assert "Traceback" not in result.err, result.err
        if ok:
            assert result.code == 0, f"{arguments}: exit code {result.code}\n{result.out}\n{result.err}"
        return result

    def start(self, *arguments: str, **environment: str) -> subprocess.Popen[str]:
        """Start ``unisono`` and leave it running; it is ended with the test."""
        process = subprocess.Popen(
            [sys.executable, "-m", "unisono", *arguments],
            cwd=self.folder,
            env={**self.environment, **environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.started.append(process)
        return process

    def instances(self, service: str, application: str = "shop") -> list[InstanceView]:
        """The instances of a service now."""
        return self.client.service(application, service)["instances"]

    def wait_for(
        self, condition: Callable[[ApplicationView], bool], application: str = "shop"
    ) -> ApplicationView:
        """Wait until the application is as ``condition`` wants it."""
        for view in self.client.watch(application):
            if condition(view):
                return view
        raise AssertionError("the application was removed")

    def wait_for_node(self) -> None:
        """Wait until a node answers that was started a moment ago."""
        wait_until(self._answers, "a node that answers")

    def _answers(self) -> bool:
        try:
            self.client.node()
        except NotRunning:
            return False
        return True

    def wait_settled(self, application: str = "shop") -> None:
        """Wait until the application is there and nothing is under way in it."""
        self.wait_for_node()
        wait_until(lambda: bool(self.client.applications()), "an application")
        self.wait_for(lambda view: all(service["settled"] for service in view["services"]), application)

    def processes(self) -> list[psutil.Process]:
        """All that belongs to this site: node, gateway, log process, instances."""
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                marked = process.environ().get("UNISONO_STATE") == str(self.state)
                if marked or any(str(self.state) in word for word in process.cmdline()):
                    found.append(process)
        return found

    def kill_all(self) -> None:
        """``kill -9`` of all that belongs to this site."""
        for _ in range(10):  # what is killed may be started again by what is killed a moment later
            left = self.processes()
            if not left:
                break
            for one in left:
                with suppress(psutil.Error):
                    one.kill()
            psutil.wait_procs(left, timeout=2.0)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """A site with the server of these tests; whatever it started is gone afterwards."""
    with opened(tmp_path) as found:
        yield found


@contextmanager
def opened(folder: Path) -> Iterator[Site]:
    """A site in a folder, for the block."""
    place = folder / "site"
    place.mkdir(parents=True)
    (place / "server.py").write_text(SERVER)
    found = Site(folder=place, state=folder / "state", port=free_port())
    try:
        yield found
    finally:
        for process in found.started:
            process.kill()
            process.communicate()
        found.kill_all()


def wait_until(condition: Callable[[], bool], what: str) -> None:
    """Wait for something that nobody tells of."""
    deadline = time.monotonic() + LIMIT
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {LIMIT:g} s in vain: {what}")
        time.sleep(0.02)


def kill(pid: int) -> None:
    """``kill -9``."""
    os.kill(pid, signal.SIGKILL)
