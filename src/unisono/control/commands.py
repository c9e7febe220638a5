"""
What people ask for: plan, apply, scale, restart, undo, remove; and readdress, which a node asks for.

Each reads, works out the change (:mod:`unisono.control.plan`, :mod:`unisono.control.changes`) and writes
it in one transaction that holds only if nothing it rests on has changed since; else it reads anew. So a
command happens wholly or not at all, for the whole application, whatever the controller does meanwhile.

All of them raise:

* CommandError (NotFound, Conflict, Invalid): refused, nothing was changed;
* NotDone: the store could not, nothing was changed;
* MaybeDone: unknown; look before asking again. Asking again is harmless for all but restart.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import chain
from typing import TypeVar

from unisono.control import changes
from unisono.control import plan as plans
from unisono.control.errors import Conflict, Invalid
from unisono.control.plan import AllocatePort, Changed, Now, Plan
from unisono.control.records import (
    APPLY_KEY,
    Service,
    application_key,
    encode,
    event_key,
    revision_key,
    service_key,
)
from unisono.control.snapshot import Snapshot
from unisono.control.writing import seen_in, unique
from unisono.spec.model import ApplicationSpec
from unisono.store import base

R = TypeVar("R")

Clock = Callable[[], float]
"""Gives seconds since the epoch."""

_ATTEMPTS = 100
"""Readings of one command. A controller writes a service's record at a few steps of a rollout only, so
that the second one nearly always holds; this is the limit that every wait needs."""


async def plan(store: base.Store, spec: ApplicationSpec, *, clock: Clock = time.time) -> Plan:
    """What :func:`apply` would change now; changes nothing and raises what it would."""
    known = (await _read(store)).snapshot
    return plans.apply(known, spec, allocate_port=lambda taken: 0, now=_now(clock))[0]


async def apply(
    store: base.Store, spec: ApplicationSpec, *, allocate_port: AllocatePort, clock: Clock = time.time
) -> Plan:
    """
    Make the file true: services in it are created, changed or left alone, others of it removed.

    ``allocate_port`` gives each new service its internal port; it may be asked again when another
    command came in between.
    """
    return await _change(
        store, lambda known: plans.apply(known, spec, allocate_port=allocate_port, now=_now(clock))
    )


async def scale(
    store: base.Store, application: str, service: str, replicas: int, *, clock: Clock = time.time
) -> Service:
    """Another number of instances; returns the service's new record."""
    return await _change(
        store, lambda known: changes.scale(known, application, service, replicas, _now(clock))
    )


async def restart(
    store: base.Store,
    application: str,
    services: Iterable[str] | None = None,
    *,
    clock: Clock = time.time,
) -> tuple[Service, ...]:
    """Roll to new instances of the same spec, of all services if none is named; returns their records."""
    names = None if services is None else tuple(services)
    return await _change(store, lambda known: changes.restart(known, application, names, _now(clock)))


async def readdress(
    store: base.Store,
    services: Iterable[tuple[str, str]],
    *,
    allocate_port: AllocatePort,
    clock: Clock = time.time,
) -> tuple[Service, ...]:
    """
    Another internal port for services (application, name) whose own somebody else has; their new records.

    What depends on them is restarted, as it has the old one.
    """
    names = tuple(services)
    return await _change(store, lambda known: changes.readdress(known, names, allocate_port, _now(clock)))


async def undo(store: base.Store, application: str, service: str, *, clock: Clock = time.time) -> Service:
    """Go back to the stable revision before; returns the service's new record."""
    return await _change(store, lambda known: changes.undo(known, application, service, _now(clock)))


async def remove(
    store: base.Store,
    application: str,
    services: Iterable[str] | None = None,
    *,
    clock: Clock = time.time,
) -> tuple[str, ...]:
    """Stop services, all if none is named, and forget them; returns their names."""
    names = None if services is None else tuple(services)
    return await _change(store, lambda known: changes.remove(known, application, names, _now(clock)))


@dataclass(frozen=True, kw_only=True)
class _Read:
    snapshot: Snapshot
    applied: int  # the revision of the last command


async def _read(store: base.Store) -> _Read:
    stored = await store.scan("application/")
    entries = list(stored.entries)
    for prefix in ("service/", "revision/", APPLY_KEY):
        entries += (await store.scan(prefix, revision=stored.revision)).entries
    applied = next((e.modified for e in entries if e.key == APPLY_KEY), 0)
    snapshot = Snapshot.of(base.Snapshot(revision=stored.revision, entries=tuple(entries)))
    return _Read(snapshot=snapshot, applied=applied)


async def _change(store: base.Store, decide: Callable[[Snapshot], tuple[R, Changed]]) -> R:
    for _ in range(_ATTEMPTS):
        known = await _read(store)
        result, changed = decide(known.snapshot)
        if changed.is_empty:
            return result
        try:
            outcome = await store.transact(compares=_compares(known, changed), success=_puts(changed))
        except ValueError as error:  # over a limit of the store, such as a spec of megabytes
            raise Invalid(f"that is too much for one change: {error}") from error
        if outcome.succeeded:
            return result
    raise Conflict(
        f"the services kept changing meanwhile, {_ATTEMPTS} times; try again",
        found="changes by others",
        wanted="a moment of quiet",
    )


def _compares(known: _Read, changed: Changed) -> list[base.Compare]:
    seen = seen_in(known.snapshot)
    keys = chain(
        (application_key(a.name) for a in changed.applications),
        (service_key(s.application, s.name) for s in changed.services),
    )
    compares = [base.Compare(key=key, field=base.Field.MODIFIED, target=seen.get(key, 0)) for key in keys]
    # Routes and ports must be unique over applications that this change does not touch: commands
    # follow one another, also where their records have nothing in common.
    return [*compares, base.Compare(key=APPLY_KEY, field=base.Field.MODIFIED, target=known.applied)]


def _puts(changed: Changed) -> list[base.Put]:
    records: list[tuple[str, object]] = [
        *((application_key(a.name), a) for a in changed.applications),
        *((service_key(s.application, s.name), s) for s in changed.services),
        *((revision_key(r.application, r.service, r.number), r) for r in changed.revisions),
        *((event_key(h.at, unique()), h) for h in changed.happenings),
    ]
    return [
        base.Put(key=APPLY_KEY, value=b"{}"),
        *(base.Put(key=key, value=encode(record)) for key, record in records),
    ]


def _now(clock: Clock) -> Now:
    return Now(at=clock(), nonce=secrets.token_hex(4))
