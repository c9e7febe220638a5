"""The search against every order there is, on histories known to be good and bad, and with planted faults."""

from __future__ import annotations

import random
from collections.abc import Sequence
from itertools import permutations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.evaluate.histories import op, recorded
from unisono.evaluate.checkers.linearizability import linearizable
from unisono.evaluate.checkers.verdict import Answer
from unisono.evaluate.history import Operation, Outcome


def explained(history: Sequence[Operation]) -> bool:
    """Whether one of all orders of all that may have happened explains the answers."""
    known = [one for one in history if one.outcome is Outcome.DONE]
    unknown = [one for one in history if one.outcome is Outcome.UNKNOWN]
    for chosen in range(1 << len(unknown)):
        happened = known + [one for n, one in enumerate(unknown) if chosen >> n & 1]
        if any(_fits(order) for order in permutations(happened)):
            return True
    return False


def _fits(order: Sequence[Operation]) -> bool:
    value = None
    latest = -1
    for one in order:
        if one.outcome is Outcome.DONE and one.returned is not None and one.returned < latest:
            return False
        latest = max(latest, one.called)
        known = one.outcome is Outcome.DONE
        if one.action == "get":
            if known and one.result != value:
                return False
        elif one.action == "cas":
            if known and one.result != (value == one.expected):
                return False
            if value == one.expected:
                value = one.value
        else:
            value = None if one.action == "delete" else one.value
    return True


@st.composite
def histories(draw: st.DrawFn) -> list[Operation]:
    """Up to six operations on one key, with few values, so that many of them clash."""
    found = []
    for n in range(draw(st.integers(1, 6))):
        called = draw(st.integers(0, 12))
        returned = draw(st.one_of(st.none(), st.integers(called, 14)))
        number = st.integers(1, 3)
        value, expected = draw(number), draw(st.one_of(st.none(), number))
        action = draw(st.sampled_from(["get", "get", "put", "cas", "delete"]))
        words = {
            "get": "-" if expected is None else f"{expected}",
            "put": f"{value}",
            "cas": f"{'-' if expected is None else expected} {value} {draw(st.sampled_from(['yes', 'no']))}",
            "delete": "",
        }
        found.append(op(f"c{n} {action} x {words[action]}", called, returned))
    return found


@settings(deadline=None)  # what is tested is the verdict, on whatever machine
@given(histories())
def test_the_search_agrees_with_every_order_tried(history: list[Operation]) -> None:
    """Small histories, unknown outcomes among them: the verdict is that of brute force."""
    verdict = linearizable(history)

    assert verdict.answer is (Answer.KEPT if explained(history) else Answer.VIOLATED), str(verdict)


@settings(deadline=None)  # what is tested is the verdict, on whatever machine
@given(histories())
def test_a_counter_example_is_violated_by_itself(history: list[Operation]) -> None:
    """What is shown as evidence has no order either."""
    verdict = linearizable(history)

    shown = [one for one in verdict.evidence if isinstance(one, Operation)]
    assert verdict.kept or not explained(shown)


@pytest.mark.parametrize(
    "history",
    [
        [op("a put x 1", 0, 10), op("b get x -", 1, 2), op("b get x 1", 3, 4)],
        [op("a put x 1", 0, None), op("b get x -", 5, 6), op("b get x 1", 90, 91)],
        [op("a put x 1", 0, None), op("b get x -", 5, 6)],
        [op("a put x 1", 0, 1), op("b cas x 1 2 yes", 2, None), op("c get x 2", 3, 4)],
        [op("a put x 1", 0, 5), op("b get x 1", 5, 6), op("c put y 2", 7, 8)],
    ],
    ids=["while it runs", "much later", "never", "a cas that took effect", "at the same moment"],
)
def test_good_histories(history: list[Operation]) -> None:
    """Known to be linearizable."""
    assert linearizable(history).kept


@pytest.mark.parametrize(
    "history",
    [
        [op("a put x 1", 0, 1), op("b get x -", 2, 3)],
        [op("a put x 1", 0, 9), op("b get x 1", 1, 2), op("c get x -", 3, 4)],
        [op("a put x 1", 0, None), op("b get x 1", 1, 2), op("c get x -", 3, 4)],
        [op("a put x 0", 0, 1), op("b cas x 0 1 yes", 2, 9), op("c cas x 0 2 yes", 2, 9)],
        [op("a put x 1", 5, None), op("b get x 1", 1, 2)],
        [op("a get x 7", 0, 1)],
    ],
    ids=["stale read", "back again", "back from unknown", "lost update", "before the call", "from nowhere"],
)
def test_bad_histories(history: list[Operation]) -> None:
    """Known not to be."""
    assert linearizable(history).violated


@pytest.mark.parametrize("seed", range(20))
def test_a_store_that_keeps_its_promise_is_never_blamed(seed: int) -> None:
    """200 operations of five clients, one in ten with an outcome that nobody knows."""
    assert linearizable(recorded("none", seed)).kept


@pytest.mark.parametrize("fault", ["stale read", "lost update"])
def test_planted_faults_are_found(fault: str) -> None:
    """A store that does one call in ten wrong is found out, with few operations to look at."""
    verdicts = [linearizable(recorded(fault, seed)) for seed in range(20)]

    assert sum(verdict.violated for verdict in verdicts) >= 18
    assert min(len(verdict.evidence) for verdict in verdicts if verdict.violated) <= 6


def test_a_torn_read_is_found() -> None:
    """Two keys that are written together and read together are one register."""
    writes = [op(f"a put pair {n}", 10 * n, 10 * n + 5) for n in range(3)]
    pairs = [
        Operation(client="a", action="put", key="pair", value=[n, n], called=10 * n, returned=10 * n + 5)
        for n in range(3)
    ]
    torn = Operation(client="b", action="get", key="pair", result=[1, 2], called=15, returned=29)

    assert linearizable(writes).kept
    assert linearizable(pairs).kept
    assert linearizable([*pairs, torn]).violated


def test_one_key_does_not_answer_for_another() -> None:
    """The violated key is named."""
    history = [op("a put x 1", 0, 1), op("a get y 1", 2, 3)]

    assert "'y'" in linearizable(history).reason


def test_what_takes_too_long_is_not_decided() -> None:
    """64 writes at once, and reads that no order explains: the search ends, and does not pass it."""
    writes = [op(f"c{n} put x {n}", 0, 1000) for n in range(64)]
    reads = [op(f"r get x {n}", 10 * n + 1, 10 * n + 2) for n in (1, 2, 1)]

    assert linearizable([*writes, *reads], work_max=2000).answer is not Answer.KEPT


def test_long_histories_are_judged() -> None:
    """20,000 operations of ten clients on ten keys."""
    history = recorded("none", 1, clients=10, steps=2000, keys=10)

    assert linearizable(history).kept


def test_a_verdict_has_no_truth_value() -> None:
    """So that "not decided" can't pass as kept."""
    with pytest.raises(TypeError):
        bool(linearizable([]))


@pytest.mark.parametrize(("action", "named"), [("touch", "touch"), ("cas", "result")])
def test_what_no_register_does_is_refused(action: str, named: str) -> None:
    """An action that it does not know, and a cas that does not say whether it was done."""
    wrong = Operation(client="a", action=action, key="x", value=1, called=0, returned=1)

    with pytest.raises(ValueError, match=named):
        linearizable([wrong])


def test_orders_are_found_whatever_the_order_of_the_lines() -> None:
    """A history is a set of intervals."""
    history = recorded("none", 3)
    random.Random(1).shuffle(history)

    assert linearizable(history).kept
