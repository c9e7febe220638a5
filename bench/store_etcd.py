"""
What the store on etcd costs beside etcd: the same operations through the store, and through bare gRPC.

    python -m bench.store_etcd

Starts one etcd member in a folder beside this file, on the real disk. The peer is the least that one can
write by hand over grpc.aio: no time limits, no outcome found out, no order of one's writes, no watch that
resumes. A write of the store is a transaction, so the goal is for a peer's transaction; a put without any
condition is another call of etcd's, which costs etcd half as much, and is printed beside it.

Values have 100 bytes; clients are tasks of one event loop that each wait for an answer before they go on.
Rounds of store and peer take turns, and medians are compared. The goal is 0.8 of the peer.
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
EVENTS = 20_000
PREFIX, PREFIX_END = b"bench/data/", b"bench/data0"  # where the store keeps its keys
BLIND = "puts/s, peer without condition"
GOAL = 0.8

Work = Callable[[int], Awaitable[Any]]


class Bare:
    """etcd's calls and nothing else; ``KEYS`` keys beside those of the store."""

    def __init__(self, endpoint: str) -> None:
        self._channel = grpc.aio.insecure_channel(endpoint)
        self._put = self._channel.unary_unary(
            "/etcdserverpb.KV/Put", wire.PutRequest.SerializeToString, wire.PutResponse.FromString
        )
        self._txn = self._channel.unary_unary(
            "/etcdserverpb.KV/Txn", wire.TxnRequest.SerializeToString, wire.TxnResponse.FromString
        )
        self._range = self._channel.unary_unary(
            "/etcdserverpb.KV/Range", wire.RangeRequest.SerializeToString, wire.RangeResponse.FromString
        )
        self._watch = self._channel.stream_stream(
            "/etcdserverpb.Watch/Watch", wire.WatchRequest.SerializeToString, wire.WatchResponse.FromString
        )

    async def put(self, n: int) -> None:
        """Set a key, whatever it was: sent again by mistake, it would overwrite what came after it."""
        await self._put(wire.PutRequest(key=_raw(n), value=VALUE))

    async def put_if(self, n: int) -> None:
        """Set a key on a condition, etcd's way of a write that can be told from another."""
        condition = wire.Compare(key=b"none", target=wire.Compare.MOD, mod_revision=0)
        put = wire.Operation(put=wire.PutRequest(key=_raw(n), value=VALUE))
        answer = await self._txn(wire.TxnRequest(compare=[condition], success=[put]))
        assert answer.succeeded

    async def get(self, n: int) -> None:
        """Read a key."""
        answer = await self._range(wire.RangeRequest(key=_raw(n)))
        assert answer.kvs[0].value == VALUE

    async def revision(self) -> int:
        """etcd's revision."""
        return int((await self._range(wire.RangeRequest(key=b"none"))).header.revision)

    async def watch(self, after: int, count: int) -> float:
        """Events per second of a watch that begins in the past."""
        started = time.perf_counter()
        call = self._watch()
        create = wire.WatchCreateRequest(key=PREFIX, range_end=PREFIX_END, start_revision=after + 1)
        await call.write(wire.WatchRequest(create=create))
        left = count
        while left > 0:
            left -= len((await call.read()).events)
        call.cancel()
        return count / (time.perf_counter() - started)

    async def close(self) -> None:
        """Let go of etcd."""
        await self._channel.close()


async def rate(work: Work, clients: int, count: int) -> float:
    """Operations per second of ``clients`` that share ``count`` of them."""

    async def client(first: int) -> None:
        for n in range(first, count, clients):
            await work(n)

    started = time.perf_counter()
    await asyncio.gather(*(client(number) for number in range(clients)))
    return count / (time.perf_counter() - started)


async def store_watch(endpoint: str, after: int, count: int) -> float:
    """Events per second of a watch that begins in the past, in a store that watched nothing before."""
    store = await EtcdStore.open(_address(endpoint))
    started = time.perf_counter()
    watch = store.watch("", after=after)
    for _ in range(count):
        await anext(watch)
    seconds = time.perf_counter() - started
    await store.close()
    return count / seconds


def _address(endpoint: str) -> EtcdAddress:
    return EtcdAddress(endpoints=(endpoint,), prefix="bench")


def _raw(n: int) -> bytes:
    return PREFIX + _key(n).encode()


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
    store = await EtcdStore.open(_address(endpoint))
    await rate(bare.put, CLIENTS, KEYS)
    await rate(_put(store), CLIENTS, KEYS)
    for _ in range(ROUNDS):
        for clients, count in ((1, ALONE), (CLIENTS, TOGETHER)):
            title = f"{clients} client{'s' if clients > 1 else ''}"
            puts = await rate(_put(store), clients, count)
            note(f"puts/s, {title}", puts, await rate(bare.put_if, clients, count))
            note(f"{BLIND}, {title}", puts, await rate(bare.put, clients, count))
            note(
                f"gets/s, {title}",
                await rate(_get(store), clients, count),
                await rate(bare.get, clients, count),
            )
    await store.close()
    after = await bare.revision()
    await rate(bare.put, CLIENTS, EVENTS)
    for _ in range(ROUNDS):
        note(
            "events/s of a watch", await store_watch(endpoint, after, EVENTS), await bare.watch(after, EVENTS)
        )
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
    print(f"{'':44}{'store':>10}{'bare gRPC':>12}{'ratio':>8}{'goal':>8}")
    for what, (ours, theirs) in found.items():
        mine, other = statistics.median(ours), statistics.median(theirs)
        has_goal = not what.startswith(BLIND)
        missed |= has_goal and mine / other < GOAL
        print(f"{what:44}{mine:10,.0f}{other:12,.0f}{mine / other:8.2f}{GOAL if has_goal else '-':>8}")
    return int(missed)


def _free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


if __name__ == "__main__":
    sys.exit(main())
