"""Keys on the wire: entries, changes and transactions as JSON, and what the store takes for them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from unisono.api.state.wire import value_of, value_text
from unisono.state.watching import Changes
from unisono.store import base
from unisono.store.base import Entry


@dataclass(frozen=True, kw_only=True)
class EntryView:
    """A key as it was last changed; ``value`` is base64, ``created`` and ``modified`` are revisions."""

    key: str
    value: str
    created: int
    modified: int


@dataclass(frozen=True, kw_only=True)
class ListingView:
    """Entries in the order of their keys; with ``more``, go on ``after`` the last at this ``revision``."""

    entries: list[EntryView]
    revision: int
    more: bool


@dataclass(frozen=True, kw_only=True)
class HistoryView:
    """What a key has been since it was last made, the newest first."""

    entries: list[EntryView]


@dataclass(frozen=True, kw_only=True)
class WrittenView:
    """Whether the compares held, and the revision after it."""

    succeeded: bool
    revision: int


@dataclass(frozen=True, kw_only=True)
class ChangeView:
    """One key's change; without ``value`` it was removed."""

    kind: Literal["put", "delete"]
    key: str
    revision: int
    value: str | None = None
    created: int | None = None


@dataclass(frozen=True, kw_only=True)
class ChangesView:
    """All that changed at one revision, or all there is."""

    revision: int
    changes: list[ChangeView]


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """One condition: ``created`` or ``modified`` (a revision, 0: there is none) or ``value`` (base64)."""

    key: str
    created: int | None = None
    modified: int | None = None
    value: str | None = None


@dataclass(frozen=True, kw_only=True)
class Change:
    """One change: ``put`` or ``delete`` names the key; ``value`` is base64."""

    put: str | None = None
    delete: str | None = None
    value: str = ""
    ttl_ms: Annotated[int | None, Field(ge=1)] = None
    prefix: Annotated[bool, Field(description="Delete all keys that begin so.")] = False


@dataclass(frozen=True, kw_only=True)
class Transaction:
    """Do ``success`` if every compare holds, else ``failure``, at one revision."""

    compare: tuple[Comparison, ...] = ()
    success: tuple[Change, ...] = ()
    failure: tuple[Change, ...] = ()
    request_id: str | None = None


def entry_view(entry: Entry) -> EntryView:
    """An entry."""
    return EntryView(
        key=entry.key, value=value_text(entry.value), created=entry.created, modified=entry.modified
    )


def changes_view(changes: Changes) -> ChangesView:
    """All changes of one revision."""
    views = [
        ChangeView(kind="delete", key=event.key, revision=event.revision)
        if event.entry is None
        else ChangeView(
            kind="put",
            key=event.key,
            revision=event.revision,
            value=value_text(event.entry.value),
            created=event.entry.created,
        )
        for event in changes.events
    ]
    return ChangesView(revision=changes.revision, changes=views)


def keys_written(transaction: Transaction) -> list[str]:
    """What a transaction may change, whichever of its lists is done."""
    changes = (*transaction.success, *transaction.failure)
    return [name for change in changes for name in (change.put, change.delete) if name is not None]


def compare_of(written: Comparison) -> base.Compare:
    """
    What the store compares.

    Raises:
        ValueError: It says none or several of created, modified and value, or a value that is not base64.
    """
    given = {
        base.Field.CREATED: written.created,
        base.Field.MODIFIED: written.modified,
        base.Field.VALUE: None if written.value is None else value_of(written.value),
    }
    named = [(field, target) for field, target in given.items() if target is not None]
    if len(named) != 1:
        raise ValueError(f"compare of {written.key!r}: exactly one of created, modified and value is right")
    field, target = named[0]
    return base.Compare(key=written.key, field=field, target=target)


def operation_of(written: Change, lease: int | None) -> base.Put | base.Delete:
    """
    What the store does; ``lease`` is for a key that is put.

    Raises:
        ValueError: It says none or both of put and delete, or what does not go with them.
    """
    if (written.put is None) == (written.delete is None):
        raise ValueError("a change has either put or delete, with the key")
    if written.put is not None:
        if written.prefix:
            raise ValueError(f"put {written.put!r}: prefix is for delete")
        return base.Put(key=written.put, value=value_of(written.value), lease=lease)
    assert written.delete is not None  # noqa: S101 - one of the two is there
    if written.value or written.ttl_ms is not None:
        raise ValueError(f"delete {written.delete!r}: value and ttl_ms are for put")
    return base.Delete(key=written.delete, prefix=written.prefix)
