"""When a gateway that ended is started again."""

from __future__ import annotations

from unisono.gateway.process import pause


def test_the_first_is_replaced_at_once() -> None:
    """Neither one that lived for long nor the first that did not keeps anybody waiting."""
    assert [pause(count, served=served) for count in (0, 1) for served in (True, False)] == [0.0] * 4


def test_one_that_served_never_keeps_requests_waiting_long() -> None:
    """However often a gateway that serves is killed, the next one starts within 100 ms."""
    assert max(pause(count, served=True) for count in range(1000)) == 0.1


def test_one_that_cannot_start_is_tried_ever_less() -> None:
    """The pauses double up to five seconds."""
    pauses = [pause(count, served=False) for count in range(2, 1000)]

    assert pauses[:3] == [0.1, 0.2, 0.4]
    assert max(pauses) == pauses[-1] == 5.0
