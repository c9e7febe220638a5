"""The hybrid logical clock against the paper's own rules, and its bounds."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unisono.timestamps.hybrid import COUNTER_MAX, DriftError, HybridClock, pack, unpack

MILLIS = st.integers(0, 1000)
COUNTERS = st.integers(0, 50)


def paper_send(last: tuple[int, int], physical: int) -> tuple[int, int]:
    """Figure 5, send or local event, word for word."""
    before, counter = last
    now = max(before, physical)
    return (now, counter + 1) if now == before else (now, 0)


def paper_receive(last: tuple[int, int], message: tuple[int, int], physical: int) -> tuple[int, int]:
    """Figure 5, receive event, word for word."""
    before, counter = last
    sent, sent_counter = message
    now = max(before, sent, physical)
    if now == before == sent:
        return now, max(counter, sent_counter) + 1
    if now == before:
        return now, counter + 1
    if now == sent:
        return now, sent_counter + 1
    return now, 0


@given(last=st.tuples(MILLIS, COUNTERS), physical=MILLIS)
def test_now_is_the_papers_send_rule(last: tuple[int, int], physical: int) -> None:
    """Packed arithmetic gives what the paper's two cases give."""
    clock = HybridClock(lambda: physical, start=pack(*last))

    assert paper_send(last, physical) == unpack(clock.now())


@given(last=st.tuples(MILLIS, COUNTERS), message=st.tuples(MILLIS, COUNTERS), physical=MILLIS)
def test_observe_is_the_papers_receive_rule(
    last: tuple[int, int], message: tuple[int, int], physical: int
) -> None:
    """Packed arithmetic gives what the paper's four cases give."""
    clock = HybridClock(lambda: physical, start=pack(*last), max_drift_ms=10_000)

    assert paper_receive(last, message, physical) == unpack(clock.observe(pack(*message)))


@given(steps=st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2), st.integers(-50, 50)), max_size=60))
def test_what_happened_before_has_the_smaller_timestamp(steps: list[tuple[int, int, int]]) -> None:
    """Three processes whose clocks jump either way exchange messages: every one is received later."""
    times = [1_000, 1_000, 1_000]
    clocks = [HybridClock(lambda i=i: times[i], max_drift_ms=10_000) for i in range(3)]  # type: ignore[misc]
    last = [0, 0, 0]

    for sender, receiver, jump in steps:
        times[sender] = max(0, times[sender] + jump)
        sent = clocks[sender].now()
        received = clocks[receiver].observe(sent)

        assert last[sender] < sent < received
        assert last[receiver] < received
        last[sender], last[receiver] = max(sent, last[sender]), received


def test_a_full_counter_moves_the_milliseconds_on() -> None:
    """65,537 events in one millisecond stay in order."""
    clock = HybridClock(lambda: 7, start=pack(7, COUNTER_MAX))

    assert (8, 0) == unpack(clock.now())


def test_trap_48_a_timestamp_too_far_ahead_is_refused_and_counted() -> None:
    """One bad clock does not poison this one."""
    clock = HybridClock(lambda: 1_000, max_drift_ms=500)

    with pytest.raises(DriftError, match="501 ms ahead"):
        clock.observe(pack(1_501, 0))

    assert (1, 0) == (clock.refused, clock.last)
    assert pack(1_500, 1) == clock.observe(pack(1_500, 0))


def test_trap_49_a_clock_started_anew_goes_on_above_its_bound() -> None:
    """A physical clock set back over a restart changes nothing."""
    bound = HybridClock(lambda: 5_000).now()

    assert HybridClock(lambda: 1_000, start=bound).now() > bound


@given(a=st.tuples(MILLIS, COUNTERS), b=st.tuples(MILLIS, COUNTERS))
def test_trap_49_packed_order_is_the_clocks_order(a: tuple[int, int], b: tuple[int, int]) -> None:
    """Comparing two numbers compares milliseconds first, the counter second."""
    assert (a < b) == (pack(*a) < pack(*b))


@pytest.mark.parametrize(("millis", "counter"), [(-1, 0), (1 << 48, 0), (0, -1), (0, 1 << 16)])
def test_parts_out_of_range_are_refused(millis: int, counter: int) -> None:
    """Neither part may spill into the other."""
    with pytest.raises(ValueError, match="must lie between"):
        pack(millis, counter)
