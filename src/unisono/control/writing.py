"""
How the actions of one decision become conditional transactions.

Each transaction carries the leader's token, and for every service it touches the revision at which that
service's record was seen: a command given in between makes it fail, and the next decision sees the
command. Talking to the store is :mod:`unisono.control.loop`'s.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from unisono.control.actions import Action, Amend, Forget, subject, write_of
from unisono.control.leader import Fence
from unisono.control.records import application_key, service_key
from unisono.control.snapshot import Snapshot
from unisono.store.base import MAX_OPERATIONS, Compare, Delete, Field, Put


@dataclass(frozen=True, kw_only=True)
class Part:
    """One transaction's worth: the writes, the records they rest on, and those of them they change."""

    writes: tuple[Put | Delete, ...]
    rests_on: tuple[str, ...]
    changes: tuple[str, ...]

    def compares(self, fence: Fence, seen: Mapping[str, int]) -> tuple[Compare, ...]:
        """What has to hold for it; ``seen`` tells the revision at which each record was seen, 0 for none."""
        return fence.compares() + tuple(
            Compare(key=key, field=Field.MODIFIED, target=seen.get(key, 0)) for key in self.rests_on
        )


def seen_in(snapshot: Snapshot) -> dict[str, int]:
    """The revisions at which the records that commands may change were seen."""
    seen = {application_key(name): at for name, at in snapshot.application_modified.items()}
    seen.update({service_key(*key): view.modified for key, view in snapshot.services.items()})
    return seen


def parts(actions: Sequence[Action], *, operations_max: int = MAX_OPERATIONS) -> Iterator[Part]:
    """The actions in their order, as few transactions as the store's limit allows."""
    gathered: list[Action] = []
    rests_on: set[str] = set()
    for action in actions:
        more = rests_on | _rests_on(action)
        if gathered and len(gathered) + 1 + len(more) + 1 > operations_max:  # and the fence
            yield _part(gathered, rests_on)
            gathered, more = [], _rests_on(action)
        gathered.append(action)
        rests_on = more
    if gathered:
        yield _part(gathered, rests_on)


def unique() -> str:
    """Something that no two happenings share."""
    return secrets.token_hex(5)


def _part(actions: Sequence[Action], rests_on: set[str]) -> Part:
    return Part(
        writes=tuple(write_of(action, unique()) for action in actions),
        rests_on=tuple(sorted(rests_on)),
        changes=tuple(
            service_key(action.service.application, action.service.name)
            if isinstance(action, Amend)
            else action.key
            for action in actions
            if isinstance(action, Amend | Forget)
        ),
    )


def _rests_on(action: Action) -> set[str]:
    if isinstance(action, Forget) and action.key.startswith("application/"):
        return {action.key}
    key = subject(action)
    return set() if key is None else {service_key(*key)}
