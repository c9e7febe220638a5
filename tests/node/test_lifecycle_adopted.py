"""The machine of an instance's life, where a node takes up what an earlier one left."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.node.play import HTTP, Play, running
from unisono.control.records import Goal, Phase, Status
from unisono.node.life import Stage
from unisono.node.lifecycle import adopted
from unisono.node.messages import (
    Drain,
    Probe,
    Publish,
    Signal,
    Spawn,
)

STATUS = Status(phase=Phase.READY, since=900.0, generation=4, boot_id="boot", ready_at=900.0, restarts=3)


def test_an_adopted_instance_stays_ready_and_is_published() -> None:
    """Neither probed first nor counted as new: it serves already."""
    play = Play(healthcheck=HTTP)

    life, instructions = adopted(STATUS, running(4), "boot", Goal.RUN, play.context())

    assert instructions == [Publish(running=running(4)), Probe(generation=4, after=1.0)]
    assert (life.stage, life.since, life.ready_at, life.restarts) == (Stage.READY, 900.0, 900.0, 3)


def test_one_that_ended_unseen_is_started_again_with_a_number_left_out() -> None:
    """A start that went unrecorded may have used the next generation."""
    life, instructions = adopted(STATUS, None, "boot", Goal.RUN, Play().context())

    assert Spawn(generation=6) in instructions
    assert life.reason.startswith("ended while the node was down")


def test_after_a_reboot_failures_are_forgotten() -> None:
    """The machine going down is no fault of the instance."""
    status = replace(STATUS, phase=Phase.BACKOFF, failures=9, retry_at=5000.0, boot_id="before")

    life, instructions = adopted(status, None, "boot", Goal.RUN, Play().context())

    assert instructions == [Spawn(generation=6)]
    assert life.failures == 0


@pytest.mark.parametrize("phase", [Phase.READY, Phase.DRAINING])
def test_an_adopted_instance_that_should_stop_is_drained_anew(phase: Phase) -> None:
    """The gateway may still send to it: its goodbye begins from the start."""
    status = replace(STATUS, phase=phase)

    _, instructions = adopted(status, running(4), "boot", Goal.STOP, Play().context())

    assert isinstance(instructions[-1], Drain)


def test_an_adopted_instance_that_was_signalled_is_signalled_again() -> None:
    """The signal may have been recorded and not sent; twice does no harm."""
    status = replace(STATUS, phase=Phase.STOPPING)

    life, instructions = adopted(status, running(4), "boot", Goal.STOP, Play().context())

    assert Signal(name="SIGTERM") in instructions
    assert life.stage is Stage.STOPPING


@pytest.mark.parametrize("phase", [Phase.COMPLETED, Phase.FAILED])
def test_what_has_ended_for_good_is_left_so_by_a_restart_of_the_node(phase: Phase) -> None:
    """A release command must not run twice."""
    status = replace(STATUS, phase=phase)

    life, instructions = adopted(status, None, "boot", Goal.RUN, Play(job=True).context())

    assert instructions == []
    assert life.stage.value == phase.value
