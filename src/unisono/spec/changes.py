"""
What applying an application would change: the difference of two of them, for people to read.

Only the specs are compared, not what runs: what a change does to instances is decided in
:mod:`unisono.control`. Values that look secret are not shown.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from unisono.spec.model import ApplicationSpec, ServiceSpec

MASK = "••••••"

# Not "key" alone: MONKEY and KEYBOARD hide nothing.
_SECRET = re.compile(
    r"pass(word|wd|phrase)?($|_)|secret|token|credential|(^|_|-)(api|access|private|signing|encryption)?_?keys?($|_|-)",
    re.IGNORECASE,
)
_IN_URL = re.compile(r"(?<=://)([^/@\s:]*):([^@/\s]+)(?=@)")
# What comes from whoever applies differs from one shell to the next, and is no change of the file.
_IGNORED = frozenset({"inherited", "name"})
_SCALES = frozenset({"replicas", "max_replicas"})


class Effect(StrEnum):
    """What a change means for the instances of a service."""

    CREATE = "create"
    ROLL = "roll"  # every instance is replaced by one of a new revision
    SCALE = "scale"  # only their number changes
    UPDATE = "update"  # takes effect on the running ones
    REMOVE = "remove"


@dataclass(frozen=True, kw_only=True)
class FieldChange:
    """One field, ``environment.DEBUG`` or ``scale``, as text; ``None``: not there."""

    path: str
    before: str | None
    after: str | None


@dataclass(frozen=True, kw_only=True)
class ServiceChange:
    """All that changes in one service."""

    service: str
    effect: Effect
    fields: tuple[FieldChange, ...] = ()


def changes(before: ApplicationSpec | None, after: ApplicationSpec) -> tuple[ServiceChange, ...]:
    """
    The services that differ, in the order of ``after``, then those that go.

    ``before`` is ``None`` when nothing was applied yet.
    """
    old = before.services if before is not None else {}
    found = []
    for name, spec in after.services.items():
        if name not in old:
            found.append(ServiceChange(service=name, effect=Effect.CREATE, fields=_new(spec)))
        elif fields := tuple(_differences(old[name], spec)):
            found.append(ServiceChange(service=name, effect=_effect(old[name], spec), fields=fields))
    gone = [name for name in old if name not in after.services]
    return (*found, *(ServiceChange(service=name, effect=Effect.REMOVE) for name in gone))


def looks_secret(name: str) -> bool:
    """Whether a variable of this name had better not be shown."""
    return bool(_SECRET.search(name))


def _effect(before: ServiceSpec, after: ServiceSpec) -> Effect:
    if before.revision_hash() != after.revision_hash():
        return Effect.ROLL
    old, new = asdict(before), asdict(after)
    differing = {name for name in new if name not in _IGNORED and old[name] != new[name]}
    return Effect.SCALE if differing <= _SCALES else Effect.UPDATE


def _new(spec: ServiceSpec) -> tuple[FieldChange, ...]:
    """What sets a new service apart from one with nothing but defaults."""
    return tuple(_differences(ServiceSpec(name=spec.name), spec))


def _differences(before: ServiceSpec, after: ServiceSpec) -> Iterator[FieldChange]:
    old, new = _flat(asdict(before)), _flat(asdict(after))
    for path in sorted(old.keys() | new.keys()):
        if path.partition(".")[0] in _IGNORED or old.get(path) == new.get(path):
            continue
        secret = path.startswith("environment.") and looks_secret(path.partition(".")[2])
        yield FieldChange(path=path, before=_text(old.get(path), secret), after=_text(new.get(path), secret))


def _flat(value: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, inner in value.items():
        if isinstance(inner, Mapping):
            found.update(_flat(inner, f"{prefix}{key}."))
        else:
            found[prefix + key] = inner
    return found


def _text(value: Any, secret: bool) -> str | None:
    if value is None or value == ():
        return None
    if secret:
        return MASK
    return _IN_URL.sub(rf"\1:{MASK}", _plain(value))


def _plain(value: Any) -> str:
    if isinstance(value, tuple | list):
        return " ".join(_plain(item) for item in value)
    if isinstance(value, Mapping):
        return ", ".join(f"{key}={_plain(inner)}" for key, inner in value.items() if inner is not None)
    return str(value).lower() if isinstance(value, bool) else str(value)
