"""
The controller: watch, decide, write under the fence; and again.

It wakes when a record changes or a deadline comes, never by a tick. It decides only on a snapshot that
holds its own last write, else it would do the same thing twice. All that one decision asks for is one
transaction, or several in order where the store's limit demands it; each is conditional on the leader's
token and on the services it was decided for, so that a command given meanwhile is not overwritten.

Deciding is in :mod:`unisono.control.decide`; electing in :mod:`unisono.control.leader`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import Callable, Mapping, Sequence

from unisono.control.actions import Action, put_happening
from unisono.control.decide import decide, next_deadline
from unisono.control.happenings import happening
from unisono.control.leader import LEASE_TTL, Deposed, Fence, LeaderElection
from unisono.control.records import ELSEWHERE, LEADER_KEY
from unisono.control.snapshot import Measured, Snapshot
from unisono.control.writing import parts, seen_in, unique
from unisono.store.base import Batch, MaybeDone, NotDone, Store

_log = logging.getLogger(__name__)

_PASSING = (NotDone, MaybeDone)

_RETRY_PAUSE = 0.1
"""Seconds before reading everything anew after the store failed for a moment."""


class Controller:
    """
    What keeps services as they are wanted, from one node, whenever that node leads.

    ``in_flight`` is asked at each decision for the requests in work by instance id; what it does not
    name counts as idle. ``measured`` is asked for what gateways have counted. ``clock`` gives seconds
    since the epoch, ``chance`` the ids of new instances.
    """

    def __init__(
        self,
        store: Store,
        node_id: str,
        in_flight: Callable[[], Mapping[str, int]],
        measured: Callable[[], Measured] = dict,
        *,
        clock: Callable[[], float] = time.time,
        chance: random.Random | None = None,
        lease_ttl: float = LEASE_TTL,
    ) -> None:
        self._store = store
        self._node_id = node_id
        self._in_flight = in_flight
        self._measured = measured
        self._clock = clock
        self._chance = chance or random.Random()
        self._election = LeaderElection(store, node_id, ttl=lease_ttl, clock=clock)

    async def run(self) -> None:
        """
        Lead whenever elected, until cancelled; then give the lead up.

        Raises:
            Broken: The store can't go on.
            ValueError: The store holds a record that can't be read; the message names its key.
        """
        while True:
            try:
                fence = await self._election.acquire()
            except _PASSING as error:
                _log.warning("the store failed for a moment, standing for election again: %s", error)
                await asyncio.sleep(_RETRY_PAUSE)
                continue
            try:
                await self._lead(fence)
            except Deposed as error:
                _log.warning("the controller of node %s stops deciding: %s", self._node_id, error)
            finally:
                await self._election.resign(fence)

    async def _lead(self, fence: Fence) -> None:
        with contextlib.suppress(*_PASSING):  # not worth a second try
            await self._announce(fence)
        while True:
            following = _Following(
                store=self._store,
                election=self._election,
                fence=fence,
                clock=self._clock,
                in_flight=self._in_flight,
                measured=self._measured,
                chance=self._chance,
            )
            try:
                async with asyncio.TaskGroup() as tasks:
                    tasks.create_task(self._election.hold(fence), name="leader-lease")
                    tasks.create_task(following.listen(), name="controller-watch")
                    tasks.create_task(following.decide_on_changes(), name="controller")
            except BaseExceptionGroup as group:
                _judge(group)
            await asyncio.sleep(_RETRY_PAUSE)

    async def _announce(self, fence: Fence) -> None:
        told = happening("leader-elected", at=self._clock(), message=f"node {self._node_id}")
        await self._store.transact(compares=fence.compares(), success=(put_happening(told, unique()),))


def _judge(group: BaseExceptionGroup[BaseException]) -> None:
    """Pass over a failure of the store that passes; else raise what ended the lead, alone."""
    _, lasting = group.split(_PASSING)
    if lasting is None:
        _log.warning("the store failed for a moment, reading everything anew: %s", group.exceptions)
        return
    _, worse = lasting.split(Deposed)
    raise _first(worse or lasting) from group


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    first = group.exceptions[0]
    return _first(first) if isinstance(first, BaseExceptionGroup) else first


class _Following:
    """One reading of the store, and all that follows from it until something fails."""

    def __init__(
        self,
        *,
        store: Store,
        election: LeaderElection,
        fence: Fence,
        clock: Callable[[], float],
        in_flight: Callable[[], Mapping[str, int]],
        measured: Callable[[], Measured],
        chance: random.Random,
    ) -> None:
        self._store = store
        self._election = election
        self._fence = fence
        self._clock = clock
        self._in_flight = in_flight
        self._measured = measured
        self._chance = chance
        self._snapshot: asyncio.Future[Snapshot] = asyncio.get_running_loop().create_future()
        self._arrived: list[Batch] = []
        self._marked = 0  # the store's revision up to which everything has arrived
        self._awaited = 0  # the one that the next decision must have seen
        self._wake = asyncio.Event()

    async def listen(self) -> None:
        """Read everything, then gather what changes; gathered changes are decided on together."""
        stored = await self._store.scan("")
        # The lead may have been lost while the store was away: the watch would not show that.
        if not any(e.key == LEADER_KEY and self._fence.admits(e) for e in stored.entries):
            raise Deposed("another controller leads, or the lease has ended")
        self._snapshot.set_result(Snapshot.of(stored))
        async for batch in self._store.watch("", after=stored.revision, marks=True, without=ELSEWHERE):
            for event in batch.events:
                if event.key == LEADER_KEY and not self._fence.admits(event.entry):
                    raise Deposed("another controller leads, or the lease has ended")
            self._take(batch)
        raise NotDone("the watch ended: the store was closed")

    async def decide_on_changes(self) -> None:
        """Decide at each change and at each deadline."""
        snapshot = await self._snapshot
        while True:
            self._wake.clear()
            arrived, self._arrived = self._arrived, []
            snapshot = snapshot.after(arrived).at(self._clock(), self._in_flight(), self._measured())
            timeout = None
            if max(snapshot.revision, self._marked) >= self._awaited:
                actions = decide(snapshot, self._chance)
                if actions:
                    self._awaited = await self._write(snapshot, actions)
                    if self._marked >= self._awaited:
                        continue  # it has come by already, and will not wake anyone
                else:
                    deadline = next_deadline(snapshot)
                    timeout = None if deadline is None else max(0.0, deadline - self._clock())
            await self._sleep(timeout)

    def _take(self, batch: Batch) -> None:
        """Records that changed are decided on; how far others have written, only who waits for that hears."""
        if batch.events:
            self._arrived.append(batch)
            self._wake.set()
        elif self._marked < self._awaited <= batch.revision:
            self._wake.set()
        self._marked = batch.revision

    async def _write(self, snapshot: Snapshot, actions: Sequence[Action]) -> int:
        """
        Write what was decided; returns the store's revision after it.

        Raises:
            Deposed: Another controller leads; nothing, or only a beginning, was written.
        """
        revision = snapshot.revision
        seen = seen_in(snapshot)
        for part in parts(actions):
            outcome = await self._store.transact(
                compares=part.compares(self._fence, seen), success=part.writes
            )
            revision = outcome.revision
            if not outcome.succeeded:
                await self._election.check(self._fence)
                break  # a command came in between: decide again once it has been seen
            seen.update(dict.fromkeys(part.changes, revision))
        return revision

    async def _sleep(self, seconds: float | None) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._wake.wait()
