"""
The one state machine of all modes: what happened in, what is to be done out. Pure: no clock, store or HTTP.

Which states there are, and the tables by which they follow each other, is in :mod:`.states`. Whoever runs the
machine (:mod:`.running`) carries out the instructions it returns:

* :class:`Write`: make this status durable, then say :meth:`Transaction.written`. The machine moves only then:
  a decision is durable before anybody is told of it or called because of it. It is the single commit point.
* :class:`Call`: call this operation of a branch; say :meth:`Transaction.sent` when it leaves, and
  :meth:`Transaction.answered` with what came of it. Of one that never left, say
  :meth:`Transaction.withdrawn`.

Which branches are called is decided anew after every step, by :meth:`Transaction._calls`: forward and finish
in the order of ``after``, undo in the reverse order, all that are free at the same time.

What must hold, and :meth:`Transaction.check_invariants` checks after each step in tests: nothing is finished
before the decision to commit, nothing undone before the decision to abort; a decision never changes; a final
transaction has no branch whose outcome could still differ from it, but for those that ``heuristic`` tells of.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

from unisono.transactions.errors import Decided, NotActive, NotInDoubt
from unisono.transactions.modes import OPERATIONS, QUESTION, QUESTION_BRANCH, Mode, Operations
from unisono.transactions.states import (
    ABORT,
    ANSWERS,
    COMMIT,
    FINAL,
    OPEN,
    TABLE,
    Answer,
    Branch,
    Cause,
    Heuristic,
    Kind,
    State,
    Status,
)
from unisono.transactions.submission import BranchSpec

PATIENCE = 20
"""Attempts at finishing or undoing a branch before the transaction is marked heuristic and asked slowly."""


class Call(NamedTuple):  # as of submission.BranchSpec, many are made at once
    """
    Call operation ``op`` of a branch; if its last answer was none that counts, after a pause.

    How long that is, is the runner's to know: the machine has no clock.
    """

    branch: Branch
    op: str


@dataclass(frozen=True, slots=True)
class Write:
    """Make the transaction durable with this status."""

    status: Status


Instruction = Call | Write


class Transaction:
    """
    One transaction; the methods that move it return what is to be done next.

    ``question`` is the address of the initiator of a message. A transaction that was read back from the log
    is given its ``status``: what may have been called before counts as called (see :meth:`resume`).
    """

    __slots__ = (
        "_closing",
        "_ops",
        "branches",
        "heuristic",
        "mode",
        "question",
        "reason",
        "status",
        "writing",
    )

    def __init__(
        self,
        mode: Mode,
        specs: Iterable[BranchSpec],
        *,
        status: Status,
        question: str | None = None,
        heuristic: Heuristic | None = None,
        reason: str = "",
    ) -> None:
        self.mode = mode
        self.status = status
        self.heuristic = heuristic
        self.reason = reason  # why it was aborted
        self.question = None if question is None else Branch(BranchSpec(id=QUESTION_BRANCH, url=question))
        self.writing: Status | None = None  # a status that is being made durable
        self._closing = False  # of a message at its deadline: the initiator is asked
        self._ops: Operations = OPERATIONS[mode]
        self.branches: dict[str, Branch] = {spec.id: Branch(spec) for spec in specs}

    # What happens from outside.

    def start(self) -> list[Instruction]:
        """It is durable for the first time, or with one more branch; or what paused is wanted now."""
        return self._go_on()

    def resume(self) -> list[Instruction]:
        """
        It was read back from the log: go on from there.

        Whatever was called before the crash, the log does not know. So before the decision every branch may
        have gone forward, and is asked again; after it every branch is finished, or undone. Participants
        answer a repeated call as they did the first.
        """
        for branch in self.branches.values():
            if self.status in COMMIT:
                branch.state = State.READY
            elif self._ops.forward is not None:
                branch.state, branch.doubt = State.FORWARD, True
        for word in self.heuristic.resolved if self.heuristic is not None else ():
            for id in word["branches"]:
                self._settle(self.branches[id])
        return self._go_on()

    def enrol(self, spec: BranchSpec) -> Branch:
        """
        Take one more branch; :meth:`start` follows when that is durable.

        Raises:
            NotActive: It takes no more.
        """
        self.check_active()
        branch = self.branches[spec.id] = Branch(spec)
        return branch

    def check_active(self) -> None:
        """Raise NotActive if it takes no more branches."""
        if self.status is not Status.ACTIVE or self.writing is not None:
            standing = self.writing or self.status
            raise NotActive(f"the transaction is {standing}: it takes no more branches")

    def commit(self) -> list[Instruction]:
        """
        The initiator asks to commit; asking again is harmless.

        Raises:
            Decided: It was decided to abort, or is just being decided.
        """
        check_end(self.writing or self.status, self.reason, commit=True)
        if self.status is Status.ACTIVE:
            self._move(Cause.CLOSED)
        elif self._closing:
            # A message whose initiator answers before it has been asked back.
            self._closing = False
        return self._go_on()

    def abort(self, reason: str) -> list[Instruction]:
        """
        The initiator asks to abort; asking again is harmless.

        Raises:
            Decided: It was decided to commit, or is just being decided.
        """
        check_end(self.writing or self.status, self.reason, commit=False)
        return self._decide(Cause.GIVEN_UP, reason)

    def expire(self, waited_for: str = "") -> list[Instruction]:
        """The deadline has come; after a decision that means nothing. ``waited_for``: what was missing."""
        if self.status not in OPEN or self.writing is not None:
            return []
        if self.question is not None:
            if self.status is Status.ACTIVE:
                self._closing = True
                self._move(Cause.CLOSED)
            return self._go_on()
        return self._decide(
            Cause.EXPIRED, f"its time was over before it was decided{waited_for and ': ' + waited_for}"
        )

    def sent(self, branch: Branch, op: str) -> None:
        """A call leaves now: from here on it may have happened."""
        if op in (self._ops.forward, QUESTION):
            branch.state = State.FORWARD

    def withdrawn(self, branch: Branch) -> list[Instruction]:
        """A call that waited was not made, because the transaction no longer wants it."""
        branch.called = False
        return self._go_on()

    def answered(self, branch: Branch, op: str, answer: Answer, detail: str = "") -> list[Instruction]:
        """
        A call has been answered, or has failed; ``detail`` says how, for the reason of an abort.

        It is called again only when the instructions returned say so.
        """
        branch.called = False
        if op != self._due(branch):
            return self._go_on()  # the answer to something that has been overtaken by the decision
        if answer is not Answer.BUSY:
            branch.attempts += 1
        before = branch.state
        branch.state = ANSWERS[before, answer]
        if before is State.FORWARD:
            if answer in (Answer.UNKNOWN, Answer.GONE, Answer.BUSY):
                branch.doubt = True
            elif answer is Answer.NO:
                return self._decide(Cause.REFUSED, f"branch {branch.id} refused{detail and ': ' + detail}")
        elif branch.state is before and answer is not Answer.BUSY:
            self._in_vain(branch, op, answer, detail)
        return self._go_on()

    def written(self, status: Status) -> list[Instruction]:
        """The status asked for with :class:`Write` is durable."""
        self.writing = None
        self.status = status
        if status in (Status.COMMITTING, Status.ABORTING):
            for branch in self.branches.values():
                branch.attempts = 0
        return self._go_on()

    def resolve(self, word: dict[str, Any]) -> list[Instruction]:
        """
        An operator has seen to the branches named in ``word`` by hand; it is kept.

        It need not have been found out that they are in doubt: who knows that a participant is gone for good
        is not kept waiting. But then the transaction is in doubt from now on.

        Raises:
            NotInDoubt: One of them is not being finished or undone; nothing was resolved.
        """
        chosen = [self.branches.get(id) for id in word["branches"]]
        waiting = [b for b in chosen if b and b.state in (State.FINISHING, State.UNDOING)]
        if not waiting or len(waiting) < len(chosen):
            left = [b.id for b in self.branches.values() if b.state in (State.FINISHING, State.UNDOING)]
            raise NotInDoubt(
                "only branches that are being finished or undone can be resolved; these are:"
                f" {', '.join(left) or 'none'}"
            )
        if self.heuristic is None:
            names = ", ".join(branch.id for branch in waiting)
            self.heuristic = Heuristic(Kind.HAZARD, f"an operator brought {names} to its end by hand")
        for branch in waiting:
            branch.slow = False
            self._settle(branch)
        self.heuristic.resolved.append(word)
        return self._go_on()

    # Questions.

    def wants(self, branch: Branch, op: str) -> bool:
        """Whether a call that waits is still to be made."""
        return self.writing is None and op == self._due(branch)

    def check_invariants(self) -> None:
        """Raise AssertionError if a state stands beside another that it can't."""
        states = {branch.state for branch in self.branches.values()}
        finish, undo = {State.FINISHING, State.FINISHED}, {State.UNDOING, State.UNDONE}
        assert not states & finish or self.status in COMMIT, (self.status, states)  # noqa: S101 - for tests
        assert not states & undo or self.status in ABORT, (self.status, states)  # noqa: S101
        if self.status is Status.COMMITTED and self._ops.finish is not None:
            assert states <= {State.FINISHED}, states  # noqa: S101
        if self.status is Status.ABORTED:
            assert not states & {State.FORWARD, State.READY, State.UNDOING}, states  # noqa: S101

    # The inside.

    def _move(self, cause: Cause) -> None:
        self.status = TABLE[self.status, cause]

    def _decide(self, cause: Cause, reason: str) -> list[Instruction]:
        """Abort, unless something has been decided."""
        if self.status not in OPEN or self.writing is not None:
            return self._go_on()
        self.reason = reason
        return self._write(TABLE[self.status, cause])

    def _write(self, status: Status) -> list[Instruction]:
        """
        Have ``status`` made durable; of two in a row between which nothing is to be done, the second alone.

        So a saga whose branches are all ready is committed with one write.
        """
        onward = TABLE.get((status, Cause.FINISHED if status is Status.COMMITTING else Cause.UNDONE))
        if onward is not None and not self._left(status):
            status = onward
        self.writing = status
        return [Write(status)]

    def _go_on(self) -> list[Instruction]:
        """What is to be done as things stand."""
        if self.writing is not None or self.status in FINAL:
            return []
        if self.status is Status.PREPARING and self._all_ready():
            return self._write(TABLE[self.status, Cause.READY])
        if self.status is Status.COMMITTING and not self._left(self.status):
            return self._write(TABLE[self.status, Cause.FINISHED])
        if self.status is Status.ABORTING and not self._left(self.status):
            return self._write(TABLE[self.status, Cause.UNDONE])
        return self._calls()

    def _settle(self, branch: Branch) -> None:
        """An operator has brought it to the transaction's end."""
        branch.state = State.FINISHED if self.status in COMMIT else State.UNDONE
        branch.called = False

    def _all_ready(self) -> bool:
        if self._closing:
            assert self.question is not None  # noqa: S101 - only a message closes by itself
            return self.question.state is State.READY
        if self._ops.forward is None:
            return True
        return all(branch.state is State.READY for branch in self.branches.values())

    def _left(self, status: Status) -> bool:
        """Whether a branch is still to be finished, or undone."""
        if status is Status.COMMITTING:
            if self._ops.finish is None:
                return False
            return any(branch.state is not State.FINISHED for branch in self.branches.values())
        return any(self._to_undo(branch) or branch.called for branch in self.branches.values())

    def _to_undo(self, branch: Branch) -> bool:
        """Whether something of it may have happened that has not been undone."""
        if self._ops.undo is None:
            return False
        state = branch.state
        if state is State.REFUSED:
            return branch.doubt  # another call than the one that was refused may have been carried out
        return state in (State.FORWARD, State.READY, State.UNDOING)

    def _due(self, branch: Branch) -> str | None:
        """The operation that a branch is to be called with as things stand, apart from the order."""
        if self.status in OPEN:
            if branch is self.question:
                asked = self._closing and branch.state in (State.IDLE, State.FORWARD)
                return QUESTION if asked else None
            return self._ops.forward if branch.state in (State.IDLE, State.FORWARD) else None
        if self.status is Status.COMMITTING:
            return self._ops.finish if branch.state is not State.FINISHED else None
        if self.status is Status.ABORTING:
            return self._ops.undo if self._to_undo(branch) else None
        return None

    def _calls(self) -> list[Instruction]:
        """A call for each branch whose turn it is and that has none under way."""
        calls: list[Instruction] = []
        asked = self.question if self.status in OPEN else None
        for branch in self.branches.values() if asked is None else (asked,):
            if branch.called or (op := self._due(branch)) is None:
                continue
            if branch is asked or self._free(branch):
                calls.append(self._call(branch, op))
        return calls

    def _call(self, branch: Branch, op: str) -> Call:
        if self.status is Status.COMMITTING:
            branch.state = State.FINISHING
        elif self.status is Status.ABORTING:
            branch.state = State.UNDOING
        branch.called = True
        return Call(branch, op)

    def _free(self, branch: Branch) -> bool:
        """Whether the order lets it be called now."""
        if self.status is Status.ABORTING:
            return not any(
                branch.id in other.spec.after and (self._to_undo(other) or other.called)
                for other in self.branches.values()
            )
        if not branch.spec.after:
            return True
        passed = State.FINISHED if self.status is Status.COMMITTING else State.READY
        return all(self.branches[id].state is passed for id in branch.spec.after)

    def _in_vain(self, branch: Branch, op: str, answer: Answer, detail: str) -> None:
        """Finishing or undoing has failed once more: it is asked on, and from some point on that is known."""
        if answer is Answer.NO:
            kind, what = Kind.MIXED, f"branch {branch.id} refused to {op}{detail and ': ' + detail}"
        elif branch.attempts >= PATIENCE:
            kind, what = Kind.HAZARD, f"branch {branch.id} has not answered {op} {branch.attempts} times"
        else:
            return
        branch.slow = True
        if self.heuristic is None:
            self.heuristic = Heuristic(kind, what)
        elif self.heuristic.kind is Kind.HAZARD and kind is Kind.MIXED:
            self.heuristic.kind, self.heuristic.reason = kind, what


def check_end(status: Status, reason: str, *, commit: bool) -> None:
    """Raise Decided if a transaction has, or comes to, another end than is asked for."""
    if commit and status in ABORT:
        raise Decided(Status.ABORTED, f"the transaction is {status}{reason and ': ' + reason}")
    if not commit and status in COMMIT:
        raise Decided(Status.COMMITTED, f"the transaction is {status}: it can't be aborted any more")
