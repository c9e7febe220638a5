"""gRPC through the gateway, with grpcio on both sides."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import grpc
import pytest
import pytest_asyncio

from tests.gateway.backend import Peer
from tests.gateway.conftest import Stage, eventually, target

UNARY = "/test.Words/Unary"
GRPC = [("content-type", "application/grpc"), ("te", "trailers")]


class Words:
    """A service of bytes: one method of each kind."""

    def __init__(self) -> None:
        self.now = 0
        self.most = 0
        self.deadlines: list[float] = []
        self.calls = 0
        self.gate = asyncio.Event()
        self.gate.set()

    async def unary(self, request: bytes, context: Any) -> bytes:
        self.calls += 1
        self.now += 1
        self.most = max(self.most, self.now)
        self.deadlines.append(context.time_remaining() or -1.0)
        try:
            await self.gate.wait()
            if request == b"fail":
                context.set_trailing_metadata((("why", "asked"),))
                await context.abort(grpc.StatusCode.NOT_FOUND, "für immer")
            if request == b"busy":
                await context.abort(grpc.StatusCode.UNAVAILABLE, "not now")
            return request + b"!"
        finally:
            self.now -= 1

    async def down(self, request: bytes, _: Any) -> AsyncIterator[bytes]:
        for number in range(int(request)):
            yield b"%d" % number

    async def up(self, requests: AsyncIterator[bytes], _: Any) -> bytes:
        return b"".join([request async for request in requests])

    async def both(self, requests: AsyncIterator[bytes], _: Any) -> AsyncIterator[bytes]:
        async for request in requests:
            yield request + b"?"

    def handlers(self) -> grpc.GenericRpcHandler:
        return grpc.method_handlers_generic_handler(
            "test.Words",
            {
                "Unary": grpc.unary_unary_rpc_method_handler(self.unary),
                "Down": grpc.unary_stream_rpc_method_handler(self.down),
                "Up": grpc.stream_unary_rpc_method_handler(self.up),
                "Both": grpc.stream_stream_rpc_method_handler(self.both),
            },
        )


class GrpcStage:
    """gRPC servers behind the gateway, and a channel to it."""

    def __init__(self, stage: Stage, stack: AsyncExitStack) -> None:
        self.stage = stage
        self._stack = stack
        self.channel = grpc.aio.insecure_channel(f"127.0.0.1:{stage.port}")
        stack.push_async_callback(self.channel.close)

    async def serve(self, *services: Words) -> None:
        ports = []
        for service in services:
            server = grpc.aio.server()
            server.add_generic_rpc_handlers((service.handlers(),))
            ports.append(server.add_insecure_port("127.0.0.1:0"))
            await server.start()
            self._stack.push_async_callback(server.stop, None)
        targets = tuple(target(number, port) for number, port in enumerate(ports))
        await self.stage.push(protocol="h2", targets=targets)

    async def unary(self, request: bytes, **options: Any) -> bytes:
        answer: bytes = await self.channel.unary_unary(UNARY)(request, **options)
        return answer


@pytest_asyncio.fixture
async def words(stage: Stage) -> AsyncIterator[GrpcStage]:
    async with AsyncExitStack() as stack:
        yield GrpcStage(stage, stack)


async def test_each_kind_of_call_passes(words: GrpcStage) -> None:
    """Unary, streams down, up, and both at once, the last answered message by message."""
    await words.serve(Words())

    unary = await words.unary(b"a")
    down = [message async for message in words.channel.unary_stream("/test.Words/Down")(b"3000")]
    up = await words.channel.stream_unary("/test.Words/Up")(iter([b"x" * 100_000] * 20))
    call = words.channel.stream_stream("/test.Words/Both")()
    both = []
    for message in (b"1", b"2", b"3"):
        await call.write(message)
        both.append(await call.read())
    await call.done_writing()
    end = await call.read()

    assert (unary, len(down), down[-1], len(up)) == (b"a!", 3000, b"2999", 2_000_000)
    assert (both, end is grpc.aio.EOF) == ([b"1?", b"2?", b"3?"], True)


async def test_many_small_messages_are_no_flood(words: GrpcStage) -> None:
    """A stream of tiny messages up, as telemetry is, isn't taken for an attack."""
    await words.serve(Words())
    call = words.channel.stream_unary("/test.Words/Up")()
    for _ in range(20_000):
        await call.write(b"x")
    await call.done_writing()

    answer = await call

    assert answer == b"x" * 20_000


async def test_small_messages_that_lie_before_a_gateway_held_up_are_no_flood(words: GrpcStage) -> None:
    """There are more than h2 bears unread, and they are read as the instance takes them."""
    await words.serve(Words())
    call = words.channel.stream_unary("/test.Words/Up")()
    await call.write(b"x")
    gateway = words.stage.running.process
    assert gateway is not None
    gateway.send_signal(signal.SIGSTOP)
    try:
        for _ in range(5000):
            await call.write(b"x")
    finally:
        gateway.send_signal(signal.SIGCONT)
    await call.done_writing()

    answer = await call

    assert answer == b"x" * 5001


async def test_errors_come_with_their_trailers(words: GrpcStage) -> None:
    """Status, message and metadata of an answer that is all trailers."""
    await words.serve(Words())

    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await words.unary(b"fail")

    error = caught.value
    assert (error.code(), error.details()) == (grpc.StatusCode.NOT_FOUND, "für immer")
    assert ("why", "asked") in tuple(error.trailing_metadata() or ())


async def test_a_hundred_calls_each_hold_a_place_of_their_own(words: GrpcStage) -> None:
    """On one connection, no more of them are at an instance than it has places."""
    services = [Words(), Words()]
    await words.serve(*services)
    await words.stage.push(concurrency=30, slow_start_ms=0)
    for service in services:
        service.gate.clear()
    calls = [asyncio.ensure_future(words.unary(b"%d" % number)) for number in range(100)]
    await words.stage.until("waiting", 40)

    async def all_are_there() -> bool:
        return sum(service.now for service in services) >= 60

    await eventually(all_are_there)
    at_once = [service.now for service in services]
    for service in services:
        service.gate.set()

    answers = await asyncio.gather(*calls)

    assert (at_once, sorted(answers)) == ([30, 30], sorted(b"%d!" % number for number in range(100)))
    assert max(service.most for service in services) == 30


async def test_the_deadline_shrinks_on_the_way(words: GrpcStage) -> None:
    """What a call waits in the queue is not given to the instance again."""
    service = Words()
    await words.serve(service)
    await words.stage.push(concurrency=1)
    service.gate.clear()
    first = asyncio.ensure_future(words.unary(b"a"))
    await words.stage.until("in_flight", 1)
    second = asyncio.ensure_future(words.unary(b"b", timeout=20))
    await words.stage.until("waiting", 1)
    await asyncio.sleep(1)
    service.gate.set()

    await asyncio.gather(first, second)

    # grpcio sends its deadlines rounded up, by a hundredth or so.
    assert 0 < service.deadlines[1] < 19.5


async def test_a_call_that_takes_too_long_ends_in_time(words: GrpcStage) -> None:
    """DEADLINE_EXCEEDED by the service's own timeout_ms, said by the gateway; the instance is told."""
    service = Words()
    await words.serve(service)
    await words.stage.push(timeout_ms=100)
    service.gate.clear()

    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await words.unary(b"a")

    await words.stage.until("in_flight", 0)
    service.gate.set()
    assert caught.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED


async def test_without_an_instance_a_call_is_unavailable(words: GrpcStage) -> None:
    """The gateway's own refusal is a status, with its reason."""
    await words.serve()
    await words.stage.push(wait_ms=10)

    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await words.unary(b"a")

    metadata = dict(caught.value.initial_metadata() or ()) | dict(caught.value.trailing_metadata() or ())
    assert (caught.value.code(), metadata["unisono-reason"]) == (grpc.StatusCode.UNAVAILABLE, "no_target")


async def test_an_unavailable_answer_is_bettered_where_a_call_may_be_repeated(words: GrpcStage) -> None:
    """With idempotency-key the call goes on to the next instance; without it, the answer stands."""
    services = [Words(), Words()]
    await words.serve(*services)

    for metadata in ((), (("idempotency-key", "1"),)):
        with pytest.raises(grpc.aio.AioRpcError, match="not now"):
            await words.unary(b"busy", metadata=metadata)

    assert sum(service.calls for service in services) == 3


async def test_cancelling_a_call_frees_its_place(words: GrpcStage) -> None:
    """The instance's call is cancelled, and nothing is left in flight."""
    service = Words()
    await words.serve(service)
    service.gate.clear()
    call = asyncio.ensure_future(words.unary(b"a"))
    await words.stage.until("in_flight", 1)
    call.cancel()

    await words.stage.until("in_flight", 0)

    async def is_cancelled() -> bool:
        return service.now == 0

    await eventually(is_cancelled)


async def test_grpc_goes_to_http1_instances_too(stage: Stage) -> None:
    """Trailers of a chunked answer become gRPC's."""

    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.say(
            b"HTTP/1.1 200 OK\r\nContent-Type: application/grpc\r\nTrailer: grpc-status\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n6\r\n\0\0\0\0\1a\r\n0\r\ngrpc-status: 0\r\n\r\n"
        )

    await stage.serve(script)
    client = await stage.connect_http2()

    answer = await client.answer(await client.request(method="POST", headers=GRPC))

    assert (answer.body, answer.trailers) == (b"\0\0\0\0\1a", {"grpc-status": "0"})
