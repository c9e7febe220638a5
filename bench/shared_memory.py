"""
Claims: what a read of shared memory takes from Python, beside a GET of Redis; that none is ever torn; and how
soon memory shows what a node has acknowledged.

    python -m bench.shared_memory [--reads 100000000] [--writes 2000]

A node mirrors the prefix of an application; this process reads its memory by ``client.mirror.get``, as an
instance does. Redis (Debian and Ubuntu: apt install redis-server) answers on loopback without persistence,
asked by a bare socket that sends the bytes of one GET and takes one answer: no client in Python can do less.
Both read the same 100 bytes, in turns; medians over batches are compared.

For torn reads one process writes at 100,000 writes/s, to a few keys with values of changing lengths, each of
which is its revision again and again; others read, and look at each value whether it is of one write alone.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

from bench.harness import (
    APPLICATION,
    SERVICE,
    TINY_COMMAND,
    Finding,
    PrivateNode,
    free_port,
    listens,
    quantile,
    report,
    wait_until,
)
from unisono._engine import SharedReader, SharedValue, SharedWriter
from unisono.client.mirroring import MirrorSync, Tables
from unisono.client.shared import SharedSync, connect_sync
from unisono.node.identity import Identities, Identity

PREFIX = "config/"
KEY = f"{PREFIX}limit"
VALUE = bytes(100)
BATCHES, BATCH = 500, 200
WRITES_PER_SECOND = 100_000
READERS = 2
KEYS = tuple(f"key/{number}" for number in range(8))
WORDS = tuple(range(8, 16))  # of a value: 64 to 120 bytes


def main() -> int:
    """Measure and report; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m bench.shared_memory")
    parser.add_argument("--reads", type=int, default=100_000_000)
    parser.add_argument("--writes", type=int, default=2000)
    given = parser.parse_args()
    if shutil.which("redis-server") is None:
        print("redis-server is missing (Debian and Ubuntu: apt install redis-server)", file=sys.stderr)
        return 1
    with PrivateNode() as node, _redis() as get:
        shared = _started(node)
        path = node.folder.shared_table(APPLICATION, PREFIX)
        shared.mirror = MirrorSync(shared.kv, Tables({PREFIX: str(path)}))
        shared.kv.put(KEY, VALUE)
        wait_until(lambda: _there(shared) >= 0, "the value in memory")
        findings = [*_read(shared, SharedReader(path), get), _visible(shared, given.writes)]
    findings += _torn(given.reads)
    return report("shared_memory", findings)


# -- reads ---------------------------------------------------------------------------------------------


def _read(shared: SharedSync, reader: SharedReader, get: Callable[[str], bytes]) -> list[Finding]:
    assert get(KEY) == VALUE
    ours, table, theirs = [], [], []
    for _ in range(BATCHES):
        ours.append(_batch(shared.mirror.get, BATCH))
        table.append(_batch(reader.get, BATCH))
        theirs.append(_batch(get, BATCH // 10))
    microseconds = statistics.median(ours)
    redis = statistics.median(theirs)
    details = {
        "client.mirror.get µs": round(microseconds, 3),
        "the table alone µs": round(statistics.median(table), 3),
        "Redis GET µs": round(redis, 1),
        "best batches µs": f"{min(ours):.3f} and {min(theirs):.1f}",
    }
    return [
        Finding(
            claim="a read of shared memory from Python, median",
            figure=round(microseconds, 3),
            unit="µs",
            goal=0.5,
            details=details,
        ),
        Finding(
            claim="the same, as a multiple of Redis GET's speed on loopback",
            figure=round(redis / microseconds, 1),
            unit="x",
            goal=50,
            details=details,
            at_least=True,
        ),
    ]


def _batch(read: Callable[[str], Any], count: int) -> float:
    """Microseconds of one read, of so many in a row."""
    began = time.perf_counter_ns()
    for _ in range(count):
        read(KEY)
    return (time.perf_counter_ns() - began) / count / 1000


@contextmanager
def _redis() -> Iterator[Callable[[str], bytes]]:
    """A Redis of its own; one GET of it."""
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="unisono-bench-") as folder:
        command = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--dir", folder]
        with subprocess.Popen(
            [*command, "--save", "", "--appendonly", "no"], stdout=subprocess.DEVNULL
        ) as server:
            try:
                wait_until(lambda: listens(port), "redis answers")
                with socket.create_connection(("127.0.0.1", port)) as asked:
                    asked.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    asked.sendall(b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$100\r\n" + VALUE + b"\r\n")
                    assert asked.recv(64) == b"+OK\r\n"
                    question = b"*2\r\n$3\r\nGET\r\n$1\r\nk\r\n"

                    def get(_: str) -> bytes:
                        asked.sendall(question)
                        return asked.recv(4096)[6:-2]  # behind $100 and before the line's end

                    yield get
            finally:
                server.terminate()


# -- how soon ------------------------------------------------------------------------------------------


def _visible(shared: SharedSync, writes: int) -> Finding:
    """Puts of one key, each looked for in memory from the moment its answer is there."""
    took = []
    for number in range(writes):
        revision = shared.kv.put(KEY, b"%d" % number)
        acknowledged = time.perf_counter()
        while _there(shared) < revision:
            pass
        took.append((time.perf_counter() - acknowledged) * 1000)
    return Finding(
        claim="from a write's acknowledgement to its being seen in memory by another process, p99",
        figure=round(quantile(took, 0.99), 3),
        unit="ms",
        goal=2,
        details={
            "writes": writes,
            "median ms": round(quantile(took, 0.5), 3),
            "worst ms": round(max(took), 3),
            "there before the answer": sum(one < 0.01 for one in took),
        },
    )


def _there(shared: SharedSync) -> int:
    """The revision of what memory has; -1 while it has nothing."""
    with suppress(Exception):
        found = shared.mirror.get(KEY)
        return -1 if found is None else found.revision
    return -1


def _started(node: PrivateNode) -> SharedSync:
    """The application runs, and is asked as its instances ask."""
    service = {"command": [*TINY_COMMAND, "{port}"]}
    file = node.path / "unisono.yaml"
    content = {"name": APPLICATION, "shared": {PREFIX: "1m"}, "services": {SERVICE: service}}
    file.write_text(json.dumps(content))  # JSON is YAML
    node.cli("up", "-d", "-f", str(file))
    identities = Identities.kept_in(node.folder.identity_secret)
    token = identities.make(Identity(APPLICATION, SERVICE, "bench"))
    return connect_sync(f"unix:{node.folder.services_socket}", token=token)


# -- torn reads ----------------------------------------------------------------------------------------


def _torn(reads: int) -> list[Finding]:
    processes = multiprocessing.get_context("spawn")
    memory = Path("/dev/shm") if Path("/dev/shm").is_dir() else None
    with tempfile.TemporaryDirectory(prefix="unisono-bench-", dir=memory) as folder:
        path = str(Path(folder) / "table")
        begun, stop = processes.Event(), processes.Event()
        told: Any = processes.Queue()
        writer = processes.Process(target=_write, args=(path, begun, stop, told))
        writer.start()
        begun.wait()
        began = time.perf_counter()
        share = -(-reads // READERS)
        readers = [processes.Process(target=_look, args=(path, share, told)) for _ in range(READERS)]
        for reader in readers:
            reader.start()
        looked = [told.get() for _ in readers]
        seconds = time.perf_counter() - began
        stop.set()
        written, writing = told.get()
        for process in (*readers, writer):
            process.join()
    count, torn, busy = map(sum, zip(*looked, strict=True))
    rate = written / writing
    details = {
        "reads/s": f"{count / seconds:,.0f} by {READERS} processes",
        "told to ask the node": busy,
    }
    return [
        Finding(claim=f"torn reads of {count:,}", figure=torn, unit="", goal=0, details=details),
        Finding(
            claim=f"of the {WRITES_PER_SECOND:,} writes/s that were to be made meanwhile, made",
            figure=round(rate / WRITES_PER_SECOND * 100, 1),
            unit="%",
            goal=99,
            details={"writes/s": f"{rate:,.0f}", "seconds": round(writing, 1)},
            at_least=True,
        ),
    ]


def _write(path: str, begun: Event, stop: Event, told: Any) -> None:
    """At the rate: what was missed while this process had no processor is made up for."""
    writer = SharedWriter(path, 1 << 20)
    revision = 0

    def write() -> None:
        nonlocal revision
        revision += 1
        value = revision.to_bytes(8, "little") * WORDS[revision % len(WORDS)]
        writer.put(KEYS[revision % len(KEYS)], value, revision, revision)

    for _ in KEYS:
        write()
    writer.publish(revision)
    begun.set()
    began = time.perf_counter()
    first = revision
    while not stop.is_set():
        due = first + int((time.perf_counter() - began) * WRITES_PER_SECOND)
        while revision < due:
            write()
        writer.progress(revision)
        time.sleep(0.0005)
    told.put((revision - first, time.perf_counter() - began))


def _look(path: str, reads: int, told: Any) -> None:
    reader = SharedReader(path)
    get = reader.get
    torn = busy = done = 0
    last = dict.fromkeys(KEYS, 0)
    while done < reads:
        for key in KEYS:
            try:
                found = get(key)
            except BlockingIOError:
                busy += 1  # its writer lost the processor in the middle
                continue
            done += 1
            if found is None or not whole(found) or found.revision < last[key]:
                torn += 1
            else:
                last[key] = found.revision
    told.put((done, torn, busy))


def whole(found: SharedValue) -> bool:
    """Whether the value is of one write alone."""
    value, revision = found.value, found.revision
    words = WORDS[revision % len(WORDS)]
    return value == revision.to_bytes(8, "little") * words and revision == found.timestamp


if __name__ == "__main__":
    sys.exit(main())
