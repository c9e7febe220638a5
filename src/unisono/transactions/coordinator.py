"""
The coordinator of a node: what is asked of it, and its life from term to term.

The store holds the truth: a transaction is there before anybody is called for it, and its decision before
anybody is told of it. In memory is only what a repeated call can bring back. Each transaction belongs to one
node, whose :mod:`.term` guards every write; when it is over, the others take over what it left
(:mod:`.takeover`). A node that is started again takes over from itself.

What may be taken on is :mod:`.admission`'s to say, what is forgotten :mod:`.retention`'s. One transaction
under way is :mod:`.running`'s; how it goes on is :mod:`.machine`'s to decide.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from unisono.store.base import Compacted, MaybeDone, NotDone, Store, StoreError
from unisono.transactions import admission, lookup, term
from unisono.transactions.errors import NotActive, Reused
from unisono.transactions.log import Deposed, Log, Taken
from unisono.transactions.machine import check_end
from unisono.transactions.participants import Participants
from unisono.transactions.records import Record, transaction_key
from unisono.transactions.retention import Retention
from unisono.transactions.running import Running, settle
from unisono.transactions.runtime import Caller, Counts, Runtime
from unisono.transactions.states import ABORT, FINAL, State, Status
from unisono.transactions.submission import BranchSpec, Submission
from unisono.transactions.takeover import Takeover
from unisono.transactions.targets import Directory
from unisono.transactions.views import stored_view

_RESOLVE_SECONDS = 5.0  # for which an operator's word waits for the end that it may bring

_log = logging.getLogger("unisono.transactions")


@dataclass(frozen=True)
class Begun:
    """
    What a begin has led to: the transaction, and whether it is a new one.

    ``running`` is ``None`` where it is over, or another node coordinates it.
    """

    created: bool
    running: Running | None
    record: Record


class Coordinator:
    """
    A node's part in the transactions of all applications; all methods belong to one event loop.

    To cancel one of them takes back nothing: what was asked for goes on, and can be asked for again.

    Args:
        caller: What calls participants; it is not closed here.
        directory: Which services an application has.
        stamp: Timestamps for calls, of the node's hybrid logical clock.
        tell: Told of transactions whose outcome is in doubt.
        chance: Spreads retries.
        now: Seconds since the epoch.
    """

    def __init__(
        self,
        store: Store,
        node: str,
        caller: Caller,
        directory: Directory,
        *,
        stamp: Callable[[], int],
        tell: Callable[[Record], None] = lambda _: None,
        chance: random.Random | None = None,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._node = node
        self._directory = directory
        self._now = now
        self._tell = tell
        self._chance = chance or random.Random()
        self._participants = Participants(self._chance)
        self._retention = Retention(node, now)
        self._running: dict[str, Running] = {}
        self._log: Log | None = None  # of the term; None: this node does not coordinate at the moment
        self._failures = 0  # of the store, since a term was served
        self.counts = Counts()
        self.ready = asyncio.Event()
        self._runtime = Runtime(
            caller=caller,
            directory=directory,
            participants=self._participants,
            chance=self._chance,
            stamp=stamp,
            now=now,
            ended=self._ended,
            doubtful=self._doubtful,
            counts=self.counts,
        )

    # Its life.

    async def run(self) -> None:
        """
        Coordinate until cancelled; then what is under way stays as the log has it.

        Raises:
            Broken: The store can't go on.
        """
        while True:
            try:
                await self._serve()
            except* Deposed:
                _log.warning("the term of this node as a coordinator was lost; beginning a new one")
            except* (NotDone, MaybeDone, Compacted) as errors:
                self._failures += 1
                pause = term.pause_before(self._failures, self._chance)
                _log.warning(
                    "the store did not answer as a coordinator needs it; trying again in %.2g s: %s",
                    pause,
                    errors.exceptions[0],
                )
                await asyncio.sleep(pause)

    async def _serve(self) -> None:
        """One term."""
        began = asyncio.get_running_loop().time()
        log = await term.begin(self._store, self._node)
        takeover = Takeover(self._store, self._node, log, self._retention, self._resume)
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(log.run(), name="unisono-transactions-log")
                tasks.create_task(term.keep(self._store, log.lease), name="unisono-transactions-lease")
                self._log = log
                revision = await takeover.recover()
                if takeover.taken_up:
                    took_ms = (asyncio.get_running_loop().time() - began) * 1000
                    _log.info(
                        "%d open transactions go on, found again in %.0f ms", takeover.taken_up, took_ms
                    )
                self.ready.set()
                self._failures = 0
                tasks.create_task(takeover.follow(revision), name="unisono-transactions-nodes")
                tasks.create_task(self._retention.sweep(log), name="unisono-transactions-retention")
        finally:
            self.ready.clear()
            self._log = None
            for running in list(self._running.values()):
                running.drop()
            self._running.clear()

    def _resume(self, record: Record) -> None:
        """It is ours, and was open."""
        self._carry(record, None).resume()

    def _carry(self, record: Record, begun: asyncio.Future[None] | None) -> Running:
        assert self._log is not None  # noqa: S101 - set before
        running = self._running[record.key] = Running(record, self._log, self._runtime, begun)
        return running

    # What is asked of it.

    async def begin(
        self,
        namespace: str,
        submission: Submission,
        *,
        trusted: bool = False,
        traceparent: str | None = None,
    ) -> Begun:
        """
        Take a transaction on; on return it is durable and under way.

        Raises:
            TransactionError: It was refused; nothing has happened.
            StoreError: As the store says; after MaybeDone ask again with the same gid.
            ValueError: The namespace is none.
        """
        key = transaction_key(namespace, submission.gid)
        digest = submission.digest()
        known = self._running.get(key)
        if known is not None:
            return await self._same(known, digest)
        admission.check_addresses(self._directory, namespace, submission, trusted=trusted)
        log = await self._in_term()
        known = self._running.get(key)
        if known is not None:
            return await self._same(known, digest)
        admission.check_room(len(self._running))
        self._retention.check(submission.gid)
        record = admission.new_record(
            namespace,
            submission,
            digest,
            owner=self._node,
            now=self._now(),
            trusted=trusted,
            traceparent=traceparent,
        )
        begun: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        running = self._carry(record, begun)

        def written(error: StoreError | None) -> None:
            if error is None:
                self.counts.begun += 1
            else:
                self._running.pop(key, None)
            settle(begun, error)
            if error is None and not running.gone:
                running.start()

        log.append(key, record.encode(), written, fresh=True, patient=False)
        try:
            await asyncio.shield(begun)
        except Taken:
            stored = await lookup.stored(self._store, key)
            admission.check_same(stored, digest)
            return Begun(False, self._running.get(key), stored)
        return Begun(True, running, record)

    async def enrol(
        self, namespace: str, gid: str, spec: BranchSpec, *, wait: float
    ) -> tuple[bool, dict[str, Any]]:
        """
        Add a branch, call it forward, and wait up to ``wait`` seconds for its definite answer.

        Returns:
            Whether it is new, and the branch as it stands.

        Raises:
            Decided: The transaction aborts: whatever the branch has done is undone.
            TransactionError: It was refused; nothing has happened.
            StoreError: As the store says; after MaybeDone ask again with the same branch.
        """
        running = await self._own(namespace, gid)
        known = running.machine.branches.get(spec.id)
        if known is None:
            admission.check_branch(self._directory, running, spec)
            enrolled: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            branch = running.enrol(spec, enrolled)
            await asyncio.shield(enrolled)
        elif known.spec.content() != spec.content():
            raise Reused("branch-reused", f"the branch {spec.id} has another content; take another id")
        else:
            branch = known
        machine = running.machine
        await running.until(
            lambda: branch.state not in (State.IDLE, State.FORWARD) or machine.status in ABORT, wait
        )
        if branch.state is not State.REFUSED:
            check_end(machine.status, machine.reason, commit=True)  # what is being undone has said no yes
        return known is None, running.branch_view(branch)

    async def decide(self, namespace: str, gid: str, *, commit: bool, wait: float) -> dict[str, Any]:
        """
        Ask to commit or to abort, and wait up to ``wait`` seconds until it is final.

        Raises:
            Decided: The other decision was made, or a commit ended in an abort.
            Unknown, Elsewhere: It is none of this node's.
            StoreError: As the store says, or MaybeDone: what was asked for may be carried out, ask again.
        """
        running = await self._find(transaction_key(namespace, gid))
        if isinstance(running, Record):
            check_end(running.status, running.reason, commit=commit)
            return stored_view(running)
        if commit:
            running.do(running.machine.commit())
        else:
            running.do(running.machine.abort("the initiator asked for it"))
        await running.until(lambda: running.machine.status in FINAL, wait)
        if running.gone:
            raise MaybeDone("this node's term as a coordinator ended meanwhile: ask again")
        check_end(running.machine.status, running.machine.reason, commit=commit)
        return running.view()

    async def wait(self, running: Running, seconds: float) -> dict[str, Any]:
        """
        A transaction once it is final, or as it stands after ``seconds``, whoever coordinates it by then.

        Raises:
            StoreError: As the store says.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + seconds
        await running.until(lambda: running.machine.status in FINAL, seconds)
        if not running.gone:
            return running.view()
        key = running.record.key
        record = await lookup.stored(self._store, key)
        return stored_view(await lookup.followed(self._store, key, record, deadline - loop.time()))

    async def get(self, namespace: str, gid: str, *, wait: float = 0.0) -> dict[str, Any]:
        """
        A transaction, once it is final or ``wait`` seconds are over.

        Raises:
            Unknown: There is none of this gid, or it has been forgotten.
            StoreError: As the store says.
        """
        key = transaction_key(namespace, gid)
        running = self._running.get(key)
        if running is not None:
            await running.durable()
            return await self.wait(running, wait)
        record = await lookup.stored(self._store, key)
        if record.status not in FINAL and wait > 0:
            record = await lookup.followed(self._store, key, record, wait)
        return stored_view(record)

    async def find(self, namespace: str | None, *, status: str, limit: int) -> list[dict[str, Any]]:
        """
        Transactions, the newest first; ``status``: one of theirs, ``open``, ``final``, ``heuristic``, or "".

        Without a ``namespace`` those of all.
        """
        return await lookup.find(self._store, self._running, namespace, status=status, limit=limit)

    async def retry(self, namespace: str, gid: str) -> int:
        """
        Call at once what pauses.

        Returns:
            How many calls that are.

        Raises:
            Unknown, Elsewhere: It is none of this node's; NotActive: it is over.
            StoreError: As the store says.
        """
        return (await self._own(namespace, gid)).retry()

    async def resolve(
        self, namespace: str, gid: str, *, outcome: str, branches: list[str], reason: str, operator: str
    ) -> dict[str, Any]:
        """
        Note that an operator has brought branches to the transaction's end by hand.

        ``outcome`` is the operator's word for it, which is kept; the decision stays what it is.

        Raises:
            NotInDoubt: They are not being finished or undone; nothing was noted.
            Unknown, Elsewhere, NotActive, StoreError: As :meth:`retry`; after MaybeDone look what is noted.
        """
        running = await self._own(namespace, gid)
        word = {
            "branches": branches,
            "outcome": outcome,
            "reason": reason,
            "operator": operator,
            "at": round(self._now(), 3),
        }
        kept: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        running.resolve(word, kept)
        await asyncio.shield(kept)
        await running.until(lambda: running.machine.status in FINAL, _RESOLVE_SECONDS)
        return running.view()

    def figures(self) -> dict[str, float]:
        """What there is at the moment, by name; the log's are of the present term."""
        log = self._log
        return {
            "open": len(self._running),
            "remembered": len(self._retention),
            "silent_participants": self._participants.silent(),
            "log_batches": log.batches if log else 0,
            "log_writes": log.writes if log else 0,
        }

    # The inside.

    async def _in_term(self) -> Log:
        """
        The log, once this node coordinates.

        Raises:
            NotDone: It has not within the time after which others would have taken over from it.
        """
        if self._log is None or not self.ready.is_set():
            with suppress(TimeoutError):
                async with asyncio.timeout(term.TERM_TTL):
                    await self.ready.wait()
        if self._log is None:
            raise NotDone("this node does not coordinate at the moment: try again")
        return self._log

    async def _find(self, key: str) -> Running | Record:
        """
        One that this node coordinates, or one that is over.

        Raises:
            Unknown, Elsewhere: It is neither.
            StoreError: As the store says; NotDone also while it can't be said which are this node's.
        """
        running = self._running.get(key)
        if running is None:
            stored = await lookup.stored(self._store, key)
            if stored.status not in FINAL and stored.owner == self._node:
                await self._in_term()  # with which it is found again
            running = self._running.get(key)
            if running is None:
                return await lookup.over(self._store, key)
        await running.durable()
        return running

    async def _own(self, namespace: str, gid: str) -> Running:
        """A transaction that this node coordinates and that is open; raises as :meth:`retry`."""
        running = await self._find(transaction_key(namespace, gid))
        if isinstance(running, Record):
            raise NotActive(f"the transaction is {running.status}")
        return running

    async def _same(self, known: Running, digest: str) -> Begun:
        admission.check_same(known.record, digest)
        await known.durable()
        return Begun(False, known, known.record)

    def _ended(self, record: Record) -> None:
        self._running.pop(record.key, None)
        if record.status is Status.COMMITTED:
            self.counts.committed += 1
        else:
            self.counts.aborted += 1
        log = self._log
        if log is None:
            return  # the next term finds it among those that are over
        if record.heuristic is None:
            self._retention.ended(record.ended or record.began, record.key, log)
        else:
            self._retention.forget(log)

    def _doubtful(self, record: Record) -> None:
        self.counts.heuristic += 1
        _log.error("transaction %s is in doubt: %s", record.gid, record.heuristic and record.heuristic.reason)
        self._tell(record)
