"""
Real etcd members for tests: one or three, on ports of their own, gone when their block ends.

Where etcd is missing, whoever asks is skipped with one line that names the package; in continuous integration
(``CI`` is set) that is a failure instead.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.ports import free_port

LIMIT = 60.0  # seconds, generous

_opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def need_etcd() -> str:
    """Where etcd is."""
    found = shutil.which("etcd")
    if found is None:
        message = "etcd is missing (Debian and Ubuntu: apt install etcd-server)"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    return found


class Member:
    """One member; can be killed, stopped and started again."""

    def __init__(self, name: str, folder: Path, extra: Sequence[str]) -> None:
        self.name = name
        self.port = free_port()
        self.peer_port = free_port()
        self._folder = folder / name
        self._log = folder / f"{name}.log"
        self._extra = extra
        self._cluster = ""
        self.scheme = "http"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def endpoint(self) -> str:
        return f"127.0.0.1:{self.port}"

    def join(self, members: Sequence[Member]) -> None:
        """Who belongs to the etcd."""
        self._cluster = ",".join(f"{m.name}=http://127.0.0.1:{m.peer_port}" for m in members)

    def start(self) -> None:
        peer = f"http://127.0.0.1:{self.peer_port}"
        client = f"{self.scheme}://{self.endpoint}"
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [
                    need_etcd(),
                    f"--name={self.name}",
                    f"--data-dir={self._folder}",
                    f"--listen-client-urls={client}",
                    f"--advertise-client-urls={client}",
                    f"--listen-peer-urls={peer}",
                    f"--initial-advertise-peer-urls={peer}",
                    f"--initial-cluster={self._cluster}",
                    "--logger=zap",
                    *self._extra,
                ],
                stdout=log,
                stderr=log,
            )

    def kill(self) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def pause(self) -> None:
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGSTOP)

    def go_on(self) -> None:
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGCONT)

    def end(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait()

    def log(self) -> str:
        return self._log.read_text(errors="replace")[-3000:]


class Etcd:
    """Its members."""

    def __init__(self, members: Sequence[Member]) -> None:
        self.members = list(members)

    def url(self, prefix: str = "test", query: str = "", user: str = "") -> str:
        endpoints = ",".join(member.endpoint for member in self.members)
        return f"etcd://{user}{endpoints}/{prefix}{query}"

    def ctl(self, *arguments: str, member: Member | None = None) -> str:
        """What etcdctl answers."""
        found = shutil.which("etcdctl")
        assert found is not None, "etcdctl comes with Debian's etcd-client"
        endpoint = (member or self.members[0]).endpoint
        done = subprocess.run(
            [found, f"--endpoints={endpoint}", *arguments],
            env={**os.environ, "ETCDCTL_API": "3"},
            capture_output=True,
            text=True,
            check=True,
            timeout=LIMIT,
        )
        return done.stdout


@contextmanager
def running(count: int = 1, *, extra: Sequence[str] = (), scheme: str = "http") -> Iterator[Etcd]:
    """An etcd of ``count`` members that answers."""
    need_etcd()
    memory = Path("/dev/shm")  # what a disk does to etcd is etcd's business
    where = memory if os.access(memory, os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="unisono-etcd-", dir=where) as name:
        members = [Member(f"m{n}", Path(name), extra) for n in range(count)]
        for member in members:
            member.scheme = scheme
            member.join(members)
        try:
            for member in members:
                member.start()
            if scheme == "http":
                for member in members:
                    wait_healthy(member)
            yield Etcd(members)
        finally:
            for member in members:
                member.end()


def wait_healthy(member: Member) -> None:
    """Wait until a member answers and knows a leader."""
    deadline = time.monotonic() + LIMIT
    while True:
        try:
            with _opener.open(f"http://{member.endpoint}/health", timeout=2) as answer:
                if b'"true"' in answer.read():
                    return
        except OSError:
            pass
        if time.monotonic() > deadline:
            raise AssertionError(f"etcd {member.name} does not get healthy:\n{member.log()}")
        time.sleep(0.02)
