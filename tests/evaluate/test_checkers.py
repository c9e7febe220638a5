"""Sessions, revisions, orders, holdings and watches: what is right passes, each planted fault is found."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.evaluate.histories import recorded
from unisono.evaluate.checkers.holdings import Holding, within
from unisono.evaluate.checkers.orders import fenced, rising
from unisono.evaluate.checkers.sessions import revisions, sessions
from unisono.evaluate.checkers.watches import Seen, watched
from unisono.evaluate.history import Operation, Outcome


def write(client: str, value: int, revision: int, at: int, *, action: str = "put") -> Operation:
    """An acknowledged write of ``x``."""
    return Operation(
        client=client, action=action, key="x", value=value, revision=revision, called=at, returned=at + 5
    )


def read(client: str, value: int | None, version: int, revision: int, at: int) -> Operation:
    """A read of ``x``."""
    return Operation(
        client=client, action="get", key="x", result=value, version=version, revision=revision,
        called=at, returned=at + 5,
    )  # fmt: skip


def given(first: int, count: int, called: int, returned: int) -> Operation:
    """Timestamps given out."""
    return Operation(client="a", action="tso", value=count, result=first, called=called, returned=returned)


def holding(holder: str, amount: int, since: int, until: int) -> Holding:
    """Something of ``q`` held."""
    return Holding(name="q", holder=holder, amount=amount, since=since, until=until)


def test_a_session_that_only_moves_on_passes() -> None:
    """Clients may be behind each other, not behind themselves."""
    history = [write("a", 1, 5, 0), read("b", None, 0, 3, 10), read("a", 1, 5, 5, 10), write("b", 2, 6, 20)]

    assert sessions(history).kept


@pytest.mark.parametrize(
    ("guarantee", "history"),
    [
        ("read your writes", [write("a", 1, 5, 0), read("a", None, 0, 4, 10)]),
        ("monotonic reads", [read("a", 1, 5, 5, 0), read("a", None, 0, 4, 10)]),
        ("monotonic writes", [write("a", 1, 5, 0), write("a", 2, 4, 10)]),
        ("writes follow reads", [read("a", 1, 5, 5, 0), write("a", 2, 4, 10)]),
    ],
)
def test_each_session_guarantee_is_watched(guarantee: str, history: list[Operation]) -> None:
    """One that is broken is named."""
    verdict = sessions(history)

    assert verdict.violated
    assert guarantee in verdict.reason


@pytest.mark.parametrize("seed", range(10))
def test_revisions_of_a_store_that_keeps_its_promise_pass(seed: int) -> None:
    """With writes whose outcome nobody knows."""
    assert revisions(recorded("none", seed)).kept


@pytest.mark.parametrize("fault", ["stale read", "lost update"])
def test_a_planted_fault_shows_in_revisions(fault: str) -> None:
    """Without any search: a read that says it is of a revision lacks a write before it."""
    verdicts = [revisions(recorded(fault, seed)) for seed in range(20)]

    assert sum(verdict.violated for verdict in verdicts) >= 18


@pytest.mark.parametrize(
    "history",
    [
        [write("a", 1, 5, 0), read("b", None, 0, 5, 10)],
        [write("a", 1, 5, 0), write("b", 2, 6, 10), read("c", 1, 5, 7, 20)],
        [write("a", 1, 5, 0), read("b", 2, 5, 5, 10)],
        [write("a", 1, 5, 0), write("b", 2, 5, 10)],
    ],
    ids=["gone", "skipped", "another value", "one revision twice"],
)
def test_revisions_that_contradict_each_other_are_found(history: list[Operation]) -> None:
    """What an answer says of its revision is held against what was acknowledged."""
    assert revisions(history).violated


def test_what_was_removed_may_be_gone() -> None:
    """By an acknowledged removal, or by one whose outcome is unknown."""
    put, gone = write("a", 1, 5, 0), read("b", None, 0, 9, 40)
    removed = write("a", 0, 7, 20, action="delete")

    assert revisions([put, removed, gone]).kept
    assert revisions([put, replace(removed, outcome=Outcome.UNKNOWN, revision=None), gone]).kept


def test_timestamps_that_rise_pass() -> None:
    """Those asked for at one time may come in any order."""
    assert rising([given(10, 5, 0, 9), given(1, 9, 1, 8), given(15, 1, 10, 11)]).kept


@pytest.mark.parametrize(
    "history",
    [
        [given(10, 1, 0, 1), given(10, 1, 0, 1)],
        [given(10, 5, 0, 9), given(14, 2, 0, 9)],
        [given(10, 1, 0, 1), given(9, 1, 2, 3)],
    ],
    ids=["repeated", "within a batch", "falling"],
)
def test_timestamps_that_do_not_rise_are_found(history: list[Operation]) -> None:
    """A repeated one, one out of another's batch, one lower than an earlier one."""
    assert rising(history).violated


def test_a_write_under_an_old_token_is_found() -> None:
    """Whose revision comes after that of a later holder's write."""
    old, new = replace(write("a", 1, 5, 0), token=1), replace(write("b", 2, 6, 0), token=2)

    assert fenced([old, new]).kept
    assert fenced([old, new, replace(write("a", 3, 7, 0), token=1)]).violated


def test_a_quota_is_kept_up_to_its_size() -> None:
    """What is given on at one moment counts once."""
    assert within(3, [holding("a", 2, 0, 10), holding("b", 1, 5, 10), holding("c", 3, 10, 20)]).kept


def test_a_quota_overrun_is_found() -> None:
    """With those who hold too much together, and nobody else."""
    verdict = within(3, [holding("z", 1, 0, 1), holding("a", 2, 2, 10), holding("b", 2, 5, 20)])

    assert verdict.violated
    assert len(verdict.evidence) == 2


def test_two_holders_of_a_lock_are_found() -> None:
    """A lock is a quota of 1."""
    assert within(1, [holding("a", 1, 0, 10), holding("b", 1, 9, 20)]).violated


WRITES = [write("a", n, n + 1, 10 * n) for n in range(5)]
EVENTS = [Seen(revision=n + 1, changes=[("x", n)]) for n in range(5)]


def test_a_watch_without_gap_or_repeat_passes() -> None:
    """From where it began to where it came."""
    assert watched(EVENTS, WRITES, after=0).kept
    assert watched(EVENTS[2:4], WRITES, after=2).kept


@pytest.mark.parametrize(
    "events",
    [
        [*EVENTS[:2], *EVENTS[3:]],
        [*EVENTS[:3], EVENTS[2], *EVENTS[3:]],
        [EVENTS[1], EVENTS[0], *EVENTS[2:]],
        [*EVENTS[:4], Seen(revision=5, changes=[("x", 99)])],
    ],
    ids=["skipped", "repeated", "going back", "another value"],
)
def test_a_watch_that_does_wrong_is_found(events: list[Seen]) -> None:
    """A skipped event, a repeated one, one of before, one that is not what was written."""
    assert watched(events, WRITES, after=0).violated


def test_a_removal_that_a_watch_leaves_out_is_found() -> None:
    """One of what is not there changes nothing, and need not be told."""
    removal = write("a", 0, 6, 60, action="delete")

    assert watched([*EVENTS, Seen(revision=6, changes=[("x", None)])], [*WRITES, removal], after=0).kept
    assert watched([Seen(revision=7, changes=[("y", 1)])], [removal], after=0).kept
    assert watched([*EVENTS, Seen(revision=7, changes=[("y", 1)])], [*WRITES, removal], after=0).violated


def test_a_resync_stands_for_what_it_replaces() -> None:
    """And for nothing after it."""
    resync = Seen(revision=4, changes=[("x", 3)], resync=True)

    assert watched([EVENTS[0], resync, EVENTS[4]], WRITES, after=0).kept
    assert watched([EVENTS[0], resync, Seen(revision=6, changes=[])], WRITES, after=0).violated
