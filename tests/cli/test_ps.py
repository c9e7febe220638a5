"""What `unisono ps` shows of a service."""

from __future__ import annotations

from tests.cli.views import instance, rollout, service
from unisono.cli.ps import rows
from unisono.client.views import ServiceView

NOW = 100.0


def details(of: ServiceView) -> list[str]:
    return [row[-1] for row in rows(of, NOW)]


def test_ready_instance() -> None:
    """A ready instance shows its age, revision, process, port and requests; nothing needs explaining."""
    _, row = rows(service(instance(in_flight=3, restarts=2)), NOW)

    assert row == ("  orders-k3f9x", "ready", "10s", "1", "4711", "21000", "2", "3", "")


def test_instance_that_is_down() -> None:
    """One that is down says why, and when it is tried next."""
    down = instance(phase="backoff", pid=None, port=None, reason="exited with 1", retry_at=103.25)

    assert details(service(down, ready=0, state="degraded"))[1] == "exited with 1; tried again in 3.2s"


def test_unknown_figures() -> None:
    """What the gateway did not say is not shown as zero."""
    head, row = rows(service(instance(in_flight=None), in_flight=None), NOW)

    assert (head[7], row[7]) == ("-", "-")


def test_service_without_instances() -> None:
    """A service that has no instance yet says for what it waits."""
    waiting = service(
        state="starting", ready=0, reason="waits for payments (service_healthy)", urls=["http://x/"]
    )

    assert details(waiting) == ["http://x/; waits for payments (service_healthy)"]


def test_rollouts_are_told_while_they_matter() -> None:
    """A rollout on its way and one that failed are shown; one that ended well is no news."""
    rolling = rollout(phase="rolling", updated=1, replicas=3)
    failed = rollout(phase="rolled-back", reason="1 of 3 instances failed")

    assert "revision 2 rolling 1/3 for 50s" in details(service(rollout=rolling))[0]
    assert "revision 2 rolled-back: 1 of 3 instances failed" in details(service(rollout=failed))[0]
    assert "revision" not in details(service(rollout=rollout()))[0]
