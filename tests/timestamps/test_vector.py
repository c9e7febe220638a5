"""Vector timestamps against the happened-before relation of random runs."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unisono.timestamps.vector import Order, VectorTimestamp

PROCESSES = st.sampled_from("abc")
TIMESTAMPS = st.dictionaries(PROCESSES, st.integers(0, 5)).map(VectorTimestamp)


@given(steps=st.lists(st.tuples(PROCESSES, PROCESSES), max_size=25))
def test_the_order_is_exactly_happened_before(steps: list[tuple[str, str]]) -> None:
    """In a run of messages, timestamps compare as the events' causal pasts do."""
    clocks = {p: VectorTimestamp() for p in "abc"}
    pasts: dict[str, frozenset[int]] = {p: frozenset() for p in "abc"}
    events: list[tuple[VectorTimestamp, frozenset[int]]] = []

    def happen(process: str) -> None:
        clocks[process] = clocks[process].tick(process)
        pasts[process] |= {len(events)}
        events.append((clocks[process], pasts[process]))

    for sender, receiver in steps:
        happen(sender)
        clocks[receiver] = clocks[receiver].merge(clocks[sender])
        pasts[receiver] |= pasts[sender]
        happen(receiver)

    for i, (a, past_a) in enumerate(events):
        for j, (b, past_b) in enumerate(events):
            if i == j:
                expected = Order.EQUAL
            elif i in past_b:
                expected = Order.BEFORE
            else:
                expected = Order.AFTER if j in past_a else Order.CONCURRENT
            assert expected == a.compare(b)


@given(a=TIMESTAMPS, b=TIMESTAMPS, c=TIMESTAMPS)
def test_merging_is_a_join(a: VectorTimestamp, b: VectorTimestamp, c: VectorTimestamp) -> None:
    """Order and repetition of messages do not matter to what is known."""
    assert a.merge(b) == b.merge(a)
    assert a.merge(b).merge(c) == a.merge(b.merge(c))
    assert a == a.merge(a)


def test_a_count_of_zero_is_the_same_as_none() -> None:
    """Equal knowledge has one form, also as a key."""
    assert VectorTimestamp() == VectorTimestamp({"a": 0})
    assert hash(VectorTimestamp()) == hash(VectorTimestamp({"a": 0}))


def test_a_negative_count_is_refused() -> None:
    """Bad input is named."""
    with pytest.raises(ValueError, match="'a' is -1"):
        VectorTimestamp({"a": -1})
