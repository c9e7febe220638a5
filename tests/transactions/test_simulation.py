"""
Crashes everywhere, in virtual time: whatever dies when, money is conserved and nothing stays open.

And the proof that this would be seen: each guard broken on purpose is found by some schedule.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest

from tests.transactions.simulation import play
from unisono.store.base import Compare, Field, StoreError
from unisono.transactions import machine, running
from unisono.transactions.coordinator import Coordinator
from unisono.transactions.log import Log
from unisono.transactions.machine import Transaction
from unisono.transactions.modes import Mode
from unisono.transactions.states import ANSWERS, FINAL, OPEN, Answer, Branch, Cause, State, Status

SCHEDULES = 1000
_PART = 100
_MUTANT_SCHEDULES = 1500


@pytest.mark.parametrize("first", range(0, SCHEDULES, _PART))
def test_random_crash_schedules_break_nothing(first: int) -> None:
    """Up to four transactions of all modes, one or two nodes, three crashes, faults of store and network."""
    broken = {seed: found for seed in range(first, first + _PART) if (found := play(seed).violations)}

    assert {} == broken


@pytest.mark.parametrize("crash", ["kill", "stop"])
@pytest.mark.parametrize("mode", list(Mode))
def test_a_crash_at_each_single_step_breaks_nothing(mode: Mode, crash: str) -> None:
    """Trap 1: every write and every call, before it leaves and before its answer comes."""
    broken = {}
    for seed in (1, 2, 3):
        steps = play(seed, crashes={}, plan=mode).steps
        for step in range(1, min(steps, 80) + 1):
            if found := play(seed, crashes={step: crash}, plan=mode).violations:
                broken[seed, step] = found

    assert {} == broken


# Guards, broken on purpose.


def _answer(state: State, answer: Answer, made: State) -> Callable[[pytest.MonkeyPatch], None]:
    return lambda patch: patch.setitem(ANSWERS, (state, answer), made)


def _told_before_written(patch: pytest.MonkeyPatch) -> None:
    def write(self: running.Running, wanted: machine.Write) -> None:
        record = self.record
        record.status = wanted.status
        record.states = [branch.state for branch in self.machine.branches.values()]
        record.ended = self._runtime.now() if wanted.status in FINAL else None
        self._log.append(record.key, record.encode(), lambda _: None)
        self.loop.call_soon(self._written, None)

    patch.setattr(running.Running, "_write", write)


def _called_before_begun(patch: pytest.MonkeyPatch) -> None:
    append = Log.append

    def hasty(self: Log, key: str, value: bytes | None, done: Any, **more: Any) -> None:
        append(self, key, value, lambda error: None if error is None else done(error), **more)
        done(None)

    patch.setattr(Log, "append", hasty)


def _resumed_as_never_called(patch: pytest.MonkeyPatch) -> None:
    resume = Transaction.resume

    def forgetful(self: Transaction) -> Any:
        instructions = resume(self)
        if self.status is Status.ABORTING:
            for branch in self.branches.values():
                branch.state, branch.doubt, branch.called = State.IDLE, False, False
            return self._go_on()
        return instructions

    patch.setattr(Transaction, "resume", forgetful)


def _only_the_ready_are_undone(patch: pytest.MonkeyPatch) -> None:
    def to_undo(self: Transaction, branch: Branch) -> bool:
        return self._ops.undo is not None and branch.state in (State.READY, State.UNDOING)

    patch.setattr(Transaction, "_to_undo", to_undo)


def _any_order(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Transaction, "_free", lambda self, branch: True)


def _undo_in_any_order(patch: pytest.MonkeyPatch) -> None:
    free = Transaction._free
    patch.setattr(
        Transaction, "_free", lambda self, branch: self.status is Status.ABORTING or free(self, branch)
    )


def _one_ready_is_enough(patch: pytest.MonkeyPatch) -> None:
    def ready(self: Transaction) -> bool:
        return any(branch.state is State.READY for branch in self.branches.values())

    patch.setattr(Transaction, "_all_ready", ready)


def _expires_after_the_decision(patch: pytest.MonkeyPatch) -> None:
    def expire(self: Transaction) -> Any:
        if self.status in FINAL or self.status is Status.ABORTING:
            return []
        return self._write(Status.ABORTING)

    def written(self: running.Running, error: StoreError | None) -> None:
        deadline, self._deadline = self._deadline, None
        original(self, error)
        self._deadline = deadline

    original = running.Running._written
    patch.setattr(Transaction, "expire", expire)
    patch.setattr(running.Running, "_written", written)


def _aborts_what_is_committing(patch: pytest.MonkeyPatch) -> None:
    def abort(self: Transaction, reason: str) -> Any:
        return [] if self.status in FINAL else self._write(Status.ABORTING)

    patch.setattr(Transaction, "abort", abort)


def _the_deadline_begins_anew(patch: pytest.MonkeyPatch) -> None:
    """A message that is aborted at its deadline instead of asked back."""

    def expire(self: Transaction) -> Any:
        return [] if self.status not in OPEN else self._decide(Cause.EXPIRED, "too late")

    patch.setattr(Transaction, "expire", expire)


def _no_term(patch: pytest.MonkeyPatch) -> None:
    """A coordinator that was taken over from goes on writing."""

    async def run(self: Log, batch: Any) -> bool:
        term = self.term
        self.term = Compare(key="nobody", field=Field.CREATED, target=0)
        try:
            return await original(self, batch)
        finally:
            self.term = term

    original = Log._try
    patch.setattr(Log, "_try", run)


def _the_epoch_stays(patch: pytest.MonkeyPatch) -> None:
    carry = Coordinator._carry

    def same(self: Coordinator, record: Any, begun: Any) -> running.Running:
        made = carry(self, record, begun)
        made.epoch = 1
        return made

    patch.setattr(Coordinator, "_carry", same)


def _a_begin_overwrites(patch: pytest.MonkeyPatch) -> None:
    """The key of a begin may exist: two nodes take the same transaction on."""
    append = Log.append

    def over(self: Log, key: str, value: bytes | None, done: Any, **more: Any) -> None:
        append(self, key, value, done, **{**more, "fresh": False})

    patch.setattr(Log, "append", over)


def _forgets_what_is_open(patch: pytest.MonkeyPatch) -> None:
    """A restart that resumes only what is decided."""
    resume = Coordinator._resume

    def some(self: Coordinator, record: Any) -> None:
        if record.status not in OPEN:
            resume(self, record)

    patch.setattr(Coordinator, "_resume", some)


def _unknown_is_given_up(patch: pytest.MonkeyPatch) -> None:
    """An undo that was not answered counts as done."""
    patch.setitem(ANSWERS, (State.UNDOING, Answer.UNKNOWN), State.UNDONE)


MUTANTS: dict[str, Callable[[pytest.MonkeyPatch], None]] = {
    "an unknown answer counts as yes": _answer(State.FORWARD, Answer.UNKNOWN, State.READY),
    "an unknown answer counts as no": _answer(State.FORWARD, Answer.UNKNOWN, State.IDLE),
    "an unknown confirm counts as done": _answer(State.FINISHING, Answer.UNKNOWN, State.FINISHED),
    "an unknown undo counts as done": _unknown_is_given_up,
    "a decision is acted on before it is durable": _told_before_written,
    "branches are called before they are durable": _called_before_begun,
    "a restart takes branches for never called": _resumed_as_never_called,
    "a restart forgets what is undecided": _forgets_what_is_open,
    "only what answered is undone": _only_the_ready_are_undone,
    "after is not heeded": _any_order,
    "undo goes in any order": _undo_in_any_order,
    "one yes is enough to commit": _one_ready_is_enough,
    "the deadline counts after the decision": _expires_after_the_decision,
    "an abort is taken after the commit": _aborts_what_is_committing,
    "a message is aborted without asking back": _the_deadline_begins_anew,
    "writes bear no term": _no_term,
    "the epoch never rises": _the_epoch_stays,
    "a begin may overwrite another": _a_begin_overwrites,
}


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # a broken world ends broken
@pytest.mark.parametrize("name", list(MUTANTS))
def test_each_guard_broken_on_purpose_is_found(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some schedule ends wrong, or in an error, without the guard."""
    MUTANTS[name](monkeypatch)

    found = False
    for seed in range(_MUTANT_SCHEDULES):
        with suppress(AssertionError, KeyError):
            if not play(seed).violations:
                continue
        found = True
        break

    assert found
