"""What a decision makes of a scene, in words of tests; and a service on its way to a new revision."""

from __future__ import annotations

import random
from typing import Any

from tests.control.factories import Scene, rolling, spec
from unisono.control.actions import Amend, Create, Direct, Tell
from unisono.control.decide import decide
from unisono.control.records import Goal, Phase, Rollout, RolloutPhase, Service
from unisono.control.snapshot import Snapshot


def created(snapshot: Snapshot, service: str = "web") -> list[int]:
    """Revisions of the instances that a decision makes for a service."""
    made = [a.instance for a in decide(snapshot, random.Random(1)) if isinstance(a, Create)]
    return [instance.revision for instance in made if instance.service == service]


def directed(snapshot: Snapshot) -> list[tuple[str, Goal]]:
    """Instances that a decision gives another goal, in their order."""
    actions = decide(snapshot, random.Random(1))
    return [(a.instance.id, a.instance.goal) for a in actions if isinstance(a, Direct)]


def told(snapshot: Snapshot) -> list[str]:
    """Kinds of what a decision tells."""
    actions = decide(snapshot, random.Random(1))
    return [a.happening.kind for a in actions if isinstance(a, Tell)]


def scene(
    replicas: int = 3,
    *,
    rollout: Rollout | None = None,
    update: dict[str, Any] | None = None,
    now: float = 1000.0,
    **fields: Any,
) -> Scene:
    """A service on its way from revision 1 to 2."""
    revisions = {1: spec(), 2: spec(command=("new",), update=update or {})}
    values = {"revision": 2, "stable": 1, **fields}
    built = Scene(now=now)
    return built.service(revisions=revisions, replicas=replicas, rollout=rollout or rolling(), **values)


def olds(built: Scene, count: int) -> Scene:
    """That many ready instances of revision 1."""
    for number in range(count):
        built.instance(f"web-old{number}")
    return built


def fresh(built: Scene, name: str, phase: Phase | None = Phase.READY, **status: Any) -> Scene:
    """An instance of revision 2 that this rollout made."""
    if phase is Phase.READY:
        status = {"ready_at": 1000.0, **status}
    return built.instance(f"web-{name}", phase, revision=2, rollout=1, created_at=1000.0, status=status)


def amended(snapshot: Snapshot) -> Service:
    """The service's record as a decision changes it."""
    found = [a.service for a in decide(snapshot, random.Random(1)) if isinstance(a, Amend)]
    assert len(found) == 1
    return found[0]


def phase_of(service: Service) -> RolloutPhase:
    """Where its rollout stands."""
    assert service.rollout is not None
    return service.rollout.phase
