"""
What is no longer needed: records of instances that have stopped, old revisions, old happenings.

A record goes only when nothing runs for it any more. A status without an instance stays as long as it
names a process: it is the only trace by which a restarted node finds that process to end it.
"""

from __future__ import annotations

from collections.abc import Iterator

from unisono.control.records import (
    Phase,
    instance_key,
    revision_key,
    service_key,
    status_key,
)
from unisono.control.rollout import HISTORY_MAX
from unisono.control.snapshot import ServiceView, Snapshot

EVENTS_MAX = 2000
"""Happenings kept; a fifth more may gather before the oldest go, so that they go in batches."""

_WITHOUT_PROCESS = frozenset({Phase.PENDING, Phase.BACKOFF, Phase.COMPLETED, Phase.FAILED, Phase.STOPPED})


def stopped(view: ServiceView) -> Iterator[str]:
    """Keys of instances that have stopped, and of statuses that belong to no instance."""
    for m in view.members:
        if m.phase is Phase.STOPPED:
            yield instance_key(view.application, view.name, m.id)
            yield status_key(view.application, view.name, m.id)
    for id, status in sorted(view.statuses.items()):
        if id not in view.instances and status.phase in _WITHOUT_PROCESS:
            yield status_key(view.application, view.name, id)


def old_revisions(view: ServiceView) -> Iterator[str]:
    """Keys of revisions that nothing needs: not among the last ten, not run, not to be gone back to."""
    service = view.service
    if service is None or len(view.revisions) <= HISTORY_MAX:
        return
    needed = {service.revision, service.stable, *service.history[-1:]}
    needed.update(instance.revision for instance in view.instances.values())
    if service.rollout is not None:
        needed.update((service.rollout.source, service.rollout.target))
    needed.update(sorted(view.revisions)[-HISTORY_MAX:])
    for number in sorted(set(view.revisions) - needed):
        yield revision_key(view.application, view.name, number)


def remains(view: ServiceView) -> Iterator[str]:
    """
    Keys of what is left of a service whose last instance is gone.

    Its own record goes first: one that lost its revisions, but not itself, could be applied again and
    would then name revisions that are gone.
    """
    if view.instances:
        return
    if view.service is not None:
        yield service_key(view.application, view.name)
    for number in sorted(view.revisions):
        yield revision_key(view.application, view.name, number)


def empty_applications(snapshot: Snapshot) -> Iterator[str]:
    """Names of applications on their way out of which no service is left."""
    inhabited = {application for application, _ in snapshot.services}
    for name, application in sorted(snapshot.applications.items()):
        if application.removing and name not in inhabited:
            yield name


def old_events(snapshot: Snapshot) -> tuple[str, ...]:
    """Keys of the oldest happenings, once too many have gathered."""
    if len(snapshot.events) <= EVENTS_MAX + EVENTS_MAX // 5:
        return ()
    return tuple(sorted(snapshot.events)[:-EVENTS_MAX])
