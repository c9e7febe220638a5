"""
What a decision can ask for: plain data, each of which becomes one write to the store.

Deciding is in :mod:`unisono.control.decide`, writing in :mod:`unisono.control.loop`.
"""

from __future__ import annotations

from dataclasses import dataclass

from unisono.control.records import (
    Happening,
    Instance,
    Service,
    encode,
    event_key,
    instance_key,
    service_key,
)
from unisono.store.base import Delete, Put


@dataclass(frozen=True, kw_only=True)
class Create:
    """A new instance."""

    instance: Instance


@dataclass(frozen=True, kw_only=True)
class Direct:
    """An instance gets another goal."""

    instance: Instance  # with the new goal


@dataclass(frozen=True, kw_only=True)
class Amend:
    """A service's record changes."""

    service: Service


@dataclass(frozen=True, kw_only=True)
class Forget:
    """A record goes."""

    key: str


@dataclass(frozen=True, kw_only=True)
class Tell:
    """A happening is written down."""

    happening: Happening


_OF_A_SERVICE = frozenset({"service", "revision", "instance", "status"})

Action = Create | Direct | Amend | Forget | Tell


def write_of(action: Action, unique: str) -> Put | Delete:
    """The write that an action is; ``unique`` sets happenings of one moment apart."""
    match action:
        case Create(instance=instance) | Direct(instance=instance):
            return put_instance(instance)
        case Amend(service=service):
            return Put(key=service_key(service.application, service.name), value=encode(service))
        case Forget(key=key):
            return Delete(key=key)
        case Tell(happening=happening):
            return put_happening(happening, unique)


def subject(action: Action) -> tuple[str, str] | None:
    """The service that an action was decided for; None for an application's record or a happening."""
    match action:
        case Create(instance=instance) | Direct(instance=instance):
            return instance.application, instance.service
        case Amend(service=service):
            return service.application, service.name
        case Forget(key=key):
            kind, *rest = key.split("/")
            return (rest[0], rest[1]) if kind in _OF_A_SERVICE else None
        case Tell():
            return None


def put_instance(instance: Instance) -> Put:
    """The write of an instance."""
    key = instance_key(instance.application, instance.service, instance.id)
    return Put(key=key, value=encode(instance))


def put_happening(happening: Happening, unique: str) -> Put:
    """The write of a happening."""
    return Put(key=event_key(happening.at, unique), value=encode(happening))
