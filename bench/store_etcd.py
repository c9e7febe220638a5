"""
What the store on etcd costs beside etcd: the same operations through the store, and through bare gRPC.

    python -m bench.store_etcd

Starts one etcd member in a folder beside this file, on the real disk. The peer is the least that one can
write by hand over grpc.aio: no time limits, no outcome found out, no order of one's writes, no watch that
resumes. Values have 100 bytes; clients are tasks of one event loop that each wait for an answer before they
go on. Rounds of store and peer take turns, and medians are compared. The goal is 0.8 of the peer.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc
import grpc.aio

from unisono.store.addresses import EtcdAddress
from unisono.store.base import Put
from unisono.store.etcd import EtcdStore
from unisono.store.etcd import wire_pb2 as wire

ROUNDS = 7
KEYS = 1000
VALUE = os.urandom(100)
CLIENTS = 64
ALONE, TOGETHER = 400, 6000  # operations in a round
EVENTS = 4000
GOAL = 0.8

Work = Callable[[int], Awaitable[Any]]


class Bare:
    """etcd's calls and nothing else."""

    def __init__(self, endpoint: str) -> None:
        self._channel = grpc.aio.insecure_channel(endpoint)
        self._put = self._channel.unary_unary(
            "/etcdserverpb.KV/Put", wire.PutRequest.SerializeToString, wire.PutResponse.FromString
        )
        self._range = self._channel.unary_unary(
            "/etcdserverpb.KV/Range", wire.RangeRequest.SerializeToString, wire.RangeResponse.FromString
        )
        self._watch = self._channel.stream_stream(
            "/etcdserverpb.Watch/Watch", wire.WatchRequest.SerializeToString, wire.WatchResponse.FromString
        )

    async def put(self, n: int) -> None:
        await self._put(wire.PutRequest(key=b"bare/" + _key(n).encode(), value=VALUE))

    async def get(self, n: int) -> None:
        answer = await self._range(wire.RangeRequest(key=b"bare/" + _key(n).encode()))
        assert answer.kvs[0].value == VALUE

    async def revision(self) -> int:
        return int((await self._range(wire.RangeRequest(key=b"bare/"))).header.revision)

    async def watch(self, revision: int, count: int, seen: asyncio.Event) -> None:
        call = self._watch()
        create = wire.WatchCreateRequest(key=b"bare/", range_end=b"bare0", start_revision=revision)
        await call.write(wire.WatchRequest(create=create))
        await call.read()
        seen.set()
        while count > 0:
            answer = await call.read()
            count -= len(answer.events)
        call.cancel()

    async def close(self) -> None:
        await self._channel.close()


async def rate(work: Work, clients: int, count: int) -> float:
    """Operations per second of ``clients`` that share ``count`` of them."""

    async def client(first: int) -> None:
        for n in range(first, count, clients):
            await work(n)

    started = time.perf_counter()
    await asyncio.gather(*(client(number) for number in range(clients)))
    return count / (time.perf_counter() - started)


async def bare_watch(bare: Bare) -> float:
    """Events per second from put to watch, while 64 clients put."""
    seen = asyncio.Event()
    watching = asyncio.create_task(bare.watch(await bare.revision() + 1, EVENTS, seen))
    await seen.wait()
    started = time.perf_counter()
    await rate(bare.put, CLIENTS, EVENTS)
    await watching
    return EVENTS / (time.perf_counter() - started)


async def store_watch(store: EtcdStore) -> float:
    """The same through the store."""
    watch = store.watch("", after=(await store.scan("none")).revision)

    async def follow(count: int) -> None:
        for _ in range(count):
            await anext(watch)

    await asyncio.gather(follow(1), _put(store)(0))
    watching = asyncio.create_task(follow(EVENTS))
    started = time.perf_counter()
    await rate(_put(store), CLIENTS, EVENTS)
    await watching
    seconds = time.perf_counter() - started
    await watch.aclose()
    return EVENTS / seconds


def _put(store: EtcdStore) -> Work:
    return lambda n: store.transact(success=[Put(key=_key(n), value=VALUE)])


def _get(store: EtcdStore) -> Work:
    return lambda n: store.get(_key(n))


def _key(n: int) -> str:
    return f"key/{n % KEYS:04}"


async def measure(endpoint: str) -> dict[str, tuple[list[float], list[float]]]:
    """Rates of the store and of the peer, by what was measured."""
    found: dict[str, tuple[list[float], list[float]]] = {}

    def note(what: str, store_rate: float, bare_rate: float) -> None:
        ours, theirs = found.setdefault(what, ([], []))
        ours.append(store_rate)
        theirs.append(bare_rate)

    bare = Bare(endpoint)
    store = await EtcdStore.open(EtcdAddress(endpoints=(endpoint,), prefix="bench"))
    await rate(bare.put, CLIENTS, KEYS)
    await rate(_put(store), CLIENTS, KEYS)
    for _ in range(ROUNDS):
        for clients, count in ((1, ALONE), (CLIENTS, TOGETHER)):
            title = f"{clients} client{'s' if clients > 1 else ''}"
            note(
                f"puts/s, {title}",
                await rate(_put(store), clients, count),
                await rate(bare.put, clients, count),
            )
            note(
                f"gets/s, {title}",
                await rate(_get(store), clients, count),
                await rate(bare.get, clients, count),
            )
    await store.close()
    for _ in range(ROUNDS):
        # A store of its own each time: what was watched once is watched until the store is closed.
        store = await EtcdStore.open(EtcdAddress(endpoints=(endpoint,), prefix="bench"))
        note(f"puts seen by a watch/s, {CLIENTS} clients", await store_watch(store), await bare_watch(bare))
        await store.close()
    await bare.close()
    return found


def main() -> int:
    """Measure everything in turns and print a table; 1 if the goal was missed."""
    etcd = shutil.which("etcd")
    if etcd is None:
        print("etcd is missing (Debian and Ubuntu: apt install etcd-server)", file=sys.stderr)
        return 1
    client, peer = _free_ports(2)
    with tempfile.TemporaryDirectory(dir=Path(__file__).parent, prefix=".etcd-") as folder:
        with (Path(folder) / "log").open("wb") as log:
            process = subprocess.Popen(
                [
                    etcd, f"--data-dir={folder}/data", f"--listen-client-urls=http://127.0.0.1:{client}",
                    f"--advertise-client-urls=http://127.0.0.1:{client}",
                    f"--listen-peer-urls=http://127.0.0.1:{peer}",
                ],
                stdout=log, stderr=log,
            )  # fmt: skip
        try:
            found = asyncio.run(measure(f"127.0.0.1:{client}"))
        finally:
            process.kill()
            process.wait()
    return _report(found)


def _report(found: dict[str, tuple[list[float], list[float]]]) -> int:
    missed = False
    print(f"{'':38}{'store':>10}{'bare gRPC':>12}{'ratio':>8}{'goal':>8}")
    for what, (ours, theirs) in found.items():
        mine, other = statistics.median(ours), statistics.median(theirs)
        missed |= mine / other < GOAL
        print(f"{what:38}{mine:10,.0f}{other:12,.0f}{mine / other:8.2f}{GOAL:8.2f}")
    return int(missed)


def _free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


if __name__ == "__main__":
    sys.exit(main())
