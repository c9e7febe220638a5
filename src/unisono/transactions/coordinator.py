"""
The coordinator of a node: takes transactions on, runs them to their end, finds them again after a crash.

The store holds the truth: a transaction is there before anybody is called for it, and its decision before
anybody is told of it. In memory is only what a repeated call can bring back. Each transaction belongs to one
node, whose *term* (a key under a lease; the revision at which it was written) guards every write; when a
node's key is gone, the others take over what it left. A node that is started again takes over from itself.

One transaction under way is :mod:`.running`'s; how it goes on is :mod:`.machine`'s to decide.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing, suppress
from dataclasses import dataclass, replace
from typing import Any

from unisono.store.base import (
    Compacted,
    Compare,
    Entry,
    Field,
    LeaseEnded,
    MaybeDone,
    NotDone,
    Put,
    Store,
    StoreError,
)
from unisono.transactions import records
from unisono.transactions.errors import (
    Decided,
    Elsewhere,
    Expired,
    Invalid,
    NotActive,
    Reused,
    TooMany,
    Unknown,
)
from unisono.transactions.log import BATCH_BYTES, Deposed, Log, Taken
from unisono.transactions.machine import ABORT, COMMIT, FINAL, State, Status
from unisono.transactions.participants import Participant
from unisono.transactions.records import Record, transaction_key
from unisono.transactions.running import Caller, Counts, House, Running, shown, stored_view
from unisono.transactions.submission import (
    MAX_BRANCHES,
    BranchSpec,
    Submission,
    check_graph,
    check_size,
    made_at,
)
from unisono.transactions.targets import Address, Directory, locate

MAX_OPEN = 20_000  # transactions of one node
MAX_FINAL = 50_000  # final ones that are remembered
RETENTION = 3600.0  # seconds for which they are
TERM_TTL = 5.0  # seconds after which a node that has fallen silent is taken over from
_CLAIMS = 50  # transactions that are taken over with one write
_STRETCH_SECONDS = 0.05  # for which taking up what was open keeps others waiting
_SWEEP_SECONDS = 60.0
_FLOOR_AHEAD, _FLOOR_BEHIND = 10.0, 5.0  # seconds: see _forget

_log = logging.getLogger("unisono.transactions")


@dataclass(frozen=True)
class Begun:
    """What a begin has led to: the transaction, and whether it is a new one."""

    created: bool
    running: Running | None
    record: Record


class Coordinator:
    """
    A node's part in the transactions of all applications; all methods belong to one event loop.

    Args:
        caller: What calls participants; it is not closed here.
        directory: Which services an application has.
        stamp: Timestamps for calls, of the node's hybrid logical clock.
        tell: Told of transactions whose outcome is in doubt.
        chance: Spreads retries.
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
        self.counts = Counts()
        self.ready = asyncio.Event()
        self._chance = chance or random.Random()
        self._participants: dict[tuple[str, int, bool, bool], Participant] = {}
        self._running: dict[str, Running] = {}
        self._final: deque[tuple[float, str]] = deque()  # when they ended, their keys; the oldest first
        self._taken_up = 0  # in this term
        self._floors: dict[str, float] = {}  # by node: gids made before may have been forgotten
        self._term: Log | None = None
        self._house = House(
            caller=caller,
            directory=directory,
            participant=self._participant,
            chance=self._chance,
            stamp=stamp,
            ended=self._ended,
            doubtful=self._doubtful,
            counts=self.counts,
            now=now,
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
                _log.warning("the store did not answer as a coordinator needs it: %s", errors.exceptions[0])
                await asyncio.sleep(0.2)

    async def _serve(self) -> None:
        """One term."""
        began = asyncio.get_running_loop().time()
        lease = await self._store.grant(TERM_TTL)
        own = f"{records.NODES}{self._node}"
        outcome = await self._store.transact(success=[Put(key=own, value=b"{}", lease=lease)])
        log = Log(self._store, Compare(key=own, field=Field.MODIFIED, target=outcome.revision), lease)
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(log.run(), name="unisono-transactions-log")
                tasks.create_task(self._keep(lease), name="unisono-transactions-lease")
                self._term = log
                revision = await self._recover(began)
                self.ready.set()
                tasks.create_task(self._follow(revision), name="unisono-transactions-nodes")
                tasks.create_task(self._forget_old(), name="unisono-transactions-retention")
        finally:
            self.ready.clear()
            self._term = None
            for running in list(self._running.values()):
                running.drop()
                if running.begun is not None and not running.begun.done():
                    running.begun.set_exception(MaybeDone("the coordinator stopped while it was written"))
                    running.begun.exception()  # nobody may be waiting
            self._running.clear()

    async def _keep(self, lease: int) -> None:
        while True:
            await asyncio.sleep(TERM_TTL / 3)
            try:
                await self._store.keep_alive(lease)
            except LeaseEnded as error:
                raise Deposed(str(error)) from error
            except (NotDone, MaybeDone):
                continue  # if it ends meanwhile, the next write or renewal tells

    async def _recover(self, began: float) -> int:
        """
        Find everything again: our own open ones go on, those of nodes that are gone become ours.

        ``began``: when the loop's clock said that this term was asked for.
        """
        self._final.clear()
        self._taken_up = 0
        # In this order: what a node that is alive now leaves later, the watch of nodes tells of.
        nodes = await self._store.scan(records.NODES)
        stored = await self._store.scan(records.ROOT)
        for floor in (await self._store.scan(records.FLOOR)).entries:
            self._floors[floor.key] = float(floor.value)
        alive = {entry.key.removeprefix(records.NODES) for entry in nodes.entries}
        finals: list[tuple[float, str]] = []
        left: list[tuple[Entry, Record]] = []
        loop = asyncio.get_running_loop()
        rested = loop.time()
        for entry in stored.entries:
            if loop.time() - rested > _STRETCH_SECONDS:
                # Others of this node have work, too; but what goes on already waits for those still to come.
                await asyncio.sleep(0)
                rested = loop.time()
            if not records.is_open(entry.value):
                record = records.decode(entry.key, entry.value)
                ours = record.owner == self._node or record.owner not in alive
                if ours and record.heuristic is None:  # those in doubt are kept for good
                    finals.append((record.ended or record.began, entry.key))
                continue
            record = records.decode(entry.key, entry.value)
            if record.owner == self._node:
                self._resume(record)
            elif record.owner not in alive:
                left.append((entry, record))
        self._final.extend(sorted(finals))
        if left:
            await self._take_over(left)
        if self._taken_up:
            took = asyncio.get_running_loop().time() - began
            _log.info("%d open transactions go on, found again in %.0f ms", self._taken_up, took * 1000)
        return nodes.revision

    async def _follow(self, revision: int) -> None:
        """When another node's term ends, take over what it left."""
        changes: AsyncIterator[Any] = self._store.watch("coordinator", after=revision)
        async with aclosing(changes):  # type: ignore[type-var]
            async for batch in changes:
                for event in batch.events:
                    if event.key.startswith(records.FLOOR):
                        if event.entry is not None:
                            self._floors[event.key] = float(event.entry.value)
                    elif event.entry is None:
                        node = event.key.removeprefix(records.NODES)
                        if node == self._node:
                            raise Deposed("this node's key is gone")
                        await self._inherit(node)

    async def _inherit(self, node: str) -> None:
        if await self._store.get(f"{records.NODES}{node}") is not None:
            return  # it is back
        stored = await self._store.scan(records.ROOT)
        left = []
        for entry in stored.entries:
            if records.is_open(entry.value):
                record = records.decode(entry.key, entry.value)
                if record.owner == node:
                    left.append((entry, record))
        if left:
            _log.warning("taking over %d transactions from the node %s", len(left), node)
            await self._take_over(left)

    async def _take_over(self, left: list[tuple[Entry, Record]]) -> None:
        """Make transactions ours, as far as nobody else is quicker."""
        for part in _parts(left):
            if not await self._claim(part):
                for one in part:
                    await self._claim([one])

    async def _claim(self, part: list[tuple[Entry, Record]]) -> bool:
        """
        Take over some that nobody has changed since, while their owners are gone.

        An owner that is back goes on without writing, so its absence is part of the same step. And so is our
        term: participants refuse an epoch below one that they have seen, so ours must lie above every one
        that an owner before us can have had.
        """
        assert self._term is not None  # noqa: S101 - set before
        owners = {record.owner for _, record in part}
        compares = [Compare(key=f"{records.NODES}{o}", field=Field.CREATED, target=0) for o in sorted(owners)]
        puts = []
        for entry, record in part:
            compares.append(Compare(key=entry.key, field=Field.MODIFIED, target=entry.modified))
            puts.append(Put(key=entry.key, value=replace(record, owner=self._node).encode()))
        if await self._term.take(compares, puts) is None:
            return False
        for _, record in part:
            record.owner = self._node
            self._resume(record)
        return True

    def _resume(self, record: Record) -> None:
        self._carry(record, None).resume()
        self._taken_up += 1

    def _carry(self, record: Record, begun: asyncio.Future[None] | None) -> Running:
        assert self._term is not None  # noqa: S101 - set before
        epoch = self._term.term.target
        assert isinstance(epoch, int)  # noqa: S101 - a revision
        running = self._running[record.key] = Running(
            record, self._term, self._house, epoch=epoch, begun=begun
        )
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
        self._check_urls(namespace, submission, trusted=trusted)
        log = await self._in_term()
        known = self._running.get(key)
        if known is not None:
            return await self._same(known, digest)
        self._check_room(submission.gid)
        record = self._record(namespace, submission, digest, trusted, traceparent)
        begun: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        running = self._carry(record, begun)

        def written(error: StoreError | None) -> None:
            if error is None:
                self.counts.begun += 1
                if not begun.done():
                    begun.set_result(None)
                if not running.gone:
                    running.start()
                return
            self._running.pop(key, None)
            if not begun.done():
                begun.set_exception(error)
                begun.exception()  # nobody may be waiting

        log.append(key, record.encode(), written, fresh=True, patient=False)
        try:
            await asyncio.shield(begun)
        except Taken:
            return await self._stored_same(namespace, submission.gid, key, digest)
        return Begun(True, running, record)

    async def enrol(
        self, namespace: str, gid: str, spec: BranchSpec, *, wait: float
    ) -> tuple[bool, dict[str, Any]]:
        """
        Add a branch, call it forward, and wait up to ``wait`` seconds for its definite answer.

        Returns:
            Whether it is new, and the branch as it stands.

        Raises:
            TransactionError: It was refused, nothing has happened; StoreError: as the store says.
        """
        running = await self._own(namespace, gid)
        known = running.machine.branches.get(spec.id)
        if known is None:
            running.machine.check_active()
            if running.machine.question is not None:
                raise Invalid("", "a msg enrols no branches: they come with its begin")
            if len(running.machine.branches) >= MAX_BRANCHES:
                raise Invalid("", f"the transaction has {MAX_BRANCHES} branches, the most that are allowed")
            check_graph([spec], running.machine.branches)
            check_size([*running.record.specs, spec])
            locate(self._directory, namespace, spec.url, trusted=running.record.trusted)
            branch = running.add(spec)
            branch.called = True  # not before it is durable
            enrolled = asyncio.get_running_loop().create_future()

            def written(error: StoreError | None) -> None:
                branch.called = False
                if not enrolled.done():
                    if error is None:
                        enrolled.set_result(None)
                    else:
                        enrolled.set_exception(error)
                        enrolled.exception()
                if error is None and not running.gone:
                    running.enrolled()

            running.append(written)
            await asyncio.shield(enrolled)
        elif known.spec.content() != spec.content():
            raise Reused("branch-reused", f"the branch {spec.id} has another content; take another id")
        else:
            branch = known
        await self._until(running, wait, lambda: branch.state not in (State.IDLE, State.FORWARD))
        return known is None, running.branch_view(branch)

    async def decide(self, namespace: str, gid: str, *, commit: bool, wait: float) -> dict[str, Any]:
        """
        Ask to commit or to abort, and wait up to ``wait`` seconds until it is final.

        Raises:
            Decided: The other decision was made, or a commit ended in an abort.
            TransactionError, StoreError: As elsewhere.
        """
        key = transaction_key(namespace, gid)
        running = self._running.get(key)
        if running is None:
            record = await self._stored(key)
            if record.status not in FINAL:
                raise Elsewhere(record.owner)
            _check_end(record.status, record.reason, commit=commit)
            return stored_view(record)
        await running.durable()
        if commit:
            running.do(running.machine.commit())
        else:
            running.do(running.machine.abort("the initiator asked for it"))
        await self._until(running, wait, lambda: running.machine.status in FINAL)
        _check_end(running.machine.status, running.machine.reason, commit=commit)
        return running.view()

    async def wait(self, running: Running, seconds: float) -> dict[str, Any]:
        """A transaction once it is final, or as it stands after ``seconds``."""
        await self._until(running, seconds, lambda: running.machine.status in FINAL)
        return running.view()

    async def get(self, namespace: str, gid: str, *, wait: float = 0.0) -> dict[str, Any]:
        """
        A transaction, once it is final or ``wait`` seconds are over.

        Raises:
            Unknown: There is none of this gid, or it has been forgotten.
        """
        key = transaction_key(namespace, gid)
        running = self._running.get(key)
        if running is not None:
            await running.durable()
            return await self.wait(running, wait)
        record = await self._stored(key)
        if record.status not in FINAL and wait > 0:
            record = await self._follow_one(key, record, wait)
        return stored_view(record)

    async def find(self, namespace: str | None, *, status: str, limit: int) -> list[dict[str, Any]]:
        """
        Transactions, the newest first; ``status``: one of theirs, ``open``, ``final``, ``heuristic``, or "".

        Without a ``namespace`` those of all.
        """
        prefix = records.ROOT if namespace is None else transaction_key(namespace, "")
        found: list[dict[str, Any]] = []
        for entry in (await self._store.scan(prefix)).entries:
            opened = records.is_open(entry.value)
            if (status == "open" and not opened) or (status == "final" and opened):
                continue
            running = self._running.get(entry.key)
            if status == "heuristic" and running is None and b'"heuristic"' not in entry.value:
                continue
            record = running.record if running else records.decode(entry.key, entry.value)
            stands = running.machine.status if running else record.status
            doubt = running.machine.heuristic if running else record.heuristic
            if status in ("", "open", "final", stands) or (status == "heuristic" and doubt):
                epoch = running.epoch if running else None
                found.append({**shown(record, stands, epoch, []), "branches": len(record.specs)})
        found.sort(key=lambda view: view["began_at"], reverse=True)
        return found[:limit]

    async def retry(self, namespace: str, gid: str) -> int:
        """Call at once what pauses; how many calls that are. Raises as :meth:`get`, and Elsewhere."""
        return (await self._own(namespace, gid)).retry()

    async def resolve(
        self, namespace: str, gid: str, *, outcome: str, branches: list[str], reason: str, operator: str
    ) -> dict[str, Any]:
        """
        Note that an operator has brought branches to the transaction's end by hand.

        Raises:
            NotInDoubt: They do not wait for an operator, or ``outcome`` is not this transaction's.
        """
        running = await self._own(namespace, gid)
        word = {
            "branches": branches,
            "outcome": outcome,
            "reason": reason,
            "operator": operator,
            "at": round(self._now(), 3),
        }
        instructions = running.machine.resolve(word)
        if not instructions:
            running.save()
        running.do(instructions)
        await self._until(running, 5.0, lambda: running.machine.status in FINAL)
        return running.view()

    def figures(self) -> dict[str, float]:
        """What there is at the moment, by name."""
        log = self._term
        return {
            "open": len(self._running),
            "remembered": len(self._final),
            "silent_participants": sum(p.broken for p in self._participants.values()),
            "log_batches": log.batches if log else 0,
            "log_writes": log.writes if log else 0,
        }

    # The inside.

    def _check_urls(self, namespace: str, submission: Submission, *, trusted: bool) -> None:
        """Raise UrlNotAllowed if one of the addresses is."""
        for branch in submission.branches:
            locate(self._directory, namespace, branch.url, trusted=trusted)
        if submission.query_prepared is not None:
            locate(self._directory, namespace, submission.query_prepared, trusted=trusted)

    def _check_room(self, gid: str) -> None:
        """Raise TooMany or Expired."""
        if len(self._running) >= MAX_OPEN:
            raise TooMany(f"{MAX_OPEN} transactions are open on this node, the most that it takes: try later")
        made = made_at(gid)
        if made is not None and made < max(self._floors.values(), default=0.0):
            raise Expired(f"the gid {gid} is older than what is still remembered: take a new one")

    def _record(
        self, namespace: str, submission: Submission, digest: str, trusted: bool, traceparent: str | None
    ) -> Record:
        now = self._now()
        # Branches that are all known are called at once; a message waits for its initiator's word.
        waits = not submission.branches or submission.query_prepared is not None
        return Record(
            namespace=namespace,
            gid=submission.gid,
            mode=submission.mode,
            owner=self._node,
            digest=digest,
            began=now,
            deadline=now + submission.timeout_ms / 1000,
            status=Status.ACTIVE if waits else Status.PREPARING,
            trusted=trusted,
            question=submission.query_prepared,
            traceparent=traceparent,
            specs=list(submission.branches),
        )

    async def _in_term(self) -> Log:
        if self._term is None or not self.ready.is_set():
            with suppress(TimeoutError):
                async with asyncio.timeout(TERM_TTL):
                    await self.ready.wait()
        if self._term is None:
            raise NotDone("this node does not coordinate at the moment: try again")
        return self._term

    async def _own(self, namespace: str, gid: str) -> Running:
        """A transaction that this node coordinates and that is open."""
        key = transaction_key(namespace, gid)
        running = self._running.get(key)
        if running is None:
            record = await self._stored(key)
            if record.status not in FINAL:
                raise Elsewhere(record.owner)
            raise _over(record)
        await running.durable()
        return running

    async def _stored(self, key: str) -> Record:
        entry = await self._store.get(key)
        if entry is None:
            gid = key.rpartition("/")[2]
            raise Unknown(f"there is no transaction {gid}, or it ended so long ago that it is forgotten")
        return records.decode(key, entry.value)

    async def _same(self, known: Running, digest: str) -> Begun:
        if known.record.digest != digest:
            raise _reused(known.record)
        await known.durable()
        return Begun(False, known, known.record)

    async def _stored_same(self, namespace: str, gid: str, key: str, digest: str) -> Begun:
        record = await self._stored(key)
        if record.digest != digest:
            raise _reused(record)
        return Begun(False, self._running.get(key), record)

    async def _until(self, running: Running, seconds: float, is_so: Callable[[], bool]) -> None:
        """Wait until it is so, the transaction is final or not ours any more, or the time is over."""
        if is_so() or seconds <= 0:
            return
        loop = asyncio.get_running_loop()
        deadline = loop.time() + seconds
        while not is_so() and running.machine.status not in FINAL and not running.gone:
            moved = loop.create_future()
            running.moved.append(moved)
            timer = loop.call_at(deadline, _pass, moved)
            try:
                await moved
            finally:
                timer.cancel()
            if loop.time() >= deadline:
                return

    async def _follow_one(self, key: str, record: Record, seconds: float) -> Record:
        """Another node's transaction, once it is final or the time is over."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                stored = await self._store.scan(key)
                changes: AsyncIterator[Any] = self._store.watch(key, after=stored.revision)
                async with aclosing(changes):  # type: ignore[type-var]
                    while record.status not in FINAL:
                        entry = await self._store.get(key)
                        if entry is None:
                            break
                        record = records.decode(key, entry.value)
                        if record.status not in FINAL:
                            await anext(changes)
        return record

    def _participant(self, address: Address) -> Participant:
        key = address.participant
        found = self._participants.get(key)
        if found is None:
            if len(self._participants) >= 1024:
                self._participants = {k: p for k, p in self._participants.items() if not p.idle}
            loop = asyncio.get_running_loop()
            found = self._participants[key] = Participant(loop.call_later, self._chance)
        return found

    def _ended(self, running: Running) -> None:
        record = running.record
        self._running.pop(record.key, None)
        if running.machine.status is Status.COMMITTED:
            self.counts.committed += 1
        else:
            self.counts.aborted += 1
        if record.heuristic is None:
            self._final.append((record.ended or record.began, record.key))
        self._forget(2)

    def _doubtful(self, running: Running) -> None:
        self.counts.heuristic += 1
        _log.error(
            "transaction %s is in doubt: %s",
            running.record.gid,
            running.machine.heuristic and running.machine.heuristic.reason,
        )
        self._tell(running.record)

    def _forget(self, most: int) -> bool:
        """
        Remove final transactions that are too old or too many; whether some may be left.

        First it is made durable up to when gids may have been forgotten, a while ahead, so that this is
        seldom written, but never up to now: a gid that has just been made is not refused.
        """
        term = self._term
        now = self._now()
        while term is not None and self._final and most > 0:
            ended, key = self._final[0]
            if len(self._final) <= MAX_FINAL and ended > now - RETENTION:
                return False
            self._final.popleft()
            made = made_at(key.rpartition("/")[2])
            floor = f"{records.FLOOR}/{self._node}"
            if made is not None and made >= self._floors.get(floor, 0.0):
                bound = max(made + 0.001, min(made + _FLOOR_AHEAD, now - _FLOOR_BEHIND))
                self._floors[floor] = bound
                term.append(floor, repr(bound).encode(), _ignore)
            term.append(key, None, _ignore)
            most -= 1
        return bool(most == 0 and self._final)

    async def _forget_old(self) -> None:
        """A net for nodes on which nothing ends any more: what ends is what removes otherwise."""
        pause = _SWEEP_SECONDS
        while True:
            await asyncio.sleep(pause)
            pause = 0.1 if self._forget(500) else _SWEEP_SECONDS


def _parts(left: list[tuple[Entry, Record]]) -> Iterator[list[tuple[Entry, Record]]]:
    """As few parts as may be, each no larger than one write of the log."""
    part: list[tuple[Entry, Record]] = []
    size = 0
    for one in left:
        size += len(one[0].value)
        if part and (len(part) == _CLAIMS or size > BATCH_BYTES):
            yield part
            part, size = [], len(one[0].value)
        part.append(one)
    if part:
        yield part


def _check_end(status: Status, reason: str, *, commit: bool) -> None:
    if commit and status in ABORT:
        raise Decided(Status.ABORTED, f"the transaction is {status}{reason and ': ' + reason}")
    if not commit and status in COMMIT:
        raise Decided(Status.COMMITTED, f"the transaction is {status}: it can't be aborted any more")


def _over(record: Record) -> NotActive:
    return NotActive(f"the transaction is {record.status}")


def _reused(record: Record) -> Reused:
    return Reused(
        "gid-reused", f"the gid {record.gid} belongs to a transaction with another content; take a new one"
    )


def _pass(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def _ignore(_: StoreError | None) -> None:
    """What was to be removed will be found again at the next start."""
