"""
Who decides: one controller at a time, and what it writes after it lost the lead is refused.

The key ``leader`` lives under a lease. The store's revision at which it was written is the *fencing
token*: it rises with every change of leader, because revisions do. Every write of a controller carries
the compare of its :class:`Fence`; once another one leads, the compare no longer holds and nothing is
written, however late the write arrives and whatever the writer believes.

A node takes the lead over from itself at once: two processes never share a node's state folder, so
that a leader of the same name can only be the process before this one.

Source: M. Kleppmann, "How to do distributed locking" (2016), on fencing tokens.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass

from unisono.control.records import LEADER_KEY, Leader, decode, encode
from unisono.store.base import Compare, Entry, Field, LeaseEnded, MaybeDone, NotDone, Put, Store, StoreError

LEASE_TTL = 10.0
"""Seconds after which a leader that has fallen silent is replaced."""


class Deposed(Exception):
    """This controller no longer leads."""


@dataclass(frozen=True, kw_only=True)
class Fence:
    """The right to write, as long as ``token`` is the leader key's revision."""

    token: int
    lease: int

    def compares(self) -> tuple[Compare, ...]:
        """What each write of this leader has to carry."""
        return (Compare(key=LEADER_KEY, field=Field.MODIFIED, target=self.token),)

    def admits(self, entry: Entry | None) -> bool:
        """Whether the leader key, as it is now, is still this leader's."""
        return entry is not None and entry.modified == self.token


class LeaderElection:
    """One node's part in choosing the leader."""

    def __init__(
        self, store: Store, node_id: str, *, ttl: float = LEASE_TTL, clock: Callable[[], float] = time.time
    ) -> None:
        self._store = store
        self._node_id = node_id
        self._ttl = ttl
        self._clock = clock

    async def acquire(self) -> Fence:
        """
        Wait until this node leads.

        Raises:
            StoreError: The store failed.
        """
        while True:
            stored = await self._store.scan(LEADER_KEY)
            entry = next((e for e in stored.entries if e.key == LEADER_KEY), None)
            if entry is not None and decode(Leader, entry.value).node != self._node_id:
                await self._wait_for_change(stored.revision)
                continue
            fence = await self._claim(entry)
            if fence is not None:
                return fence

    async def hold(self, fence: Fence) -> None:
        """
        Keep the lead: renew its lease, three times within its time, until that fails.

        Raises:
            Deposed: The lease has ended, or may have.
        """
        renewed_at = asyncio.get_running_loop().time()
        while True:
            await asyncio.sleep(self._ttl / 3)
            try:
                await self._store.keep_alive(fence.lease)
            except LeaseEnded as error:
                raise Deposed("the lease has ended") from error
            except (NotDone, MaybeDone) as error:
                if asyncio.get_running_loop().time() >= renewed_at + self._ttl:
                    raise Deposed(f"the lease was not renewed for {self._ttl:g} s") from error
            else:
                renewed_at = asyncio.get_running_loop().time()

    async def check(self, fence: Fence) -> None:
        """
        Ask the store whether this leader still leads.

        Raises:
            Deposed: It does not.
        """
        if not fence.admits(await self._store.get(LEADER_KEY)):
            raise Deposed("another controller leads")

    async def resign(self, fence: Fence) -> None:
        """Give the lead up, so that the next one need not wait for the lease to end."""
        with contextlib.suppress(StoreError):  # the lease ends by itself if this fails
            await self._store.revoke(fence.lease)

    async def _claim(self, entry: Entry | None) -> Fence | None:
        lease = await self._store.grant(self._ttl)
        leader = Leader(node=self._node_id, since=self._clock())
        seen = entry.modified if entry is not None else 0
        outcome = await self._store.transact(
            compares=(Compare(key=LEADER_KEY, field=Field.MODIFIED, target=seen),),
            success=(Put(key=LEADER_KEY, value=encode(leader), lease=lease),),
        )
        if outcome.succeeded:
            return Fence(token=outcome.revision, lease=lease)
        await self._store.revoke(lease)
        return None

    async def _wait_for_change(self, revision: int) -> None:
        changes = self._store.watch(LEADER_KEY, after=revision)
        async with contextlib.aclosing(changes):  # type: ignore[type-var]
            async for _ in changes:
                return
