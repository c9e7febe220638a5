"""When an application is where it should be, and what went wrong if it is not."""

from __future__ import annotations

import queue
import time
from typing import Any

import pytest

from tests.cli.views import application, instance, rollout, service
from unisono.cli import watching
from unisono.cli.exits import CommandFailed
from unisono.client import NotRunning
from unisono.client.views import ApplicationView


class Script(watching.Watch):
    """A watch that gives what a test has written down."""

    def __init__(self, *items: ApplicationView | NotRunning | None) -> None:
        self.latest = None
        self._queue = queue.SimpleQueue()
        for item in items:
            self._queue.put(item)


def wait(*items: ApplicationView | NotRunning | None, **options: Any) -> ApplicationView | None:
    with watching.Progress() as progress:
        return watching.wait(Script(*items), progress, watching.settled, **options)


BUSY = application(service(settled=False, state="starting", ready=0))
DONE = application(service(instance()))


def test_waits_until_settled() -> None:
    """Waiting ends with the view in which nothing is under way."""
    assert wait(BUSY, BUSY, DONE) == DONE


def test_ends_when_gone() -> None:
    """Waiting ends when the application is gone."""
    assert wait(BUSY, None) is None


def test_ends_at_the_deadline() -> None:
    """Waiting has an end."""
    with pytest.raises(TimeoutError):
        wait(BUSY, timeout=0.01)


def test_ends_with_the_node() -> None:
    """When the node goes away, so does the waiting."""
    with pytest.raises(NotRunning):
        wait(BUSY, NotRunning("gone"))


@pytest.mark.parametrize("phase", ["rolled-back", "paused"])
def test_failed_rollout(phase: str) -> None:
    """A rollout that ended badly ends the waiting, with its reason."""
    view = application(service(settled=False, rollout=rollout(phase=phase, reason="it broke")))

    assert wait(view) == view
    assert "it broke" in watching.failures(view)[0]


def test_earlier_failure_is_none_of_ours() -> None:
    """A rollout that had failed before the command is not the command's failure."""
    view = application(service(rollout=rollout(phase="rolled-back")))

    assert watching.failures(view, watching.rollouts(view)) == []


def test_a_service_that_is_not_changed_holds_nothing_up() -> None:
    """Of services that a command did not touch neither a failure nor a start is its own."""
    done = service(instance())
    view = application(done, service(name="worker", state="failed"), service(name="jobs", settled=False))

    assert watching.part(view, ["orders"]) == application(done)
    assert watching.part(view, ()) == view


def test_worker_that_just_began_is_not_proven() -> None:
    """A worker, which nobody probes, counts only after it has been up for a moment."""
    begun = time.time()
    worker = application(service(instance(ready_at=begun), internal_url=None))
    found = wait(worker)

    assert found == worker
    assert time.time() - begun >= watching.WORKER_PROOF


def test_worker_that_ends_at_once_fails() -> None:
    """A worker that is ready and gone in turn is not ready."""
    up = application(service(instance(ready_at=time.time(), restarts=4), internal_url=None))
    down = application(service(instance(phase="backoff", restarts=4), settled=False, internal_url=None))
    with pytest.raises(TimeoutError):
        wait(up, down, up, timeout=0.05)

    assert watching.unready(up) == ["orders does not stay up: restarted 4 times"]


def test_judgement_names_what_is_not_ready() -> None:
    """The error says which service is not ready, and why."""
    view = application(service(settled=False, state="degraded", ready=0, reason="exited with 1"))
    with pytest.raises(CommandFailed) as failed:
        watching.judge("shop", view, frozenset(), 5.0)

    assert failed.value.message == "not ready after 5 seconds:\norders is degraded 0/1: exited with 1"
    assert failed.value.code == 1


def test_progress_without_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    """Without a terminal each change is one line on stderr."""
    wait(BUSY, BUSY, DONE)
    said = capsys.readouterr()

    assert said.err == "orders starting 0/1\norders ready 1/1\n"
    assert said.out == ""
