"""
An open transaction as its coordinator carries it: the machine, the record, and what is under way for it.

Here the machine's instructions meet time, participants and the log. Who owns which transaction, and what
is asked of it from outside, is :mod:`.coordinator`'s.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from pydantic_core import to_json

from unisono.store.base import StoreError
from unisono.transactions.answers import meaning
from unisono.transactions.calls import Reply
from unisono.transactions.errors import UrlNotAllowed
from unisono.transactions.log import Log
from unisono.transactions.machine import (
    FINAL,
    OPEN,
    Answer,
    Branch,
    Call,
    Instruction,
    Kind,
    Status,
    Transaction,
    Write,
)
from unisono.transactions.modes import QUESTION
from unisono.transactions.participants import Participant, Timer, pause_before
from unisono.transactions.records import MAX_TIMELINE, Record
from unisono.transactions.submission import BranchSpec
from unisono.transactions.targets import Address, Directory, locate

CALL_SECONDS = 5.0
"""How long one call may take; before the decision at most until the deadline."""


class Caller(Protocol):
    """What calls participants: :class:`unisono.transactions.calls.HttpCaller`."""

    def call(self, address: Address, request: bytes, timeout: float, done: Callable[[Reply], None]) -> None:
        """See there."""


@dataclass(slots=True)
class Counts:
    """What a coordinator has done since it was started."""

    begun: int = 0
    committed: int = 0
    aborted: int = 0
    heuristic: int = 0
    answers: dict[str, int] = field(default_factory=lambda: dict.fromkeys(Answer, 0))


@dataclass(slots=True, kw_only=True)
class House:
    """What all transactions of a coordinator share."""

    caller: Caller
    directory: Directory
    participant: Callable[[Address], Participant]
    chance: random.Random
    stamp: Callable[[], int]  # of the hybrid logical clock
    ended: Callable[[Running], None]
    doubtful: Callable[[Running], None]
    counts: Counts
    now: Callable[[], float] = time.time


class Running:
    """One transaction under way; made for a begin, or from a record that was read back."""

    __slots__ = (
        "_bodies",
        "_deadline",
        "_house",
        "_jobs",
        "_log",
        "_loop",
        "_pauses",
        "_retries",
        "_told",
        "begun",
        "epoch",
        "gone",
        "machine",
        "moved",
        "record",
    )

    def __init__(
        self, record: Record, log: Log, house: House, *, epoch: int, begun: asyncio.Future[None] | None
    ) -> None:
        self.record = record
        self.epoch = epoch
        self.machine = Transaction(
            record.mode,
            record.specs,
            status=record.status,
            question=record.question,
            heuristic=record.heuristic,
            reason=record.reason,
        )
        self.begun = begun  # done when the begin is durable, or has failed; None: it was read back
        self.moved: list[asyncio.Future[None]] = []  # of those who wait for a change
        self.gone = False  # not ours any more: nothing is called or written
        self._log = log
        self._house = house
        self._loop = asyncio.get_running_loop()
        self._bodies: dict[str, bytes] = {}
        self._pauses: dict[str, tuple[str, float]] = {}  # by branch: before this operation is called again
        self._jobs: dict[str, _Job] = {}  # calls that wait or are under way, by branch
        self._retries: dict[str, Timer] = {}  # pauses under way, by branch
        self._told: Kind | None = record.heuristic.kind if record.heuristic else None
        self._deadline: Timer | None = None

    # From outside.

    async def durable(self) -> None:
        """Wait until its begin is; raises what the store raised if it never will be."""
        if self.begun is not None:
            await asyncio.shield(self.begun)

    def start(self) -> None:
        """It is durable: go."""
        self._set_deadline()
        self.do(self.machine.start())

    def resume(self) -> None:
        """It was read back: go on."""
        self._set_deadline()
        self.do(self.machine.resume())

    def enrolled(self) -> None:
        """One more branch is durable: call it."""
        self.do(self.machine.start())

    def retry(self) -> int:
        """Make at once the calls that pause; how many."""
        paused = list(self._retries)
        for id in paused:
            self._retries.pop(id).cancel()
            self._pauses.pop(id, None)
            branch = self._branch(id)
            branch.called = False
        self.do(self.machine.start())
        return len(paused)

    def drop(self) -> None:
        """Another coordinates it now, or the node ends: leave it as it is."""
        self.gone = True
        self._clear()
        self._wake()

    def do(self, instructions: list[Instruction]) -> None:
        """Carry out what the machine wants."""
        for instruction in instructions:
            if isinstance(instruction, Call):
                self._plan(instruction.branch, instruction.op)
            else:
                self._write(instruction)

    def save(self) -> None:
        """Have the record written again, as it stands."""
        machine, record = self.machine, self.record
        record.status = machine.status
        record.heuristic = machine.heuristic
        self._log.append(record.key, record.encode(), _ignore)

    def append(self, done: Callable[[StoreError | None], None]) -> None:
        """Have the record written as it stands, and be told."""
        self._log.append(self.record.key, self.record.encode(), done)

    # Writing.

    def _write(self, write: Write) -> None:
        record, status = self.record, write.status
        now = self._house.now()
        record.status = status
        record.reason = self.machine.reason
        record.heuristic = self.machine.heuristic
        if record.decided is None:
            record.decided = now
        if status in FINAL:
            record.ended = now
            record.states = [branch.state for branch in self.machine.branches.values()]
        self._log.append(record.key, record.encode(), self._written)

    def _written(self, error: StoreError | None) -> None:
        if self.gone:
            return
        if error is not None:
            self.drop()  # the term is over, or the store is broken: whoever coordinates next reads the log
            return
        status = self.record.status
        instructions = self.machine.written(status)
        if status not in OPEN:
            if self._deadline is not None:
                self._deadline.cancel()
                self._deadline = None
            self._withdraw()
        if status in FINAL:
            self._clear()
            self._house.ended(self)
        self.do(instructions)
        self._tell_doubt()
        self._wake()

    def _withdraw(self) -> None:
        """Let go of calls that wait or pause for something that has been decided otherwise."""
        for id, job in list(self._jobs.items()):
            branch = self._branch(id)
            if not job.made and not self.machine.wants(branch, job.op):
                job.dead = True
                del self._jobs[id]
                self.do(self.machine.withdrawn(branch))
        for id, timer in list(self._retries.items()):
            timer.cancel()
            del self._retries[id]
            self._pauses.pop(id, None)
            self.do(self.machine.withdrawn(self._branch(id)))

    def _clear(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
        for timer in self._retries.values():
            timer.cancel()
        self._retries.clear()
        for job in self._jobs.values():
            job.dead = True
        self._jobs.clear()

    def _wake(self) -> None:
        waiting, self.moved = self.moved, []
        for future in waiting:
            if not future.done():
                future.set_result(None)

    def _set_deadline(self) -> None:
        if self.machine.status in OPEN:
            left = self.record.deadline - self._house.now()
            self._deadline = self._loop.call_later(max(0.0, left), self._expire)

    def _expire(self) -> None:
        self._deadline = None
        left = self.record.deadline - self._house.now()
        if left > 0.001:  # the wall clock was set back: the deadline is one of it
            self._set_deadline()
            return
        self.do(self.machine.expire())

    # Calling.

    def _plan(self, branch: Branch, op: str) -> None:
        """Call at once, or after the pause that the last answer asks for."""
        paused = self._pauses.pop(branch.id, None)
        if paused is None or paused[0] != op:
            self._ask(branch, op)
        else:
            self._retries[branch.id] = self._loop.call_later(paused[1], self._rested, branch, op)

    def _rested(self, branch: Branch, op: str) -> None:
        del self._retries[branch.id]
        self._ask(branch, op)

    def _ask(self, branch: Branch, op: str) -> None:
        record = self.record
        try:
            address = locate(self._house.directory, record.namespace, branch.spec.url, trusted=record.trusted)
        except UrlNotAllowed as error:
            # It was one when the transaction began: its service has been removed, and may come back.
            self._loop.call_soon(self._failed, branch, op, str(error))
            return
        job = self._jobs[branch.id] = _Job(self, branch, op, address)
        self._house.participant(address).ask(job)

    def _failed(self, branch: Branch, op: str, error: str) -> None:
        if not self.gone:
            self._note(branch, op, Answer.UNKNOWN, error)
            self._take(branch, op, Answer.UNKNOWN, error, 0.0)

    def request(self, branch: Branch, op: str, address: Address, timeout: float) -> bytes:
        """What goes over the wire, but for the line of the method and the Host header."""
        record = self.record
        body = self._bodies.get(branch.id)
        if body is None:
            body = self._bodies[branch.id] = b"" if op == QUESTION else to_json(branch.spec.payload)
        trace = f"traceparent: {record.traceparent}\r\n" if record.traceparent else ""
        return (
            f"Content-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\n"
            f"Transaction-Id: {record.gid}\r\n"
            f"Transaction-Branch: {branch.id}\r\n"
            f"Transaction-Op: {op}\r\n"
            f"Transaction-Mode: {record.mode}\r\n"
            f"Transaction-Epoch: {self.epoch}\r\n"
            f"Transaction-Began: {int(record.began * 1000)}\r\n"
            f"Idempotency-Key: {record.gid}/{branch.id}/{op}\r\n"
            f"Deadline-Ms: {int(timeout * 1000)}\r\n"
            f"unisono-clock: {self._house.stamp():016x}\r\n"
            f"{trace}\r\n"
        ).encode() + body

    def begin_call(self, job: _Job) -> bool:
        """A call's turn has come; ``False`` if it is not wanted any more."""
        branch, op = job.branch, job.op
        if job.dead:
            return False
        if not self.machine.wants(branch, op):
            if self.machine.writing is None:
                del self._jobs[branch.id]
                self.do(self.machine.withdrawn(branch))
                return False
            # A decision is just being written. If it is another one this call must not leave; if the
            # write fails all is dropped. Either way it is looked after then.
            return False
        timeout = CALL_SECONDS
        if self.machine.status in OPEN and op != QUESTION:
            timeout = min(timeout, max(0.01, self.record.deadline - self._house.now()))
        address = job.address
        if op != QUESTION:
            address = address.below(op)
        job.made = True
        job.since = self._loop.time()
        self.machine.sent(branch, op)
        self._house.caller.call(address, self.request(branch, op, address, timeout), timeout, job.ended)
        return True

    def end_call(self, job: _Job, reply: Reply) -> None:
        """A call has ended."""
        means = meaning(reply)
        self._house.participant(job.address).ended(answered=means.answered)
        self._house.counts.answers[means.answer] += 1
        if self.gone:
            return
        branch, op = job.branch, job.op
        if self._jobs.get(branch.id) is job:
            del self._jobs[branch.id]
        took = (self._loop.time() - job.since) * 1000
        self._note(branch, op, means.answer, means.note, status=reply.status, took=took)
        if means.answer is Answer.DONE and means.data is not None:
            branch.reply = means.data
        elif means.answer is Answer.NO:
            branch.problem = means.data
        self._take(branch, op, means.answer, means.note, means.pause)

    def _take(self, branch: Branch, op: str, answer: Answer, note: str, pause: float) -> None:
        """Tell the machine, with the pause that follows if the same is to be called again."""
        if answer is Answer.BUSY:
            self._pauses[branch.id] = (op, pause)
        elif answer is not Answer.DONE:
            again = pause_before(
                branch.attempts + 1, self._house.chance, slow=branch.slow or answer is Answer.NO
            )
            self._pauses[branch.id] = (op, again)
        self.do(self.machine.answered(branch, op, answer, note))
        if self.machine.heuristic is not None:
            self._tell_doubt()
        if self.moved:
            self._wake()

    def _tell_doubt(self) -> None:
        """A branch may come to another end than the transaction: that is written down, and told once."""
        heuristic = self.machine.heuristic
        if heuristic is None or heuristic.kind is self._told or self.machine.writing is not None:
            return
        self._told = heuristic.kind
        if self.machine.status not in FINAL:
            self.save()
        self._house.doubtful(self)

    def _note(
        self, branch: Branch, op: str, answer: Answer, note: str, *, status: int = 0, took: float = 0.0
    ) -> None:
        timeline = self.record.timeline
        if len(timeline) >= MAX_TIMELINE:
            del timeline[MAX_TIMELINE // 2]  # the beginning and the latest tell most
        timeline.append([round(self._house.now(), 3), branch.id, op, status, answer, round(took, 1), note])

    def _branch(self, id: str) -> Branch:
        question = self.machine.question
        return question if question is not None and question.id == id else self.machine.branches[id]

    def view(self) -> dict[str, Any]:
        """As the HTTP API tells it."""
        machine, record = self.machine, self.record
        return shown(record, machine.status, self.epoch, [_branch_view(b) for b in machine.branches.values()])

    def branch_view(self, branch: Branch) -> dict[str, Any]:
        """One branch, with the transaction's status."""
        return {**_branch_view(branch), "gid": self.record.gid, "status": self.machine.status}

    def add(self, spec: BranchSpec) -> Branch:
        """One more branch, not yet durable."""
        branch = self.machine.enrol(spec)
        self.record.specs.append(spec)
        return branch


class _Job:
    """A call that waits for its turn at a participant, or is under way."""

    __slots__ = ("_running", "address", "branch", "dead", "made", "op", "since")

    def __init__(self, running: Running, branch: Branch, op: str, address: Address) -> None:
        self._running = running
        self.branch = branch
        self.op = op
        self.address = address
        self.made = False
        self.dead = False
        self.since = 0.0

    def start(self) -> bool:
        """See :class:`unisono.transactions.participants.Job`."""
        return self._running.begin_call(self)

    def ended(self, reply: Reply) -> None:
        """The call has ended."""
        self._running.end_call(self, reply)


def _branch_view(branch: Branch) -> dict[str, Any]:
    return {
        "id": branch.id,
        "url": branch.spec.url,
        "after": branch.spec.after,
        "state": branch.state,
        "attempts": branch.attempts,
        "reply": branch.reply,
        "problem": branch.problem,
    }


def stored_view(record: Record) -> dict[str, Any]:
    """A transaction that only the log knows, as the HTTP API tells it."""
    states = record.states or [""] * len(record.specs)
    branches = [
        {
            "id": spec.id,
            "url": spec.url,
            "after": spec.after,
            "state": state or None,
            "attempts": None,
            "reply": None,
            "problem": None,
        }
        for spec, state in zip(record.specs, states, strict=True)
    ]
    return shown(record, record.status, None, branches)


def shown(
    record: Record, status: Status, epoch: int | None, branches: list[dict[str, Any]]
) -> dict[str, Any]:
    """A transaction as the HTTP API tells it."""
    decision = None
    if status not in OPEN:
        decision = "commit" if status in (Status.COMMITTING, Status.COMMITTED) else "abort"
    told = record.heuristic
    return {
        "gid": record.gid,
        "namespace": record.namespace,
        "mode": record.mode,
        "status": status,
        "decision": decision,
        "heuristic": None
        if told is None
        else {"kind": told.kind, "reason": told.reason, "resolved": told.resolved},
        "reason": record.reason,
        "node": record.owner,
        "epoch": epoch,
        "began_at": record.began,
        "deadline": record.deadline,
        "decided_at": record.decided,
        "ended_at": record.ended,
        "branches": branches,
        "timeline": [
            dict(zip(("at", "branch", "op", "status", "answer", "ms", "note"), line, strict=True))
            for line in record.timeline
        ],
    }


def _ignore(_: StoreError | None) -> None:
    """The next write of this transaction says the same."""
