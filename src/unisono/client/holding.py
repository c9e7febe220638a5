"""
What one of many holds at a time: locks, permits of semaphores, leadership, parts of a quota; and barriers.

    async with client.lock("job/7", ttl=10) as held:
        await write(..., token=held.token)

A lock keeps two *honest* holders apart. A holder that was stopped may believe in a lock that has long gone
to another; only the thing the lock protects can refuse it. So give ``token`` along with every write, and
refuse there whatever is lower than one seen before; for ``client.kv``, give ``fence``.
The twins without asyncio are in ``client.sync``.
"""

from __future__ import annotations

import asyncio
import base64
import json
import secrets
import threading
import time
from collections.abc import AsyncGenerator, AsyncIterator, Generator, Iterator
from contextlib import aclosing, asynccontextmanager, closing, contextmanager
from dataclasses import dataclass
from typing import Any, Generic, TypeVar
from urllib.parse import quote

from unisono.client.connecting import Connection
from unisono.client.errors import NotAcquired, NotRunning
from unisono.client.insisting import insist
from unisono.client.leases import KeptLease, KeptLeaseSync
from unisono.client.questions import Ask, ServerSent, Steps

TTL, WAIT = 10.0, 60.0  # seconds, where the caller does not say
LEADERS_PATIENCE = 60.0  # seconds for which leaders are followed without a node
_RETRY_SECONDS = 0.2
_WAIT_MAX = 600.0  # seconds that one request waits

L = TypeVar("L", KeptLease, KeptLeaseSync)


@dataclass(frozen=True)
class Leader:
    """Who leads: what it says, and its fencing token."""

    value: bytes
    token: int


@dataclass(frozen=True)
class Quota:
    """How much there is, and how much of it is granted."""

    size: int
    granted: int

    @property
    def available(self) -> int:
        """What is left."""
        return self.size - self.granted


class _Holding(Generic[L]):
    """
    Something that is held until the end of its block, by whatever keeps its lease.

    Made when it was acquired; raises Lost when the lease has not outlasted the wait for it.
    """

    def __init__(
        self, connection: Connection, lease: L, kind: str, name: str, told: dict[str, object]
    ) -> None:
        lease.check()
        self.token = int(str(told["token"]))
        """The fencing token: higher than that of every holder before, in any order of failures."""
        self.fence = str(told.get("fence", ""))
        """For a write to ``client.kv`` that may happen only while this is held."""
        self._connection = connection
        self._lease: L = lease
        self._path = f"/v1/{kind}/{quote(name)}"

    @property
    def remaining(self) -> float:
        """Seconds for which this is surely held, without any renewal."""
        return float(self._lease.remaining)

    def check(self) -> None:
        """Pass only while this is surely held, else raise Lost; asks the clock alone, never waits."""
        self._lease.check()

    def _said(self, **more: object) -> dict[str, object]:
        return {"lease": self._lease.id, "token": self.token, **more}


class Held(_Holding[KeptLease]):
    """Something that is held until the end of its ``async with`` block."""

    @property
    def lost(self) -> asyncio.Event:
        """Set as soon as this is lost, or could be a moment from now; the block is cancelled then."""
        return self._lease.lost


class HeldSync(_Holding[KeptLeaseSync]):
    """Something that is held until the end of its ``with`` block."""

    @property
    def lost(self) -> threading.Event:
        """Set as soon as this is lost, or could be a moment from now."""
        return self._lease.lost


class Leading(Held):
    """Leadership, until the end of its block."""

    async def proclaim(self, value: bytes) -> None:
        """Say something else from now on; Fenced when another leads."""
        body = self._said(value=base64.b64encode(value).decode())
        ask = Ask(method="POST", path=f"{self._path}:proclaim", body=body)
        await self._connection.carry_out(_done(ask))


# -- what is asked -------------------------------------------------------------------------------------


def acquire(
    kind: str, verb: str, name: str, lease: str, *, wait: float, **more: object
) -> Steps[dict[str, object]]:
    """
    Stand in line with ``lease`` until it is one's turn, for ``wait`` seconds.

    Raises:
        NotAcquired: The wait is over.
    """
    deadline = time.monotonic() + wait
    while True:
        turn = min(_WAIT_MAX, max(0.0, deadline - time.monotonic()))
        body = {**more, "lease": lease, "wait_ms": round(turn * 1000)}
        path = f"/v1/{kind}/{quote(name)}:{verb}"
        try:
            told = yield from insist(Ask(method="POST", path=path, body=body, wait=turn))
        except NotAcquired:
            if turn < _WAIT_MAX:
                raise
        else:
            found: dict[str, object] = told.content
            return found


def leader(name: str) -> Steps[Leader | None]:
    """Who leads now."""
    told = yield from insist(Ask(method="GET", path=f"/v1/elections/{quote(name)}:leader"))
    return _leader(told.content)


class _Following:
    """One election that is followed, over as many connections as it takes. Pure."""

    def __init__(self, name: str) -> None:
        self.ask = Ask(
            method="GET",
            path=f"/v1/elections/{quote(name)}:leader",
            headers=(("Accept", "text/event-stream"),),
        )
        self._told: tuple[Leader | None, ...] = ()

    def take(self, event: ServerSent) -> tuple[Leader | None, ...]:
        """What an event tells; nothing where a node that was asked anew repeats it."""
        found = (_leader(json.loads(event.data)),)
        if found == self._told:
            return ()
        self._told = found
        return found


def _leader(said: dict[str, Any]) -> Leader | None:
    if said["token"] is None:
        return None
    return Leader(value=base64.b64decode(said["value"]), token=said["token"])


def resize(name: str, size: int) -> Steps[Quota]:
    """Make a quota, or change its size."""
    told = yield from insist(Ask(method="PUT", path=f"/v1/quotas/{quote(name)}", body={"size": size}))
    return Quota(size=told.content["size"], granted=told.content["granted"])


def look(name: str) -> Steps[Quota | None]:
    """A quota as it is."""
    told = yield from insist(Ask(method="GET", path=f"/v1/quotas/{quote(name)}"), but=(404,))
    return None if told.status == 404 else Quota(size=told.content["size"], granted=told.content["granted"])


def take(name: str, amount: int, lease: str) -> Steps[dict[str, object]]:
    """Take an amount, or nothing."""
    body = {"amount": amount, "lease": lease, "request_id": secrets.token_hex(16)}
    told = yield from insist(Ask(method="POST", path=f"/v1/quotas/{quote(name)}:acquire", body=body))
    found: dict[str, object] = told.content
    return found


def meet(name: str, parties: int, *, wait: float, ttl: float) -> Steps[int]:
    """
    Wait for others; asked once, as a repeat would be another party.

    Raises:
        NotAcquired: Too few came in time.
        MaybeDone: The connection broke; whether one was counted is not known.
    """
    body = {"parties": parties, "wait_ms": round(wait * 1000), "ttl_ms": round(ttl * 1000)}
    ask = Ask(method="POST", path=f"/v1/barriers/{quote(name)}:wait", body=body, wait=wait)
    told = yield from insist(ask, patience=0)
    return int(told.content["index"])


def _done(ask: Ask) -> Steps[None]:
    yield from insist(ask)


# -- with asyncio --------------------------------------------------------------------------------------


class Holdings:
    """
    What can be held, with asyncio. ``ttl`` is how long, in seconds, others wait after a holder was cut off;
    ``wait`` how long to wait for others, 0: not at all.

    Entering a block raises NotAcquired when the wait is over, Lost when the lease did not outlast it, and
    what :func:`unisono.client.insisting.insist` does. Cancelled, nothing is held.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    @asynccontextmanager
    async def lock(self, name: str, *, ttl: float = TTL, wait: float = WAIT) -> AsyncIterator[Held]:
        """Hold the lock ``name``: one holder at a time, in the order in which they came. Not reentrant."""
        async with KeptLease(self._connection, ttl) as lease:
            told = await self._connection.carry_out(acquire("locks", "acquire", name, lease.id, wait=wait))
            yield Held(self._connection, lease, "locks", name, told)

    @asynccontextmanager
    async def semaphore(
        self, name: str, *, permits: int, ttl: float = TTL, wait: float = WAIT
    ) -> AsyncIterator[Held]:
        """Hold one of ``permits`` permits; all who use a semaphore at a time name the same number."""
        async with KeptLease(self._connection, ttl) as lease:
            steps = acquire("semaphores", "acquire", name, lease.id, wait=wait, permits=permits)
            yield Held(self._connection, lease, "semaphores", name, await self._connection.carry_out(steps))

    @asynccontextmanager
    async def election(
        self, name: str, value: bytes = b"", *, ttl: float = TTL, wait: float = WAIT
    ) -> AsyncIterator[Leading]:
        """Lead, once all who offered themselves earlier have resigned or died."""
        said = base64.b64encode(value).decode()
        async with KeptLease(self._connection, ttl) as lease:
            steps = acquire("elections", "campaign", name, lease.id, wait=wait, value=said)
            yield Leading(self._connection, lease, "elections", name, await self._connection.carry_out(steps))

    async def leader(self, name: str) -> Leader | None:
        """Who leads now; ``None`` if nobody does."""
        return await self._connection.carry_out(leader(name))

    async def leaders(self, name: str) -> AsyncGenerator[Leader | None, None]:
        """
        Who leads now, then each time another leads, says something else, or nobody leads (``None``).

        The latest each time: those in between may be left out. Goes on while the node is started again.
        Endless; close it (``contextlib.aclosing``) when you have seen enough.

        Raises:
            Refused: The name is malformed, or may not be read.
            NotRunning: No node answered for ``LEADERS_PATIENCE`` seconds.
        """
        following = _Following(name)
        alive = time.monotonic()
        while True:
            try:
                async with aclosing(self._connection.asking().events(following.ask)) as events:
                    async for event in events:
                        alive = time.monotonic()
                        for found in following.take(event):
                            yield found
                            alive = time.monotonic()
            except NotRunning:
                if time.monotonic() - alive > LEADERS_PATIENCE:
                    raise
            await asyncio.sleep(_RETRY_SECONDS)

    async def barrier(self, name: str, parties: int, *, wait: float = 60.0, ttl: float = TTL) -> int:
        """Wait until ``parties`` wait here, this one among them; one's own index among them, from 0."""
        return await self._connection.carry_out(meet(name, parties, wait=wait, ttl=ttl))

    @asynccontextmanager
    async def quota(self, name: str, amount: int, *, ttl: float = TTL) -> AsyncIterator[Held]:
        """
        Hold ``amount`` of a quota for the block; never waits for others.

        Raises:
            Insufficient: Less is left.
        """
        async with KeptLease(self._connection, ttl) as lease:
            told = await self._connection.carry_out(take(name, amount, lease.id))
            yield Held(self._connection, lease, "quotas", name, told)

    async def resize_quota(self, name: str, size: int) -> Quota:
        """Make a quota, or change its size; Insufficient when more than that is granted."""
        return await self._connection.carry_out(resize(name, size))

    async def look_at_quota(self, name: str) -> Quota | None:
        """A quota as it is; ``None`` if there is none."""
        return await self._connection.carry_out(look(name))


# -- without -------------------------------------------------------------------------------------------


class HoldingsSync:
    """As :class:`Holdings`, for threads."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    @contextmanager
    def lock(self, name: str, *, ttl: float = TTL, wait: float = WAIT) -> Iterator[HeldSync]:
        """As :meth:`Holdings.lock`."""
        with KeptLeaseSync(self._connection, ttl) as lease:
            steps = acquire("locks", "acquire", name, lease.id, wait=wait)
            yield HeldSync(self._connection, lease, "locks", name, self._connection.carry_out_sync(steps))

    @contextmanager
    def semaphore(
        self, name: str, *, permits: int, ttl: float = TTL, wait: float = WAIT
    ) -> Iterator[HeldSync]:
        """As :meth:`Holdings.semaphore`."""
        with KeptLeaseSync(self._connection, ttl) as lease:
            steps = acquire("semaphores", "acquire", name, lease.id, wait=wait, permits=permits)
            yield HeldSync(
                self._connection, lease, "semaphores", name, self._connection.carry_out_sync(steps)
            )

    @contextmanager
    def election(
        self, name: str, value: bytes = b"", *, ttl: float = TTL, wait: float = WAIT
    ) -> Iterator[HeldSync]:
        """As :meth:`Holdings.election`."""
        said = base64.b64encode(value).decode()
        with KeptLeaseSync(self._connection, ttl) as lease:
            steps = acquire("elections", "campaign", name, lease.id, wait=wait, value=said)
            yield HeldSync(self._connection, lease, "elections", name, self._connection.carry_out_sync(steps))

    @contextmanager
    def quota(self, name: str, amount: int, *, ttl: float = TTL) -> Iterator[HeldSync]:
        """As :meth:`Holdings.quota`."""
        with KeptLeaseSync(self._connection, ttl) as lease:
            told = self._connection.carry_out_sync(take(name, amount, lease.id))
            yield HeldSync(self._connection, lease, "quotas", name, told)

    def leader(self, name: str) -> Leader | None:
        """As :meth:`Holdings.leader`."""
        return self._connection.carry_out_sync(leader(name))

    def leaders(self, name: str) -> Generator[Leader | None, None, None]:
        """As :meth:`Holdings.leaders`."""
        following = _Following(name)
        alive = time.monotonic()
        while True:
            try:
                with closing(self._connection.asking_sync().events(following.ask)) as events:
                    for event in events:
                        alive = time.monotonic()
                        for found in following.take(event):
                            yield found
                            alive = time.monotonic()
            except NotRunning:
                if time.monotonic() - alive > LEADERS_PATIENCE:
                    raise
            time.sleep(_RETRY_SECONDS)

    def barrier(self, name: str, parties: int, *, wait: float = 60.0, ttl: float = TTL) -> int:
        """As :meth:`Holdings.barrier`."""
        return self._connection.carry_out_sync(meet(name, parties, wait=wait, ttl=ttl))

    def resize_quota(self, name: str, size: int) -> Quota:
        """As :meth:`Holdings.resize_quota`."""
        return self._connection.carry_out_sync(resize(name, size))

    def look_at_quota(self, name: str) -> Quota | None:
        """As :meth:`Holdings.look_at_quota`."""
        return self._connection.carry_out_sync(look(name))
