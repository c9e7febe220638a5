"""
The decision: what to write, given all that is known. Nothing here reads, waits or writes.

For each service, in this order: move its rollout on, find the sick, bring number and revision to what
is wanted, run its release command, sweep up. A service on its way out is only stopped and swept up.

The order of the actions makes every prefix of them safe, because a controller may be lost between any
two: what is learned is recorded first, stops come before what takes their place, records go last. And
a decision on its own outcome is empty, once the instances do what they should; the simulation in
tests/control checks both.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace

from unisono.control import garbage, ordering, placement, progress, repair, rollout
from unisono.control.actions import Action, Amend, Create, Direct, Forget, Tell
from unisono.control.happenings import happening
from unisono.control.records import (
    Figures,
    Goal,
    Instance,
    Phase,
    RolloutPhase,
    Service,
    application_key,
)
from unisono.control.snapshot import ServiceView, Snapshot

_ID_LETTERS = "bcdfghjkmnpqrstvwxz23456789"  # no vowels: no words by chance; no 0, 1, l, y: no mix-ups
_ID_LENGTH = 5


def decide(snapshot: Snapshot, chance: random.Random) -> tuple[Action, ...]:
    """
    What to write so that what runs comes closer to what is wanted; empty when nothing is to be done.

    The same snapshot and the same state of ``chance`` (new ids are drawn from it) give the same actions.
    """
    maker = _Maker(snapshot, chance)
    actions: list[Action] = []
    for _, view in sorted(snapshot.services.items()):
        if ordering.is_removing(snapshot, view):
            actions += _remove(snapshot, view)
        elif view.service is not None:
            actions += _keep(snapshot, view, view.service, maker)
    actions += _sweep(snapshot)
    return tuple(actions)


def next_deadline(snapshot: Snapshot) -> float | None:
    """
    When to decide again although nothing has changed (seconds since the epoch), or None.

    Only rollouts wait for time to pass: for the next batch, for the end of watching, for progress, for what a
    canary's requests say.
    """
    times = (t for view in snapshot.services.values() for t in progress.deadlines(view, snapshot.now))
    return min((t for t in times if t > snapshot.now), default=None)


class _Maker:
    """Makes instances: draws their ids and chooses their nodes."""

    def __init__(self, snapshot: Snapshot, chance: random.Random) -> None:
        self._snapshot = snapshot
        self._chance = chance
        self._placed: list[Instance] | None = None

    def make(self, service: Service, revision: int, **fields: object) -> Instance | None:
        """A new instance on the node that suits it best, or None while no node is known."""
        if self._placed is None:  # most decisions make none, so that looking at all is put off
            self._placed = [i for v in self._snapshot.services.values() for i in v.instances.values()]
        node = placement.choose_node(self._snapshot.nodes, (i.node for i in self._placed))
        if node is None:
            return None
        instance = Instance(
            application=service.application,
            service=service.name,
            id=self._new_id(service.name),
            revision=revision,
            node=node,
            created_at=self._snapshot.now,
            rollout=service.rollout.serial if service.rollout else 0,
        )
        instance = replace(instance, **fields)  # type: ignore[arg-type]
        self._placed.append(instance)
        return instance

    def _new_id(self, service: str) -> str:
        taken = {i.id for i in self._placed or ()}
        while True:
            id = f"{service}-{''.join(self._chance.choices(_ID_LETTERS, k=_ID_LENGTH))}"
            if id not in taken:
                return id


def _keep(snapshot: Snapshot, view: ServiceView, service: Service, maker: _Maker) -> Iterator[Action]:
    """A service that should run."""
    now = snapshot.now
    amended, news = rollout.advance(view, service, now, _figures(snapshot, service))
    amended, killed, more_news = repair.sick(view, amended, now)
    shape = repair.shape(view, amended, killed=killed, now=now, in_flight=snapshot.in_flight)

    if amended != service:
        yield Amend(service=amended)
    for told in (*news, *more_news):
        yield Tell(happening=told)
    for member in killed:
        yield Direct(instance=replace(member.instance, goal=Goal.KILL))
    for instance, reason in shape.stops:
        yield from _stop(instance, reason, now)
    yield from _stop_old_jobs(view, amended, now)
    wanted = [progress.wanted_revision(amended)] * shape.creates + [amended.revision] * shape.canaries
    yield from _create(snapshot, view, amended, wanted, maker)
    yield from _release(snapshot, view, amended, maker)
    for key in (*garbage.stopped(view), *garbage.old_revisions(view)):
        yield Forget(key=key)


def _figures(snapshot: Snapshot, service: Service) -> Figures:
    """What a canary is judged by. Nothing else needs it, and it costs a question to the gateway."""
    current = service.rollout
    if current is None or current.phase is not RolloutPhase.CANARY:
        return Figures()
    return snapshot.measured.get((service.application, service.name, current.target), Figures())


def _create(
    snapshot: Snapshot, view: ServiceView, service: Service, revisions: list[int | None], maker: _Maker
) -> Iterator[Action]:
    """An instance of each of these; a revision that stands twice gets two."""
    may = {revision: _may_start(snapshot, view, service, revision) for revision in set(revisions)}
    for revision in revisions:
        instance = maker.make(service, revision) if revision is not None and may[revision] else None
        if instance is not None:
            yield Create(instance=instance)


def _may_start(snapshot: Snapshot, view: ServiceView, service: Service, revision: int | None) -> bool:
    if revision is None or view.spec(revision) is None:
        return False
    # What has proven itself is repaired at once: waiting for a dependency that is down for a moment
    # would make one outage into two.
    return revision == service.stable or not ordering.blockers(snapshot, view, revision)


def _release(snapshot: Snapshot, view: ServiceView, service: Service, maker: _Maker) -> Iterator[Action]:
    """The one job of a rollout; not while one of an earlier rollout still runs."""
    current = service.rollout
    if current is None or current.phase is not RolloutPhase.RELEASING:
        return
    if any(m.instance.rollout == current.serial or m.phase is not Phase.STOPPED for m in view.jobs):
        return
    spec = view.spec(current.target)
    if spec is None or ordering.blockers(snapshot, view, current.target):
        return
    job = maker.make(service, current.target, job=True, command=spec.update.release_command)
    if job is not None:
        yield Create(instance=job)


def _stop_old_jobs(view: ServiceView, service: Service, now: float) -> Iterator[Action]:
    current = service.rollout
    for m in view.jobs:
        is_needed = (
            current is not None
            and current.phase is RolloutPhase.RELEASING
            and m.instance.rollout == current.serial
        )
        if not is_needed and m.instance.goal is Goal.RUN and m.phase is not Phase.STOPPED:
            yield Direct(instance=replace(m.instance, goal=Goal.STOP))


def _remove(snapshot: Snapshot, view: ServiceView) -> Iterator[Action]:
    """A service that should go: its instances stop when none of its dependants has any left."""
    if not ordering.must_outlast(snapshot, view):
        for m in view.members:
            if m.instance.goal is Goal.RUN and m.phase is not Phase.STOPPED:
                yield from _stop(m.instance, "its service is being removed", snapshot.now)
    for key in garbage.stopped(view):
        yield Forget(key=key)
    if view.service is not None and not view.instances:
        yield Tell(
            happening=happening(
                "service-removed", at=snapshot.now, application=view.application, service=view.name
            )
        )
    for key in garbage.remains(view):
        yield Forget(key=key)


def _sweep(snapshot: Snapshot) -> Iterator[Action]:
    for name in garbage.empty_applications(snapshot):
        yield Tell(happening=happening("application-removed", at=snapshot.now, application=name))
        yield Forget(key=application_key(name))
    for key in garbage.old_events(snapshot):
        yield Forget(key=key)


def _stop(instance: Instance, reason: str, now: float) -> Iterator[Action]:
    yield Direct(instance=replace(instance, goal=Goal.STOP))
    yield Tell(
        happening=happening(
            "instance-stopping",
            at=now,
            application=instance.application,
            service=instance.service,
            instance=instance.id,
            message=reason,
        )
    )
