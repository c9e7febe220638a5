"""
The promise that every store keeps: keys with values, one order of changes, watches and leases.

Nothing here knows an engine; :mod:`unisono.store.sqlite` and :mod:`unisono.store.etcd` do. The words and
meanings are etcd's: a store has one *revision*, a whole number that rises with each transaction that
changes something, by one where nobody else shares the engine; an entry remembers the revision that made it
and the one that last changed it. All operations are linearizable.

Errors, sorted by what the caller does next::

    StoreError
    ├── NotDone        did not happen: may be tried again
    │   ├── Compacted  that revision is gone: scan, then watch from the scan's revision
    │   └── LeaseEnded that lease is over for good: what was held by it is lost
    ├── MaybeDone      may have happened: read before trying again
    └── Broken         the store can't go on (disk full, damaged, newer version): an operator must act
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple, Protocol

MAX_KEY_BYTES = 1024
MAX_VALUE_BYTES = 1024 * 1024
MAX_OPERATIONS = 1024  # in one transaction: its compares and both of its lists, counted together
MAX_TRANSACTION_BYTES = 8 * 1024 * 1024  # keys and values of all of these
MAX_TTL = 365 * 86_400.0  # seconds, of a lease


class StoreError(Exception):
    """Root of all errors of a store."""


class NotDone(StoreError):
    """The operation had no effect."""


class Compacted(NotDone):
    """The revision asked for has been compacted; ``revision`` is the oldest one still there."""

    def __init__(self, revision: int) -> None:
        super().__init__(f"compacted: the oldest revision still there is {revision}")
        self.revision = revision


class LeaseEnded(NotDone):
    """A lease named does not exist or has ended, and won't come back; ``lease`` is its id."""

    def __init__(self, lease: int) -> None:
        super().__init__(f"lease {lease} does not exist or has ended")
        self.lease = lease


class MaybeDone(StoreError):
    """The outcome is unknown: it may have happened."""


class Broken(StoreError):
    """The store can't serve; the message says why and what an operator can do."""


class Entry(NamedTuple):  # a node that starts reads thousands, and a dataclass takes five times as long
    """A key and its value as of some revision."""

    key: str
    value: bytes
    created: int  # revision that made the key
    modified: int  # revision that last changed it
    lease: int | None = None


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """The entries under a prefix as of ``revision``, in the order of their keys."""

    revision: int
    entries: tuple[Entry, ...]


class Field(StrEnum):
    """What a compare looks at; a key that does not exist has created = modified = 0 and no value."""

    CREATED = "created"
    MODIFIED = "modified"
    VALUE = "value"


@dataclass(frozen=True, kw_only=True)
class Compare:
    """
    A condition: ``field`` of ``key`` equals ``target`` (a revision, or a value).

    A value compared with a key that does not exist never holds, not even an empty one.
    """

    key: str
    field: Field
    target: int | bytes


@dataclass(frozen=True, kw_only=True)
class Put:
    """Set a key; with ``lease`` it goes when that lease ends."""

    key: str
    value: bytes
    lease: int | None = None


@dataclass(frozen=True, kw_only=True)
class Delete:
    """
    Remove a key, or with ``prefix`` all keys that begin with it; removing nothing is no error.

    Only as a prefix may ``key`` be empty: then it means all keys.
    """

    key: str
    prefix: bool = False


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """
    What a transaction did.

    ``succeeded`` tells whether all compares held (then ``success`` ran, else ``failure``);
    ``revision`` is the store's revision after it: its own if it changed something.
    """

    succeeded: bool
    revision: int


@dataclass(frozen=True, kw_only=True)
class Event:
    """One change of one key; ``entry`` is ``None`` when the key was removed."""

    key: str
    revision: int
    entry: Entry | None


@dataclass(frozen=True, kw_only=True)
class Batch:
    """
    All events of one revision under the watched prefix, in the order of the transaction.

    Without events it is a *mark*, which only watches that ask for marks have.
    """

    revision: int
    events: tuple[Event, ...]


class Store(Protocol):
    """
    Where truth is kept.

    Cancelling an operation leaves it either done or not done (MaybeDone); cancelling a watch leaves
    nothing behind. After :meth:`close` every operation raises Broken. A key is 1 to MAX_KEY_BYTES bytes
    of UTF-8; a prefix may also be empty. Whatever breaks a limit raises ValueError and changes nothing.
    """

    async def get(self, key: str) -> Entry | None:
        """The entry of ``key`` now, or ``None``."""

    async def scan(self, prefix: str, *, revision: int | None = None) -> Snapshot:
        """
        All entries whose key begins with ``prefix``, now or as of ``revision``.

        Raises:
            Compacted: ``revision`` is no longer kept.
            ValueError: ``revision`` lies in the future.
        """

    async def transact(
        self,
        *,
        compares: Sequence[Compare] = (),
        success: Sequence[Put | Delete] = (),
        failure: Sequence[Put | Delete] = (),
    ) -> Outcome:
        """
        Run ``success`` if every compare holds, else ``failure``, at one revision; durable on return.

        Raises:
            ValueError: A key, value or list is over its limit, or one key is changed twice in a list.
            LeaseEnded: A lease named in a put does not exist or has ended.
            NotDone: The store refused, or could not be reached.
            MaybeDone: The connection broke before the answer, or the disk failed while it was made sure.
            Broken: The disk is full or damaged; nothing was changed.
        """

    def watch(
        self, prefix: str, *, after: int, marks: bool = False, without: tuple[str, ...] = ()
    ) -> AsyncIterator[Batch]:
        """
        Every change under ``prefix`` with a revision above ``after``, without gap or repeat.

        Changes of keys that begin with one of ``without`` are left out, and cost such a watch nothing: what
        is written there may be far more than the rest.

        With ``marks`` it also says how far it is: a batch without events means that all changes up to its
        revision have been told. Whatever revision this store has answered to anyone, a batch or mark of at
        least that revision follows soon, also when nothing under ``prefix`` changes any more.

        Cancelling one step, as ``asyncio.timeout`` does, loses nothing: the next step goes on from there.
        A watch that is slow holds nobody up. It ends when the store is closed.

        Raises (while iterating):
            Compacted: changes after ``after`` are no longer kept.
        """

    async def grant(self, ttl: float) -> int:
        """
        A new lease of ``ttl`` seconds, above 0 and up to MAX_TTL; returns its id, which is never used again.

        When it ends, all keys put with it and not put otherwise since are removed at one revision. A store
        that was closed, or died, gives all its leases their full time anew when it is opened.
        """

    async def keep_alive(self, lease: int) -> None:
        """
        Start the lease's time anew.

        Raises:
            LeaseEnded: It has ended, or was never granted.
            MaybeDone: The store could not be reached; the lease may end at its time, or may live on.
        """

    async def revoke(self, lease: int) -> None:
        """End a lease and remove its keys; ending one that has ended is no error."""

    async def compact(self, revision: int) -> None:
        """
        Forget what only revisions below ``revision`` need; entries as of ``revision`` stay.

        Afterwards a scan below ``revision``, or a watch after less than it, raises Compacted. Compacting
        what has been compacted is no error.

        Raises:
            ValueError: ``revision`` lies in the future, or is negative.
        """

    async def close(self) -> None:
        """Finish what has been accepted, then let go of everything."""
