"""
Fuzzes the request path: requests and answers with bytes changed by chance, through a gateway of its own.

    python -m tests.gateway.fuzz [--seconds 600] [--seed N]

It holds that the gateway stays alive and answers well-formed requests all the while, that an instance
only ever gets heads that two readers read in the same way, and that at the end no request, connection or
memory is left behind. It ends with status 1 and the seed when one of these fails. ``scripts/fuzz.sh`` runs
it.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import re
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import psutil

from tests.gateway.conftest import Running
from tests.gateway.http2 import PREFACE, frame
from tests.ports import free_port
from unisono.gateway.link import GatewayLink
from unisono.gateway.table import Backend, Listener, Rule, Table, Target

WORKERS = 16
GROWTH_MAX = 32 << 20  # bytes of memory between the first minute and the end


# :method GET / POST, :scheme http, :path /, :authority a; all but the last from HPACK's static table.
GET = b"\x82\x86\x84\x41\x01a"
POST = b"\x83\x86\x84\x41\x01a"
REQUESTS = [
    b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET /x?y=1 HTTP/1.1\r\nHost: a\r\nConnection: close, x\r\nCookie: a=b\r\nX: y\r\n\r\n",
    b"HEAD / HTTP/1.0\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello",
    b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTrailer: t\r\n\r\n"
    b"5;x=y\r\nhello\r\n0\r\nt: 1\r\n\r\n",
    b"PUT / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\nhello",
    b"GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nrest",
    b"GET http://a/ HTTP/1.1\r\nHost: b\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: a\r\ncontent-type: application/grpc\r\ngrpc-timeout: 1S\r\n\r\n",
    PREFACE + frame(4, 0, 0) + frame(1, 5, 1, GET),
    PREFACE
    + frame(4, 0, 0, b"\0\4\0\0\xff\xff")
    + frame(1, 4, 1, POST)
    + frame(0, 0, 1, b"he")
    + frame(0, 1, 1, b"y"),
    PREFACE
    + frame(4, 0, 0)
    + frame(1, 1, 1, GET[:3])
    + frame(9, 4, 1, GET[3:])
    + frame(3, 0, 1, b"\0\0\0\x08"),
    PREFACE
    + frame(4, 0, 0)
    + frame(6, 0, 0, b"12345678")
    + frame(8, 0, 0, b"\0\0\0\1")
    + frame(1, 5, 3, GET),
    PREFACE
    + frame(4, 0, 0)
    + frame(1, 4, 1, POST)
    + frame(1, 5, 1, b"\0\x01t\x011")
    + frame(7, 0, 0, b"\0" * 8),
]
ANSWERS = [
    b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: t\r\n\r\n2\r\nok\r\n0\r\nt: 1\r\n\r\n",
    b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n",
    b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\n\r\nto the end",
    b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\nhello",
    b"HTTP/1.1 503 No\r\nRetry-After: 0\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
]
FRAMES = [
    frame(4, 0, 0) + frame(4, 1, 0) + frame(1, 4, 1, b"\x88") + frame(0, 1, 1, b"ok"),
    frame(4, 0, 0) + frame(1, 5, 1, b"\x88\0\x0bgrpc-status\x0214"),
    frame(4, 0, 0) + frame(7, 0, 0, b"\0" * 8),
    frame(4, 0, 0) + frame(3, 0, 1, b"\0\0\0\7"),
    frame(4, 0, 0) + frame(1, 4, 1, b"\x88") + frame(0, 0, 1, b"ok") + frame(1, 5, 1, b"\0\x01t\x011"),
]
TOKENS = [
    *(
        b"\r\n",
        b"\n",
        b"\r",
        b"\0",
        b": ",
        b" ",
        b"\t",
        b",",
        b";",
        b"chunked",
        b"0\r\n\r\n",
        b"-1",
        b"+5",
        b"0x5",
    ),
    *(b"Content-Length: 5\r\n", b"Transfer-Encoding: chunked\r\n", b"Transfer-Encoding: x, chunked\r\n"),
    *(
        b"Host: b\r\n",
        b"Connection: host\r\n",
        b"Upgrade: h2c\r\n",
        b"HTTP/1.0",
        b"HTTP/2.0",
        b"ffffffffffffffff",
    ),
    *(
        b"\xff" * 4,
        b"\x7f\xff\xff\xff",
        frame(3, 0, 1, b"\0\0\0\0"),
        frame(9, 0, 1),
        frame(0, 0, 1),
        b"A" * 5000,
    ),
]
LINE = re.compile(rb"[!-~]+ [!-~\x80-\xff]+ HTTP/1\.1\Z")
FIELD = re.compile(rb"[-!#$%&'*+.^_`|~0-9A-Za-z]+: ?[\t -~\x80-\xff]*\Z")


def mutated(chance: random.Random, seed: bytes, others: list[bytes]) -> bytes:
    """Bytes like others, with some changes."""
    data = bytearray(seed)
    for _ in range(chance.choice((0, 1, 1, 2, 3, 8))):
        at, to = sorted((chance.randrange(len(data) + 1), chance.randrange(len(data) + 1)))
        match chance.randrange(6):
            case 0 if data:
                data[min(at, len(data) - 1)] ^= 1 << chance.randrange(8)
            case 1:
                data[at:at] = chance.choice(TOKENS)
            case 2:
                del data[at : min(to, at + 20)]
            case 3:
                data[at:at] = data[at:to]
            case 4:
                data[at:] = chance.choice(others)
            case _:
                del data[at:]
    return bytes(data)


def fault_of(head: bytes) -> str | None:
    """What is wrong with a head that an instance got."""
    first, *lines = head.removesuffix(b"\r\n\r\n").split(b"\r\n")
    if not LINE.match(first):
        return "its first line is none"
    if not all(FIELD.match(line) for line in lines):
        return "it has a line that is no field"
    names = [line.split(b":")[0].lower() for line in lines]
    framing = names.count(b"content-length") + names.count(b"transfer-encoding")
    if framing > 1:
        return "its body is delimited twice"
    if names.count(b"host") != 1:
        return "it has not one Host"
    return None


class Fuzz:
    """A gateway, instances that answer anything, and clients that ask anything."""

    def __init__(self, running: Running, seed: int) -> None:
        self.running = running
        self.chance = random.Random(seed)
        self.link = GatewayLink(running.socket)
        self.ports = [free_port() for _ in range(3)]
        self.faults: list[str] = []
        self.cases = self.well = 0

    async def start(self) -> None:
        names, targets = ("fuzz/one", "fuzz/two", "fuzz/well"), []
        for serve in (self._any_http1, self._any_http2, self._well):
            server = await asyncio.start_server(serve, "127.0.0.1", 0)
            targets.append(f"127.0.0.1:{server.sockets[0].getsockname()[1]}")
        services = {
            name: Backend(
                targets=(Target(id=name[5:], generation=1, address=address),),
                protocol="h2" if name == "fuzz/two" else "http1",
                timeout_ms=10_000 if name == "fuzz/well" else 200,
                wait_ms=10_000 if name == "fuzz/well" else 200,
                eject=False,
            )
            for name, address in zip(names, targets, strict=True)
        }
        listeners = tuple(
            Listener(address=f"127.0.0.1:{port}", rules=(Rule(service=name),))
            for name, port in zip(names, self.ports, strict=True)
        )
        await self.link.put_table(Table(version=1, listeners=listeners, services=services))

    async def run(self, seconds: float) -> None:
        ends = time.monotonic() + seconds
        async with asyncio.TaskGroup() as group:
            for _ in range(WORKERS):
                group.create_task(self._ask_anything(ends))
            group.create_task(self._ask_well(ends))

    async def settle(self) -> dict[str, object]:
        """What is left once all are gone."""
        for _ in range(600):
            found = await self.link.measurements()
            left = [
                found["connections"],
                *(one["in_flight"] + one["waiting"] for one in found["services"].values()),
            ]
            if not any(left):
                break
            await asyncio.sleep(0.1)
        return {"connections, in flight": left}

    async def _ask_anything(self, ends: float) -> None:
        while time.monotonic() < ends and not self.faults:
            data = b"".join(
                mutated(self.chance, self.chance.choice(REQUESTS), REQUESTS)
                for _ in range(self.chance.choice((1, 1, 1, 2, 3)))
            )
            with suppress(OSError, asyncio.IncompleteReadError):
                await self._ask(self.chance.choice(self.ports[:2]), data)
            self.cases += 1

    async def _ask(self, port: int, data: bytes) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            while data:
                cut = self.chance.randrange(1, len(data) + 1) if self.chance.random() < 0.2 else len(data)
                writer.write(data[:cut])
                data = data[cut:]
                await asyncio.sleep(0)
            if self.chance.random() < 0.5:
                writer.write_eof()
            with suppress(TimeoutError):
                async with asyncio.timeout(self.chance.choice((0.0, 0.02, 0.3))):
                    await reader.read(1 << 16)
        finally:
            writer.transport.abort()

    async def _ask_well(self, ends: float) -> None:
        while time.monotonic() < ends and not self.faults:
            try:
                async with asyncio.timeout(10):
                    reader, writer = await asyncio.open_connection("127.0.0.1", self.ports[2])
                    writer.write(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
                    answer = await reader.read()
                    writer.close()
            except (OSError, TimeoutError) as error:
                self.faults.append(f"a good request got no answer: {error!r}")
                return
            if not answer.startswith(b"HTTP/1.1 200"):
                self.faults.append(f"a good request got {answer[:200]!r}")
            self.well += 1
            await asyncio.sleep(0.05)

    async def _any_http1(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError, asyncio.LimitOverrunError, OSError):
            head = await reader.readuntil(b"\r\n\r\n")
            fault = fault_of(head)
            if fault is not None:
                self.faults.append(f"an instance got a head: {fault}: {head[:500]!r}")
            seed = self.chance.choice(ANSWERS)
            writer.write(seed if self.chance.random() < 0.5 else mutated(self.chance, seed, ANSWERS))
            await writer.drain()
            if self.chance.random() < 0.5:
                await asyncio.wait_for(reader.read(1 << 16), 0.1)
        writer.transport.abort() if self.chance.random() < 0.3 else writer.close()

    async def _any_http2(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError, OSError):
            await reader.readexactly(len(PREFACE))
            writer.write(mutated(self.chance, self.chance.choice(FRAMES), FRAMES))
            await writer.drain()
            await asyncio.wait_for(reader.read(1 << 16), 0.1)
            await asyncio.sleep(0.1)
        writer.close()

    async def _well(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError, OSError):
            while True:
                await reader.readuntil(b"\r\n\r\n")
                writer.write(ANSWERS[0])
        writer.close()


async def fuzz(seconds: float, seed: int) -> int:
    """Run for so long; 1 when something was found."""
    with tempfile.TemporaryDirectory(prefix="uni-") as folder:
        running = Running(Path(folder))
        running.start()
        try:
            assert running.process is not None
            process = psutil.Process(running.process.pid)
            run = Fuzz(running, seed)
            await run.start()
            first = min(60.0, seconds / 4)
            await run.run(first)
            before = process.memory_info().rss
            await run.run(seconds - first)
            left = await run.settle() if running.process.poll() is None else {}
            growth = process.memory_info().rss - before if left else 0
            if running.process.poll() is not None:
                run.faults.append(f"the gateway ended with {running.process.returncode}")
            elif any(any(values) for values in left.values() if isinstance(values, list)):
                run.faults.append(f"something was left: {left}")
            elif growth > GROWTH_MAX:
                run.faults.append(f"memory grew by {growth >> 20} MiB")
        finally:
            # Instances are cut off in the middle of what they do; nobody needs to hear of it.
            asyncio.get_running_loop().set_exception_handler(lambda *_: None)
            running.stop()
    print(
        f"seed {seed}: {run.cases} connections fuzzed in {seconds:.0f} s, "
        f"{run.well} good requests between them answered, "
        f"memory {before >> 20} MiB {growth / (1 << 20):+.1f} MiB"
    )
    for fault in run.faults:
        print(fault, file=sys.stderr)
    return 1 if run.faults else 0


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.strip().splitlines()[0] if __doc__ else None)
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32))
    options = parser.parse_args()
    sys.exit(asyncio.run(fuzz(options.seconds, options.seed)))


if __name__ == "__main__":
    main()
