"""The machine by itself: whatever happens in whatever order, what must hold holds after each step."""

from __future__ import annotations

import random
from contextlib import suppress

import pytest

from unisono.transactions.errors import Decided, NotActive
from unisono.transactions.machine import Call, Instruction, Transaction, Write
from unisono.transactions.modes import OPERATIONS, Mode
from unisono.transactions.states import ABORT, ANSWERS, COMMIT, FINAL, Answer, State, Status
from unisono.transactions.submission import BranchSpec

SEEDS = 300
STEPS = 60


class Walk:
    """A transaction to which things happen by chance, as its runner would tell it of them."""

    def __init__(self, mode: Mode, seed: int) -> None:
        self.chance = random.Random(seed)
        message = OPERATIONS[mode].asks_back
        self.waits = message or self.chance.random() < 0.5
        specs = [BranchSpec(id=id, url="http://stock/x", after=self._after(id)) for id in "abc"]
        self.machine = Transaction(
            mode,
            specs,
            status=Status.ACTIVE if self.waits else Status.PREPARING,
            question="http://stock/ask" if message else None,
        )
        self.calls: list[Call] = []
        self.write: Write | None = None
        self.statuses = [self.machine.status]
        self.take(self.machine.start())

    def _after(self, id: str) -> tuple[str, ...]:
        return tuple(other for other in "abc" if other < id and self.chance.random() < 0.4)

    def take(self, instructions: list[Instruction]) -> None:
        """What the machine wants; then all must hold."""
        for instruction in instructions:
            if isinstance(instruction, Write):
                assert self.write is None
                self.write = instruction
            else:
                self.calls.append(instruction)
        self.machine.check_invariants()
        self.statuses.append(self.machine.status)

    def step(self) -> None:
        """One thing that may happen now."""
        machine = self.machine
        happenings = [self.ask_to_commit, self.ask_to_abort, lambda: self.take(machine.expire())]
        if self.chance.random() < 0.05:
            with suppress(Decided):
                self.chance.choice(happenings)()
        elif self.write is not None and self.chance.random() < 0.5:
            self.written()
        elif self.calls:
            self.answered(self.chance.choice(list(Answer)))

    def ask_to_commit(self) -> None:
        self.take(self.machine.commit())

    def ask_to_abort(self) -> None:
        self.take(self.machine.abort("by chance"))

    def written(self) -> None:
        write, self.write = self.write, None
        assert write is not None
        self.take(self.machine.written(write.status))

    def answered(self, answer: Answer) -> None:
        """One call that waited leaves, if it is wanted still, and is answered."""
        call = self.calls.pop(self.chance.randrange(len(self.calls)))
        if self.machine.wants(call.branch, call.op):
            self.machine.sent(call.branch, call.op)
            self.take(self.machine.answered(call.branch, call.op, answer))
        elif self.machine.writing is None:
            self.take(self.machine.withdrawn(call.branch))
        else:
            self.calls.append(call)

    def end(self) -> None:
        """From now on every write is durable at once and every call is answered with yes."""
        with suppress(Decided):
            self.ask_to_commit()
        while self.machine.status not in FINAL:
            if self.write is not None:
                self.written()
            else:
                self.answered(Answer.DONE)


@pytest.mark.parametrize("mode", list(Mode))
def test_what_must_hold_holds_after_each_step_and_every_walk_ends(mode: Mode) -> None:
    for seed in range(SEEDS):
        walk = Walk(mode, seed)
        for _ in range(STEPS):
            walk.step()
        walk.end()

        ends = {status in COMMIT for status in walk.statuses if status in COMMIT | ABORT}
        assert 1 == len(ends), f"seed {seed}: {walk.statuses}"


def test_walks_come_to_both_ends_and_meet_every_answer() -> None:
    """Else the test above would show little."""
    walks = [Walk(mode, seed) for mode in Mode for seed in range(50)]
    for walk in walks:
        for _ in range(STEPS):
            walk.step()
        walk.end()

    assert {(mode, end) for mode in Mode for end in FINAL} == {
        (w.machine.mode, w.machine.status) for w in walks
    }


def test_every_state_that_is_called_has_a_row_for_every_answer() -> None:
    called = {State.FORWARD, State.FINISHING, State.UNDOING}

    assert {(state, answer) for state in called for answer in Answer} == set(ANSWERS)


@pytest.mark.parametrize(
    ("status", "state"),
    [
        (Status.PREPARING, State.FINISHING),
        (Status.ABORTING, State.FINISHED),
        (Status.COMMITTING, State.UNDOING),
        (Status.COMMITTED, State.READY),
        (Status.ABORTED, State.FORWARD),
    ],
)
def test_a_state_beside_a_status_that_it_can_not_have_is_found(status: Status, state: State) -> None:
    machine = Transaction(Mode.TCC, [BranchSpec(id="a", url="http://stock/x")], status=status)
    machine.branches["a"].state = state

    with pytest.raises(AssertionError):
        machine.check_invariants()


def test_no_branch_is_taken_while_a_decision_is_being_written() -> None:
    machine = Transaction(Mode.TCC, [], status=Status.ACTIVE)
    machine.abort("by hand")

    with pytest.raises(NotActive):
        machine.enrol(BranchSpec(id="late", url="http://stock/x"))
