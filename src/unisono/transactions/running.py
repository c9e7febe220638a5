"""
An open transaction as its coordinator carries it: the machine, the record, and what is under way for it.

Here the machine's instructions meet time and the log; a call is :mod:`.attempts`' from the moment it is
planned until its answer comes back here. Who owns which transaction, and what is asked of it from outside,
is :mod:`.coordinator`'s.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from pydantic_core import to_json

from unisono.store.base import MaybeDone, StoreError
from unisono.transactions.attempts import Attempt
from unisono.transactions.errors import UrlNotAllowed
from unisono.transactions.log import Log
from unisono.transactions.machine import Call, Instruction, Transaction, Write
from unisono.transactions.modes import QUESTION
from unisono.transactions.participants import Timer, pause_before
from unisono.transactions.records import Record
from unisono.transactions.runtime import Runtime
from unisono.transactions.states import FINAL, OPEN, Answer, Branch, Kind, State
from unisono.transactions.submission import BranchSpec
from unisono.transactions.targets import locate
from unisono.transactions.views import branch_view, view_of


class Running:
    """
    One transaction under way; made for a begin, or from a record that was read back.

    ``begun``: done when the begin is durable, or has failed; ``None``: it was read back. ``gone``: it is not
    ours any more, nothing is called or written. ``epoch``: what its calls bear, the term as it was then.
    """

    __slots__ = (
        "_attempts",
        "_bodies",
        "_deadline",
        "_ends",
        "_log",
        "_moved",
        "_pauses",
        "_retries",
        "_runtime",
        "_told",
        "begun",
        "epoch",
        "gone",
        "loop",
        "machine",
        "record",
    )

    def __init__(
        self, record: Record, log: Log, runtime: Runtime, begun: asyncio.Future[None] | None
    ) -> None:
        self.record = record
        self.epoch = log.epoch
        self.machine = Transaction(
            record.mode,
            record.specs,
            status=record.status,
            question=record.question,
            heuristic=record.heuristic,
            reason=record.reason,
        )
        self.begun = begun
        self.gone = False
        self.loop = asyncio.get_running_loop()
        self._log = log
        self._runtime = runtime
        self._moved: list[asyncio.Future[None]] = []  # of those who wait for a change
        self._bodies: dict[str, bytes] = {}
        self._pauses: dict[str, tuple[str, float]] = {}  # by branch: before this operation is called again
        self._attempts: dict[str, Attempt] = {}  # calls that wait or are under way, by branch
        self._retries: dict[str, Timer] = {}  # pauses under way, by branch
        self._told: Kind | None = record.heuristic.kind if record.heuristic else None
        self._deadline: Timer | None = None
        self._ends = 0.0  # the loop's time of the deadline

    # From outside.

    async def durable(self) -> None:
        """
        Wait until its begin is; to be cancelled changes nothing.

        Raises:
            StoreError: It never will be, or may never be: what the store raised.
        """
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

    def enrol(self, spec: BranchSpec, enrolled: asyncio.Future[None]) -> Branch:
        """
        Take one more branch, and call it once it is durable: ``enrolled`` is done then, or has failed.

        Raises:
            NotActive: The transaction takes no more; nothing has happened.
        """
        branch = self.machine.enrol(spec)
        self.record.specs.append(spec)
        branch.called = True  # what is not durable may not be called

        def written(error: StoreError | None) -> None:
            branch.called = False
            settle(enrolled, error)
            if error is None and not self.gone:
                self.do(self.machine.start())

        self._log.append(self.record.key, self.record.encode(), written)
        return branch

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

    def resolve(self, word: dict[str, Any], kept: asyncio.Future[None]) -> None:
        """
        Go on without the branches that an operator has seen to; ``kept`` is done once that is durable.

        Raises:
            NotInDoubt: They are not being finished or undone; nothing has happened.
        """
        instructions = self.machine.resolve(word)
        self._save(lambda error: settle(kept, error))
        self.do(instructions)
        self._tell_doubt()

    async def until(self, is_so: Callable[[], bool], seconds: float) -> None:
        """
        Wait until it is so, the transaction is final or not ours any more, or the time is over.

        To be cancelled changes nothing.
        """
        if is_so() or seconds <= 0:
            return
        loop = self.loop
        deadline = loop.time() + seconds
        while not is_so() and self.machine.status not in FINAL and not self.gone:
            moved = loop.create_future()
            self._moved.append(moved)
            timer = loop.call_at(deadline, settle, moved, None)
            try:
                await moved
            finally:
                timer.cancel()
            if loop.time() >= deadline:
                return

    def drop(self) -> None:
        """Another coordinates it now, or the node ends: leave it as the log has it, and tell who waits."""
        self.gone = True
        self._clear()
        if self.begun is not None and not self.begun.done():
            self.begun.set_exception(MaybeDone("the coordinator stopped while it was written"))
            self.begun.exception()  # nobody may be waiting
        self._wake()

    def do(self, instructions: list[Instruction]) -> None:
        """Carry out what the machine wants."""
        for instruction in instructions:
            if isinstance(instruction, Call):
                self._plan(instruction.branch, instruction.op)
            else:
                self._write(instruction)

    # Writing.

    def _save(self, done: Callable[[StoreError | None], None]) -> None:
        """Have the record written again, as the transaction stands."""
        machine, record = self.machine, self.record
        record.status = machine.status
        record.heuristic = machine.heuristic
        self._log.append(record.key, record.encode(), done)

    def _write(self, write: Write) -> None:
        record, status = self.record, write.status
        now = self._runtime.now()
        record.status = status
        record.reason = self.machine.reason
        record.heuristic = self.machine.heuristic
        if record.decided is None:
            record.decided = now
        if status in FINAL:
            record.ended = now
            record.states = [str(branch.state) for branch in self.machine.branches.values()]
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
            self._withdraw_all()
        if status in FINAL:
            self._clear()
            self._runtime.ended(self.record)
        self.do(instructions)
        self._tell_doubt()
        self._wake()

    def _withdraw_all(self) -> None:
        """Let go of calls that wait or pause for something that has been decided otherwise."""
        for id, attempt in list(self._attempts.items()):
            branch = self._branch(id)
            if not attempt.made and not self.machine.wants(branch, attempt.op):
                attempt.dead = True
                self.withdraw(attempt)
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
        for attempt in self._attempts.values():
            attempt.dead = True
        self._attempts.clear()

    def _wake(self) -> None:
        waiting, self._moved = self._moved, []
        for future in waiting:
            if not future.done():
                future.set_result(None)

    def _set_deadline(self) -> None:
        if self.machine.status in OPEN:
            record = self.record
            # Read once from the wall clock, then counted by one that nobody sets; a clock that was set back,
            # or another node's that is behind, gives no transaction more than its whole time again.
            left = min(record.deadline - self._runtime.now(), record.deadline - record.began)
            self._ends = self.loop.time() + max(0.0, left)
            self._deadline = self.loop.call_at(self._ends, self._expire)

    def _expire(self) -> None:
        self._deadline = None
        waiting = [branch.id for branch in self.machine.branches.values() if branch.state is State.FORWARD]
        self.do(self.machine.expire(self.record.last_words(waiting)))

    # Calling.

    def _plan(self, branch: Branch, op: str) -> None:
        """Call at once, or after the pause that the last answer asks for."""
        paused = self._pauses.pop(branch.id, None)
        if paused is None or paused[0] != op:
            self._ask(branch, op)
        else:
            self._retries[branch.id] = self.loop.call_later(paused[1], self._rested, branch, op)

    def _rested(self, branch: Branch, op: str) -> None:
        del self._retries[branch.id]
        self._ask(branch, op)

    def _ask(self, branch: Branch, op: str) -> None:
        record = self.record
        try:
            address = locate(
                self._runtime.directory, record.namespace, branch.spec.url, trusted=record.trusted
            )
        except UrlNotAllowed as error:
            # It was one when the transaction began: its service has been removed, and may come back.
            self.loop.call_soon(self._failed, branch, op, str(error))
            return
        attempt = self._attempts[branch.id] = Attempt(self, self._runtime, branch, op, address)
        self._runtime.participants.at(address).ask(attempt)

    def _failed(self, branch: Branch, op: str, error: str) -> None:
        if not self.gone:
            self.record.note(self._runtime.now(), branch.id, op, Answer.UNKNOWN, note=error)
            self.take(branch, op, Answer.UNKNOWN, error, 0.0)

    # What an attempt asks of it.

    def body(self, branch: Branch, op: str) -> bytes:
        """What a branch is sent, encoded once for all its calls."""
        body = self._bodies.get(branch.id)
        if body is None:
            body = self._bodies[branch.id] = b"" if op == QUESTION else to_json(branch.spec.payload)
        return body

    def left(self) -> float:
        """Seconds until the deadline; of one that is not decided."""
        return self._ends - self.loop.time()

    def withdraw(self, attempt: Attempt) -> None:
        """It has not left, and is not wanted any more."""
        del self._attempts[attempt.branch.id]
        self.do(self.machine.withdrawn(attempt.branch))

    def finish(self, attempt: Attempt) -> None:
        """It is not under way any more; another of the same branch may be by now."""
        if self._attempts.get(attempt.branch.id) is attempt:
            del self._attempts[attempt.branch.id]

    def take(self, branch: Branch, op: str, answer: Answer, note: str, pause: float) -> None:
        """Tell the machine, with the pause that follows if the same is to be called again."""
        if answer is Answer.BUSY:
            self._pauses[branch.id] = (op, pause)
        elif answer is not Answer.DONE:
            again = pause_before(
                branch.attempts + 1, self._runtime.chance, slow=branch.slow or answer is Answer.NO
            )
            self._pauses[branch.id] = (op, again)
        self.do(self.machine.answered(branch, op, answer, note))
        if self.machine.heuristic is not None:
            self._tell_doubt()
        if self._moved:
            self._wake()

    def _tell_doubt(self) -> None:
        """A branch may come to another end than the transaction: that is written down, and told once."""
        heuristic = self.machine.heuristic
        if heuristic is None or heuristic.kind is self._told or self.machine.writing is not None:
            return
        self._told = heuristic.kind
        if self.machine.status not in FINAL:
            self._save(_ignore)
        self._runtime.doubtful(self.record)

    def _branch(self, id: str) -> Branch:
        question = self.machine.question
        return question if question is not None and question.id == id else self.machine.branches[id]

    # How it is shown.

    def view(self) -> dict[str, Any]:
        """As the HTTP API tells it."""
        branches = [branch_view(branch) for branch in self.machine.branches.values()]
        return view_of(self.record, self.machine.status, self.epoch, branches)

    def branch_view(self, branch: Branch) -> dict[str, Any]:
        """One branch, with the transaction's status."""
        return {**branch_view(branch), "gid": self.record.gid, "status": str(self.machine.status)}


def settle(waited: asyncio.Future[None], error: StoreError | None) -> None:
    """Let go whoever waits, unless they were let go before; ``error`` is what they are told."""
    if waited.done():
        return
    if error is None:
        waited.set_result(None)
    else:
        waited.set_exception(error)
        waited.exception()  # nobody may be waiting


def _ignore(_: StoreError | None) -> None:
    """The next write of this transaction says the same."""
