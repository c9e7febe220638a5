"""
Claim: durable linearizable puts and linearizable gets of shared state, 64 clients, beside Debian's etcd.

    python -m bench.state [--rounds 5] [--seconds 3]

Our node keeps its state on SQLite with full sync, a fresh etcd member its own with fsync, both in folders on
one disk, both for each answered put. Values have 100 bytes. 64 connections each ask again as soon as they
are answered. Rounds of the two take turns, and medians are compared.

What asks must not be what is measured, on few cores: both are asked by nghttp2's h2load (Debian and Ubuntu:
apt install nghttp2-client), which is written in C and makes no sense of the answers. Our node is asked as its
services ask, over HTTP/1.1 with the token of one; etcd over gRPC, and over its own JSON by the
engine's load generator. The better of the two counts for etcd. How much processor time went into asking is in
the table.
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import re
import resource
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from bench.harness import HERE, Finding, end_all_of, free_port, listens, report, wait_until
from unisono._engine import Load
from unisono.client import NodeClient, NodeError
from unisono.client.shared import Shared, connect
from unisono.node.identity import Identities, Identity
from unisono.node.paths import StateFolder

CLIENTS = 64
LOADS = 8  # threads of our generator, which asks etcd's JSON
VALUE = os.urandom(100)
GOALS = {"puts": 2.0, "gets": 4.0}
_SERVICE = "bench"


@dataclass(frozen=True)
class Round:
    """Answers per second, and processor seconds per second of who answered and of who asked."""

    rate: float
    server: float
    asking: float


def main() -> int:
    """Measure in turns and report; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m bench.state")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0)
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that nothing is left running then either
    for program, package in (("etcd", "etcd-server"), ("h2load", "nghttp2-client")):
        if shutil.which(program) is None:
            print(f"{program} is missing (Debian and Ubuntu: apt install {package})", file=sys.stderr)
            return 1
    found: dict[tuple[str, str], list[Round]] = {}
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=HERE, prefix=".state-")))
        node = stack.enter_context(our_node(folder / "node"))
        etcd = stack.enter_context(etcd_peer(folder / "etcd"))
        ways: dict[tuple[str, str], tuple[psutil.Process, Callable[[], float]]] = {}
        for what in GOALS:
            ways[what, "unisono"] = (node.process, node.asked(what, given.seconds, folder))
            ways[what, "etcd, gRPC"] = (etcd.process, etcd.asked_by_grpc(what, given.seconds, folder))
            ways[what, "etcd, JSON"] = (etcd.process, etcd.asked_by_json(what, given.seconds))
        for n in range(given.rounds + 1):
            for way, (server, ask) in ways.items():
                measured = _measured(server, ask)
                if n:  # the first is for warming up
                    found.setdefault(way, []).append(measured)
    return report("state", [_finding(what, found) for what in GOALS])


def _finding(what: str, found: dict[tuple[str, str], list[Round]]) -> Finding:
    rates = {
        who: statistics.median(r.rate for r in rounds) for (w, who), rounds in found.items() if w == what
    }
    peer = max(("etcd, gRPC", "etcd, JSON"), key=rates.__getitem__)
    details = {}
    for who, rate in rates.items():
        rounds = found[what, who]
        cores = [statistics.median(getattr(r, part) for r in rounds) for part in ("server", "asking")]
        details[who] = f"{rate:,.0f}/s ({cores[0]:.2f} cores, and {cores[1]:.2f} asking)"
    return Finding(
        claim=f"linearizable {what}/s with {CLIENTS} clients, as a multiple of etcd's",
        figure=round(rates["unisono"] / rates[peer], 2),
        unit="x",
        goal=GOALS[what],
        details=details,
        at_least=True,
    )


def _measured(server: psutil.Process, ask: Callable[[], float]) -> Round:
    began, before, asking = time.perf_counter(), _cpu(server), _own_cpu()
    rate = ask()
    seconds = time.perf_counter() - began
    return Round(rate, (_cpu(server) - before) / seconds, (_own_cpu() - asking) / seconds)


def _cpu(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def _own_cpu() -> float:
    """Of this process with its loads, and of the programs it has waited for."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def _loads(
    url: Callable[[int], str],
    method: str,
    body: Callable[[int], bytes],
    seconds: float,
    headers: dict[str, str],
) -> float:
    """Answers per second of all loads together; RuntimeError if one of them failed."""
    loads = [
        Load(
            url(n), connections=CLIENTS // LOADS, duration=seconds, method=method, body=body(n),
            headers=list(headers.items()),
        )
        for n in range(LOADS)
    ]  # fmt: skip
    with ExitStack() as stack:
        for load in loads:
            stack.enter_context(load)
        reports = [json.loads(load.report()) for load in loads]
    failed = [one["statuses"] | one["failures"] for one in reports if one["failed"]]
    if failed:
        raise RuntimeError(f"{method} {url(0)}: {failed}")
    return float(sum(one["rate"] for one in reports))


class OurNode:
    """Our node, and how it is asked: by a service, where services find what they share."""

    def __init__(self, process: psutil.Process, folder: StateFolder) -> None:
        self.process = process
        self._folder = folder
        identity = Identity(_SERVICE, _SERVICE, "bench-1")
        self._token = Identities.kept_in(folder.identity_secret).make(identity)

    def asked(self, what: str, seconds: float, folder: Path) -> Callable[[], float]:
        """A round of puts or gets; the key is there."""
        value = folder / "value"
        value.write_bytes(VALUE)
        # h2load gives the method POST to what has a body, unless it is told otherwise.
        asking = ["-d", str(value), "-H", ":method: PUT"] if what == "puts" else []
        command = [
            *_h2load(seconds), "--h1", "-B", f"unix:{self._folder.services_socket}", *asking,
            "-H", f"authorization: Bearer {self._token}", "http://node/v1/kv/key-0",
        ]  # fmt: skip
        return lambda: _answers(command) / seconds

    def asked_for_timestamps(self, count: int, seconds: float, folder: Path) -> Callable[[], float]:
        """A round of requests for so many timestamps each; answers per second."""
        body = folder / f"timestamps-{count}.json"
        body.write_text(json.dumps({"count": count}))
        command = [
            *_h2load(seconds), "--h1", "-B", f"unix:{self._folder.services_socket}", "-d", str(body),
            "-H", "content-type: application/json", "-H", f"authorization: Bearer {self._token}",
            "http://node/v1/tso",
        ]  # fmt: skip
        return lambda: _answers(command) / seconds

    def shared(self) -> Shared:
        """The client of the service."""
        return connect(f"unix:{self._folder.services_socket}", token=self._token)


class EtcdPeer:
    """The peer, and its two ways to be asked."""

    def __init__(self, process: psutil.Process, port: int) -> None:
        self.process = process
        self._port = port

    def asked_by_json(self, what: str, seconds: float) -> Callable[[], float]:
        """As browsers and shells ask."""
        path = {"puts": "put", "gets": "range"}[what]

        def body(n: int) -> bytes:
            fields = {"key": b"key-%d" % n, **({"value": VALUE} if what == "puts" else {})}
            return json.dumps({name: base64.b64encode(one).decode() for name, one in fields.items()}).encode()

        return lambda: _loads(
            lambda _: f"http://127.0.0.1:{self._port}/v3/kv/{path}", "POST", body, seconds,
            {"content-type": "application/json"},
        )  # fmt: skip

    def asked_by_grpc(self, what: str, seconds: float, folder: Path) -> Callable[[], float]:
        """As its own clients ask: a call at a time on each of so many connections."""
        call = {"puts": "Put", "gets": "Range"}[what]
        message = _field(1, b"key-0") + (_field(2, VALUE) if what == "puts" else b"")
        framed = folder / f"{what}.grpc"
        framed.write_bytes(b"\0" + len(message).to_bytes(4, "big") + message)
        command = [
            *_h2load(seconds), "-m", "1", "-d", str(framed),
            "-H", "content-type: application/grpc", "-H", "te: trailers",
            f"http://127.0.0.1:{self._port}/etcdserverpb.KV/{call}",
        ]  # fmt: skip

        def ask() -> float:
            before = self._revision()
            answers = _answers(command)
            # A call that fails has status 200 all the same, so the puts are counted where they should be.
            if what == "puts" and self._revision() - before < answers:
                raise RuntimeError(f"etcd made {self._revision() - before} of {answers} puts")
            return answers / seconds

        return ask

    def _revision(self) -> int:
        done = subprocess.run(
            ["etcdctl", f"--endpoints=127.0.0.1:{self._port}", "get", "none", "-w", "json"],
            capture_output=True, check=True, env={**os.environ, "ETCDCTL_API": "3"},
        )  # fmt: skip
        return int(json.loads(done.stdout)["header"]["revision"])


def _h2load(seconds: float) -> list[str]:
    return ["h2load", "-c", str(CLIENTS), "-t", "1", "-D", f"{seconds * 1000:.0f}ms"]


def _answers(command: list[str]) -> int:
    """So many good answers as h2load was given; RuntimeError if it had others, or none."""
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    good = re.search(r"status codes: (\d+) 2xx, 0 3xx, 0 4xx, 0 5xx", said)
    if good is None or int(good[1]) == 0:
        raise RuntimeError(f"h2load: {said}")
    return int(good[1])


def _field(number: int, value: bytes) -> bytes:
    """A field of bytes in protobuf's encoding, of less than 128."""
    return bytes([number << 3 | 2, len(value)]) + value


@contextmanager
def our_node(folder: Path) -> Iterator[OurNode]:
    """A node with a service that is asked for nothing, gone with the block."""
    folder.mkdir()
    state = StateFolder(folder / "state")
    environment = {"UNISONO_STATE": str(state.path)}
    command = [sys.executable, "-m", "unisono"]
    file = folder / "unisono.yaml"
    service = {"command": ["true"], "deploy": {"replicas": 0}}
    file.write_text(json.dumps({"name": _SERVICE, "services": {_SERVICE: service}}))  # JSON is YAML
    listen = ["node", "--listen", f"127.0.0.1:{free_port()}"]
    with _process([*command, *listen], folder, lambda: _answers_at(state.api_socket), environment) as process:
        subprocess.run(
            [*command, "up", "-d", "-f", str(file)],
            env={**os.environ, **environment}, capture_output=True, check=True,
        )  # fmt: skip
        yield OurNode(process, state)


@contextmanager
def etcd_peer(folder: Path) -> Iterator[EtcdPeer]:
    """A fresh member, gone with the block."""
    folder.mkdir()
    port, peer = free_port(), free_port()
    client = f"http://127.0.0.1:{port}"
    command = [
        "etcd", f"--data-dir={folder}/data", f"--listen-client-urls={client}",
        f"--advertise-client-urls={client}", f"--listen-peer-urls=http://127.0.0.1:{peer}",
    ]  # fmt: skip
    with _process(command, folder, lambda: listens(port), {}) as process:
        yield EtcdPeer(process, port)


@contextmanager
def _process(
    command: list[str], folder: Path, serves: Callable[[], bool], environment: dict[str, str]
) -> Iterator[psutil.Process]:
    """A server, from when it serves, and all that it started, gone with the block."""
    with (folder / "log").open("wb") as log:
        started = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env={**os.environ, **environment}
        )
    process = psutil.Process(started.pid)
    try:
        wait_until(lambda: serves() or started.poll() is not None, f"{command[0]} serves")
        if started.poll() is not None:
            raise RuntimeError(f"{command[0]} ended: {(folder / 'log').read_text()[-2000:]}")
        yield process
    finally:
        started.kill()
        started.wait()
        end_all_of(folder)  # a gateway outlives its node


def _answers_at(path: Path) -> bool:
    with suppress(NodeError):
        NodeClient(path).node()
        return True
    return False


if __name__ == "__main__":
    sys.exit(main())
