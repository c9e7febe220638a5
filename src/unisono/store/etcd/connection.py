"""
Connections to the members of an etcd: one at a time carries the calls, another takes over when it fails.

Here are channels, TLS, logging in, time limits, and changing members. What a call means is not known here;
whether it may be made again is said by which method is used: :meth:`Connection.once` makes it one time,
:meth:`Connection.ask` until somebody answers.

A member that is stopped (SIGSTOP, a machine that hangs) still has its connections open and answers nothing:
each call has a time limit of its own, and one that is missed takes the streams to that member along, so that
watches move on together with calls instead of waiting for TCP.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc
import grpc.aio

from unisono.store.addresses import EtcdAddress
from unisono.store.base import Broken, NotDone
from unisono.store.etcd import wire_pb2 as wire
from unisono.store.etcd.failures import Failure, judge, refusal

PATIENCE = 15.0  # seconds for one operation, whatever has to be tried for it
CALL_SECONDS = 3.0  # for one call to one member
MAX_ANSWER_BYTES = 64 * 1024 * 1024
_PAUSE_MAX = 0.5

_OPTIONS: list[tuple[str, Any]] = [
    ("grpc.max_receive_message_length", MAX_ANSWER_BYTES),
    ("grpc.max_send_message_length", -1),  # the store has limits of its own, and etcd too
    # etcd refuses who pings more often than every 5 s.
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 3_000),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 1_000),  # also the time that making a connection may take
    ("grpc.max_reconnect_backoff_ms", 1_000),
    ("grpc.enable_retries", 0),  # what is sent again, and what not, is decided here
    ("grpc.enable_http_proxy", 0),
    # Two stores of one process, with two users perhaps, share no connection.
    ("grpc.use_local_subchannel_pool", 1),
]

_CALLS: dict[str, tuple[str, Any, Any]] = {
    "range": ("/etcdserverpb.KV/Range", wire.RangeRequest, wire.RangeResponse),
    "put": ("/etcdserverpb.KV/Put", wire.PutRequest, wire.PutResponse),
    "txn": ("/etcdserverpb.KV/Txn", wire.TxnRequest, wire.TxnResponse),
    "compact": ("/etcdserverpb.KV/Compact", wire.CompactionRequest, wire.CompactionResponse),
    "grant": ("/etcdserverpb.Lease/LeaseGrant", wire.LeaseGrantRequest, wire.LeaseGrantResponse),
    "revoke": ("/etcdserverpb.Lease/LeaseRevoke", wire.LeaseRevokeRequest, wire.LeaseRevokeResponse),
    "login": ("/etcdserverpb.Auth/Authenticate", wire.AuthenticateRequest, wire.AuthenticateResponse),
}
_STREAMS: dict[str, tuple[str, Any, Any]] = {
    "watch": ("/etcdserverpb.Watch/Watch", wire.WatchRequest, wire.WatchResponse),
    "keep_alive": (
        "/etcdserverpb.Lease/LeaseKeepAlive",
        wire.LeaseKeepAliveRequest,
        wire.LeaseKeepAliveResponse,
    ),
}


# A member that has lost touch with the others says so at once, instead of keeping us waiting.
_HAS_LEADER = ("hasleader", "true")
_METADATA = grpc.aio.Metadata(_HAS_LEADER)

Consume = Callable[[wire.WatchResponse], Awaitable[bool]]


class CallFailed(Exception):
    """A call had no result; ``failure`` says what that means, ``reason`` is for people."""

    def __init__(self, failure: Failure, reason: str) -> None:
        super().__init__(reason)
        self.failure = failure
        self.reason = reason


class Member:
    """One member: its channel and methods, and the tasks that have a stream open to it."""

    def __init__(self, endpoint: str, credentials: grpc.ChannelCredentials | None) -> None:
        self.endpoint = endpoint
        if credentials is None:
            self.channel = grpc.aio.insecure_channel(endpoint, options=_OPTIONS)
        else:
            self.channel = grpc.aio.secure_channel(endpoint, credentials, options=_OPTIONS)
        self.methods: dict[str, Any] = {
            name: self.channel.unary_unary(path, request.SerializeToString, answer.FromString)
            for name, (path, request, answer) in _CALLS.items()
        }
        self.methods |= {
            name: self.channel.stream_stream(path, request.SerializeToString, answer.FromString)
            for name, (path, request, answer) in _STREAMS.items()
        }
        self.streams: set[asyncio.Task[Any]] = set()


class Connection:
    """
    All members of one etcd; belongs to the event loop on which it is made.

    Raises (when made):
        Broken: A certificate or key can't be read.
    """

    def __init__(self, address: EtcdAddress) -> None:
        self._address = address
        credentials = _credentials(address)
        self._members = [Member(endpoint, credentials) for endpoint in address.endpoints]
        self._current = random.randrange(len(self._members))  # clients spread over the members
        self._token: str | None = None
        self._login = asyncio.Lock()

    def __str__(self) -> str:
        return str(self._address)

    async def once(self, method: str, request: Any) -> Any:
        """
        Make a call to one member, one time (but again where it certainly had no effect).

        Raises:
            CallFailed: It may have had an effect, unless its failure says otherwise.
            StoreError, ValueError: etcd refused it; nothing was changed.
        """
        renewed = False
        while True:
            member = self._members[self._current]
            metadata = _METADATA if self._address.user is None else await self._with_token()
            try:
                return await member.methods[method](request, timeout=CALL_SECONDS, metadata=metadata)
            except grpc.aio.AioRpcError as error:
                failed = self._failed(member, error)
            if failed.failure is not Failure.TOKEN or renewed:
                raise failed
            renewed = True
            self._token = None

    async def ask(self, method: str, request: Any) -> Any:
        """
        Make a call that may be made again, to one member after the other, until one answers.

        Raises:
            CallFailed: An answer that the caller has to judge.
            NotDone: None answered in PATIENCE.
            StoreError, ValueError: etcd refused it.
        """
        patience = Patience()
        while True:
            try:
                return await self.once(method, request)
            except CallFailed as failed:
                if failed.failure not in (Failure.UNKNOWN, Failure.UNSENT):
                    raise
                if not await patience.pause():
                    raise NotDone(self.silence(failed)) from failed

    async def keep_alive(self, lease: int) -> int:
        """
        Ask one member to start a lease's time anew; returns its time, 0 if it has ended.

        Raises:
            CallFailed: It may have been done, unless its failure says otherwise.
        """
        member = self._members[self._current]
        metadata = _METADATA if self._address.user is None else await self._with_token()
        call = member.methods["keep_alive"](timeout=CALL_SECONDS, metadata=metadata)
        try:
            await call.write(wire.LeaseKeepAliveRequest(id=lease))
            answer = await call.read()
        except grpc.aio.AioRpcError as error:
            raise self._failed(member, error) from None
        except asyncio.InvalidStateError:
            answer = grpc.aio.EOF
        finally:
            call.cancel()
        if answer is grpc.aio.EOF:
            self._leave(member)
            raise CallFailed(Failure.UNKNOWN, f"{member.endpoint} ended the stream")
        return int(answer.ttl)

    async def watching(self, request: wire.WatchCreateRequest, consume: Consume) -> None:
        """
        Open a watch on one member and give ``consume`` each answer, until it returns true.

        ``consume(answer)`` may be slow: then etcd waits. Being left alone (the member became unreachable, or
        missed the time limit of any call) is a failure like every other.

        Raises:
            CallFailed: The stream ended.
        """
        member = self._members[self._current]
        metadata = _METADATA if self._address.user is None else await self._with_token()
        task = asyncio.ensure_future(self._watching(member, metadata, request, consume))
        member.streams.add(task)
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError:
            task.cancel()
            await asyncio.wait([task])
            raise
        finally:
            member.streams.discard(task)
        if task.cancelled():
            raise CallFailed(Failure.UNKNOWN, f"{member.endpoint} does not answer")
        task.result()

    async def close(self) -> None:
        """Let go of all members."""
        for member in self._members:
            for task in member.streams:
                task.cancel()
            await member.channel.close()

    def silence(self, failed: CallFailed) -> str:
        """The message when nobody answered."""
        return f"no member of the etcd at {self} answered within {PATIENCE:g} s: {failed.reason}"

    async def _watching(
        self,
        member: Member,
        metadata: grpc.aio.Metadata,
        request: wire.WatchCreateRequest,
        consume: Consume,
    ) -> None:
        call = member.methods["watch"](metadata=metadata)
        try:
            async with asyncio.timeout(CALL_SECONDS):
                await call.write(wire.WatchRequest(create=request))
                answer = await call.read()
            while answer is not grpc.aio.EOF:
                if answer.canceled and not answer.compact_revision:
                    self._token = None  # one reason may be that it is too old
                    raise CallFailed(Failure.UNKNOWN, f"{member.endpoint}: {answer.cancel_reason}")
                if await consume(answer):
                    return
                answer = await call.read()
        except grpc.aio.AioRpcError as error:
            raise self._failed(member, error) from None
        except (TimeoutError, asyncio.InvalidStateError):
            pass
        finally:
            call.cancel()
        self._leave(member)
        raise CallFailed(Failure.UNKNOWN, f"{member.endpoint} ended the stream")

    def _failed(self, member: Member, error: grpc.aio.AioRpcError) -> CallFailed:
        """What a failed call means; a member that gives no answer is left."""
        code, text = error.code(), error.details() or ""
        failure = judge(code, text)
        if failure is Failure.REFUSED:
            raise refusal(text, str(self)) from None
        if failure in (Failure.UNKNOWN, Failure.UNSENT):
            self._leave(member)
        return CallFailed(failure, f"{member.endpoint}: {text or code.name}")

    def _leave(self, member: Member) -> None:
        """Use the next member from now on, with all streams."""
        if self._members[self._current] is member:
            self._current = (self._current + 1) % len(self._members)
        current = asyncio.current_task()
        for task in member.streams:
            if task is not current:
                task.cancel()

    async def _with_token(self) -> grpc.aio.Metadata:
        if self._token is None:
            async with self._login:
                if self._token is None:
                    await self._log_in()
        return grpc.aio.Metadata(_HAS_LEADER, ("token", self._token or ""))

    async def _log_in(self) -> None:
        member = self._members[self._current]
        if self._address.password is None:
            raise Broken(
                f"the password for {self} is missing: "
                "give it in UNISONO_STORE_PASSWORD or with --store-password-file"
            )
        request = wire.AuthenticateRequest(name=self._address.user or "", password=self._address.password)
        try:
            answer = await member.methods["login"](request, timeout=CALL_SECONDS, metadata=_METADATA)
        except grpc.aio.AioRpcError as error:
            failed = self._failed(member, error)
            if failed.failure is Failure.UNKNOWN:  # not what was asked for: that has not been sent
                failed = CallFailed(Failure.UNSENT, failed.reason)
            raise failed from None
        self._token = answer.token


class Patience:
    """How long one operation goes on trying; pauses grow."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._end = self._loop.time() + PATIENCE
        self._pause = 0.01

    async def pause(self) -> bool:
        """Wait a little; false if the time is up."""
        left = self._end - self._loop.time()
        if left <= 0:
            return False
        await asyncio.sleep(min(left, self._pause * random.uniform(0.5, 1.0)))
        self._pause = min(self._pause * 2, _PAUSE_MAX)
        return True


def _credentials(address: EtcdAddress) -> grpc.ChannelCredentials | None:
    if not address.tls:
        return None
    ca, cert, key = (_read(path) for path in (address.ca, address.cert, address.key))
    return grpc.ssl_channel_credentials(ca, key, cert)


def _read(path: Path | None) -> bytes | None:
    if path is None:
        return None
    try:
        return path.read_bytes()
    except OSError as error:
        raise Broken(f"can't read {path}: {error.strerror}") from error
