"""
The store on etcd: the promise of :mod:`unisono.store.base`, for many processes on many machines.

Here are the operations. How members are reached is :mod:`.connection`'s, how writes are told done from not
done :mod:`.writing`'s, how watches are fed :mod:`.following`'s. All methods belong to the event loop on which
the store was opened, and to its process: after a fork the child must open its own.
"""

from __future__ import annotations

import asyncio
import logging
import math
import secrets
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

from unisono.store import limits
from unisono.store.addresses import EtcdAddress
from unisono.store.base import (
    Broken,
    Compacted,
    Compare,
    Delete,
    Entry,
    LeaseEnded,
    MaybeDone,
    NotDone,
    Outcome,
    Put,
    Snapshot,
    StoreError,
)
from unisono.store.etcd import wire_pb2 as wire
from unisono.store.etcd.connection import CallFailed, Connection, Patience
from unisono.store.etcd.failures import Failure
from unisono.store.etcd.following import Follower
from unisono.store.etcd.keys import Keys
from unisono.store.etcd.leases import Deadlines
from unisono.store.etcd.order import Order
from unisono.store.etcd.writing import Writer
from unisono.store.watching import Hub, Scope, Watch

R = TypeVar("R")

_PAGE = 1000  # entries of one answer to a scan
_WAITING_BYTES_MAX = 256 * 1024 * 1024
_NEWS_SECONDS = 2.0  # in which watches get what is on its way to them

_log = logging.getLogger("unisono.store")


def boot_time() -> float:
    """Seconds since boot; goes on while the machine sleeps, as etcd's clock does elsewhere."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class EtcdStore:
    """
    A store under one prefix of an etcd; made by :meth:`open`.

    Others may use the same etcd, so revisions skip; and compaction is for whoever looks after it.
    """

    def __init__(self, address: EtcdAddress, clock: Callable[[], float]) -> None:
        self._address = address
        self._clock = clock
        self._connection = Connection(address)
        self._keys = Keys(address.prefix)
        self._order = Order()
        self._writer = Writer(self._connection, self._keys, self._order)
        self._hub = Hub(0)
        self._follower = Follower(self._connection, self._keys, self._hub)
        self._deadlines = Deadlines()
        self._waiting_bytes = 0
        self._written = 0  # the revision of the last change made here
        self._working = 0  # operations that were accepted and have not ended
        self._idle = asyncio.Event()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._closing: asyncio.Task[None] | None = None

    @classmethod
    async def open(cls, address: EtcdAddress, *, clock: Callable[[], float] = boot_time) -> EtcdStore:
        """
        Open the store in an etcd.

        Raises:
            Broken: A certificate can't be read, the user or password is wrong, or may not use the prefix.
            NotDone: No member answers.
        """
        store = cls(address, clock)
        try:
            await store._writer.sweep()
        except BaseException as error:
            await store._connection.close()
            if isinstance(error, CallFailed):
                raise Broken(f"the etcd at {address} can't be used: {error.reason}") from error
            raise
        return store

    async def get(self, key: str) -> Entry | None:
        """The entry of ``key`` now; etcd asks a majority of its members, so nothing newer is missed."""
        self._check_open()
        limits.check_key(key)
        with self._work():
            answer = await self._range(wire.RangeRequest(key=self._keys.data(key)))
        return self._keys.entry(answer.kvs[0]) if answer.kvs else None

    async def scan(self, prefix: str, *, revision: int | None = None) -> Snapshot:
        """All entries under ``prefix``, in pages that are all of one revision."""
        self._check_open()
        limits.check_prefix(prefix)
        with self._work():
            while True:
                if revision is not None:
                    limits.check_revision(revision, await self._newest())
                try:
                    return await self._scan(prefix, revision)
                except CallFailed as failed:
                    if failed.failure is not Failure.COMPACTED:
                        raise NotDone(failed.reason) from failed
                if revision is not None:
                    self._hub.compacted = max(self._hub.compacted, await self._follower.oldest())
                    raise Compacted(self._hub.compacted)
                # Compacted while it was read, which takes another's compaction of the present: begin anew.

    async def transact(
        self,
        *,
        compares: Sequence[Compare] = (),
        success: Sequence[Put | Delete] = (),
        failure: Sequence[Put | Delete] = (),
    ) -> Outcome:
        """See :meth:`unisono.store.base.Store.transact`."""
        self._check_open()
        size = limits.check_transaction(compares, success, failure)
        if self._waiting_bytes + size > _WAITING_BYTES_MAX:
            raise NotDone(f"{self._waiting_bytes} bytes wait to be written already: try again later")
        # Cancelling the caller does not stop it: half-sent writes would be in doubt for nothing.
        return await self._accept(self._transact(compares, success, failure, size))

    def watch(self, prefix: str, *, after: int, marks: bool = False, without: tuple[str, ...] = ()) -> Watch:
        """See :meth:`unisono.store.base.Store.watch`; the iterator also has ``aclose()``."""
        self._check_open()
        limits.check_prefix(prefix)
        if after < 0:
            raise ValueError(f"a watch after revision {after}; the least is 0")
        if marks:
            self._follower.look()
        return Watch(self._hub, Scope(prefix, without), after, marks, self._follower.read_on)

    async def grant(self, ttl: float) -> int:
        """
        A new lease; durable on return.

        etcd counts whole seconds, and at least one and a half times its election timeout: keys may stay a
        little longer than ``ttl``, but here the lease has ended after ``ttl``.
        """
        self._check_open()
        limits.check_ttl(ttl)
        return await self._accept(self._grant(ttl))

    async def keep_alive(self, lease: int) -> None:
        """See :meth:`unisono.store.base.Store.keep_alive`; tried until the lease may have ended."""
        self._check_open()
        with self._work():
            await self._keep_alive(lease)

    async def revoke(self, lease: int) -> None:
        """End a lease; its keys are gone on return."""
        self._check_open()
        await self._accept(self._revoke(lease))

    async def compact(self, revision: int) -> None:
        """See :meth:`unisono.store.base.Store.compact`; compacts all of etcd, what is not ours too."""
        self._check_open()
        with self._work():
            limits.check_revision(revision, await self._newest())
            await self._feed_watches(revision)  # what they have seen they will not miss
            try:
                await self._ask("compact", wire.CompactionRequest(revision=revision))
            except CallFailed as failed:
                if failed.failure is not Failure.COMPACTED:
                    raise NotDone(failed.reason) from failed
            self._hub.compacted = max(self._hub.compacted, revision)

    async def close(self) -> None:
        """Finish what has been accepted, then let go of everything; a second call waits for the first."""
        if self._closing is None:
            self._closing = asyncio.create_task(self._close(), name="unisono-store-close")
        await asyncio.shield(self._closing)

    async def _close(self) -> None:
        while self._working or self._tasks:
            self._idle.clear()
            if self._working:
                await self._idle.wait()
            else:
                await asyncio.wait(self._tasks)
        await self._feed_watches(self._written)
        self._hub.close()
        await self._follower.end()
        await self._connection.close()

    async def _feed_watches(self, revision: int) -> None:
        """Let watches have what there is up to ``revision``, if that is soon."""
        with suppress(TimeoutError):
            async with asyncio.timeout(_NEWS_SECONDS):
                await self._follower.reach(revision)

    async def _transact(
        self,
        compares: Sequence[Compare],
        success: Sequence[Put | Delete],
        failure: Sequence[Put | Delete],
        size: int,
    ) -> Outcome:
        self._waiting_bytes += size
        try:
            for operation in (*success, *failure):
                if not isinstance(operation, Put) or operation.lease is None:
                    continue
                if self._deadlines.ended(operation.lease, self._clock()):
                    await self._revoke(operation.lease)  # etcd may think it lives, and would take this put
            outcome = await self._writer.transact(compares, success, failure)
        finally:
            self._waiting_bytes -= size
        self._written = max(self._written, outcome.revision)
        self._follower.learn(outcome.revision)
        return outcome

    async def _scan(self, prefix: str, revision: int | None) -> Snapshot:
        """
        Raises:
            CallFailed: The revision has been compacted.
        """
        if revision == 0:
            if await self._follower.oldest() > 0:
                raise CallFailed(Failure.COMPACTED, "revision 0 has been compacted")
            return Snapshot(revision=0, entries=())
        first, end = self._keys.under(prefix)
        entries: list[Entry] = []
        limit = _PAGE
        more = True
        while more:
            request = wire.RangeRequest(key=first, range_end=end, limit=limit, revision=revision or 0)
            try:
                answer = await self._ask("range", request)
            except CallFailed as failed:
                if failed.failure is not Failure.ANSWER_TOO_LARGE or limit == 1:
                    raise
                limit = max(1, limit // 8)
                continue
            if revision is None:
                revision = answer.header.revision
            entries += map(self._keys.entry, answer.kvs)
            more = answer.more
            if more:
                first = answer.kvs[-1].key + b"\0"
        if revision is None:
            raise AssertionError("a scan asks at least once")
        self._follower.learn(revision)
        return Snapshot(revision=revision, entries=tuple(entries))

    async def _newest(self) -> int:
        return int((await self._range(wire.RangeRequest(key=self._keys.mark))).header.revision)

    async def _range(self, request: wire.RangeRequest) -> wire.RangeResponse:
        try:
            answer: wire.RangeResponse = await self._ask("range", request)
        except CallFailed as failed:
            raise NotDone(failed.reason) from failed
        self._follower.learn(answer.header.revision)
        return answer

    async def _ask(self, method: str, request: Any) -> Any:
        return await self._connection.ask(method, request)

    async def _grant(self, ttl: float) -> int:
        # The id is chosen here, so that asking again grants no second lease.
        id = secrets.randbelow((1 << 62) - 1) + 1
        seconds = math.ceil(ttl)
        while True:
            asked = self._clock()
            try:
                await self._ask("grant", wire.LeaseGrantRequest(id=id, ttl=seconds))
            except CallFailed as failed:
                if failed.failure is not Failure.LEASE_EXISTS:
                    raise NotDone(failed.reason) from failed
                # Granted by a request whose answer was lost: its time began at an unknown moment.
                asked = self._clock()
                await self._keep_alive(id)
            self._deadlines.add(id, ttl, asked)
            return id

    async def _keep_alive(self, lease: int) -> None:
        patience = Patience()
        while True:
            asked = self._clock()
            if self._deadlines.ended(lease, asked):
                self._spawn(self._bury(lease))
                raise LeaseEnded(lease)
            left = self._deadlines.left(lease, asked)
            try:
                async with asyncio.timeout(left if left < math.inf else None):
                    seconds = await self._connection.keep_alive(lease)
            except TimeoutError:
                continue  # its time is up
            except CallFailed as failed:
                if not await patience.pause():
                    raise MaybeDone(self._connection.silence(failed)) from failed
                continue
            if seconds <= 0:
                self._deadlines.end(lease, self._clock())
                raise LeaseEnded(lease)
            self._deadlines.renew(lease, asked)
            return

    async def _revoke(self, lease: int) -> None:
        turn = self._order.enter({lease})
        try:
            await turn.come()
            self._deadlines.end(lease, self._clock())
            try:
                answer = await self._ask("revoke", wire.LeaseRevokeRequest(id=lease))
            except NotDone as error:
                raise MaybeDone(str(error)) from error
            except CallFailed as failed:
                if failed.failure is not Failure.LEASE_GONE:
                    raise MaybeDone(failed.reason) from failed
            else:
                self._follower.learn(answer.header.revision)
        finally:
            self._order.leave(turn)

    async def _bury(self, lease: int) -> None:
        """Take the keys of a lease along that has ended here; if that fails, etcd does it a little later."""
        try:
            await self._revoke(lease)
        except StoreError as error:
            _log.debug("lease %d was left to end by itself: %s", lease, error)

    async def _accept(self, work: Coroutine[Any, Any, R]) -> R:
        """Do something to its end, also when the caller is cancelled and when the store is closed."""
        return await asyncio.shield(self._spawn(work))

    def _spawn(self, work: Coroutine[Any, Any, R]) -> asyncio.Task[R]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # whoever was cancelled does not ask any more

    @contextmanager
    def _work(self) -> Iterator[None]:
        self._working += 1
        try:
            yield
        finally:
            self._working -= 1
            if not self._working:
                self._idle.set()

    def _check_open(self) -> None:
        if self._closing is not None:
            raise Broken(f"{self._address} was closed: open it again")
