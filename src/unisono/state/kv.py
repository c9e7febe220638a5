"""
Keys with values, shared by all instances: read, write, look back, watch.

Each namespace (an application's, usually) has its own keys. Writes are linearizable and durable; how fresh
a read must be, each reader says (:class:`Consistency`). Revisions are the store's: one order of all changes
in all namespaces.

How a request is done once is in :mod:`.requests`, what a fencing token guards in :mod:`.guarded`, how a
watch survives compaction in :mod:`.watching`, what a reader carries along in :mod:`.tokens`, what was read
last in :mod:`.cache`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from unisono.state.cache import Cache, Seen
from unisono.state.errors import fenced
from unisono.state.guarded import Unmet, run
from unisono.state.leases import Clock, LeasePool, monotonic
from unisono.state.names import END, check_key, check_prefix, namespace_prefix
from unisono.state.requests import Request, Requests
from unisono.state.tokens import Tokens
from unisono.state.watching import Changes, ResyncingWatch
from unisono.store.base import (
    MAX_VALUE_BYTES,
    Compacted,
    Compare,
    Delete,
    Entry,
    Field,
    NotDone,
    Outcome,
    Put,
    Store,
)

MAX_OPERATIONS = 128  # in one transaction: its compares and both of its lists
MAX_LISTING = 10_000  # entries of one scan
MAX_HISTORY = 1000
EVENTUAL_STALENESS = 5.0
"""Seconds that a read may lag at ``eventual``, and at ``session`` behind what others wrote."""


class Consistency(StrEnum):
    """How fresh a read must be. Writes know one level only, the first."""

    LINEARIZABLE = "linearizable"  # all that was acknowledged before it began
    SESSION = "session"  # at least what the token's bearers have read and written
    BOUNDED = "bounded"  # at most so many seconds old
    EVENTUAL = "eventual"  # at most EVENTUAL_STALENESS old; may be older than what was read before


@dataclass(frozen=True, kw_only=True)
class Read:
    """An entry, or ``None`` where there is none; ``token`` is for the reader's next calls."""

    entry: Entry | None
    revision: int
    token: str


@dataclass(frozen=True, kw_only=True)
class Listing:
    """Entries in the order of their keys; with ``more``, go on after the last one at this ``revision``."""

    entries: tuple[Entry, ...]
    revision: int
    token: str
    more: bool


@dataclass(frozen=True, kw_only=True)
class Written:
    """Whether the compares held, the revision after it, and the token for the writer's next calls."""

    succeeded: bool
    revision: int
    token: str


class Kv:
    """
    One namespace's keys. Keys are 1 to 512 bytes of UTF-8 without control characters, values up to 1 MiB.

    ``fences`` of a write are the compares of what the writer holds (:attr:`.locks.Held.fence`): unless all
    of them hold, nothing happens and Fenced is raised. ``request_id`` makes a write safe to repeat: within
    :data:`.requests.REQUEST_TTL` it has one effect, and each time the first answer.

    Every write raises:
        MaybeDone: It may have happened. With a request id, repeat it; without one, read first.
        NotDone: It did not happen (Fenced, RequestReused: see :mod:`.errors`).
        ValueError: Something is over its limit or malformed; the message says what.
    """

    def __init__(self, store: Store, namespace: str, tokens: Tokens, *, clock: Clock = monotonic) -> None:
        home = namespace_prefix(namespace)
        self._store = store
        self._namespace = namespace
        self._tokens = tokens
        self._clock = clock
        self._keys = f"{home}kv/"
        self._leases = LeasePool(store, clock=clock)
        self._requests = Requests(store, f"{home}request/", self._leases)
        self._cache = Cache()

    async def get(
        self,
        key: str,
        *,
        consistency: Consistency = Consistency.LINEARIZABLE,
        token: str | None = None,
        max_staleness: float | None = None,
    ) -> Read:
        """
        The entry of ``key``.

        Args:
            token: What the reader has seen; the answer is at no level older than that.
            max_staleness: Seconds, at least 0; at level ``bounded``, and only there.

        Raises:
            NotDone: The store is older than the token: it was restored from an earlier state.
            ValueError: The key or token is malformed, or the arguments contradict each other.
        """
        if (max_staleness is not None) != (consistency is Consistency.BOUNDED):
            raise ValueError("max_staleness is for consistency 'bounded', which needs it")
        if max_staleness is not None and not max_staleness >= 0:
            raise ValueError(f"max_staleness is {max_staleness} s, must be at least 0")
        raw = self._raw(key)
        least = 0 if token is None else self._tokens.read(self._namespace, token)
        if consistency is not Consistency.LINEARIZABLE:
            limit = EVENTUAL_STALENESS if max_staleness is None else max_staleness
            cached = self._cache.get(raw)
            # A session without a token has seen nothing yet; it begins with the newest.
            fresh = token is not None or consistency is not Consistency.SESSION
            if cached and fresh and cached.revision >= least and self._clock() - cached.asked <= limit:
                return self._read(cached)
        asked = self._clock()
        snapshot = await self._store.scan(raw)
        self._check_not_behind(snapshot.revision, least)
        entry = next((self._user(entry) for entry in snapshot.entries), None)
        seen = Seen(entry=entry, revision=snapshot.revision, asked=asked)
        self._cache.put(raw, seen)
        return self._read(seen)

    async def at(self, key: str, revision: int, *, token: str | None = None) -> Read:
        """
        The entry of ``key`` as of ``revision``; who looks back has seen no less than before.

        Raises:
            Compacted: That is no longer kept.
            ValueError: The key or token is malformed, or ``revision`` lies in the future.
        """
        least = 0 if token is None else self._tokens.read(self._namespace, token)
        snapshot = await self._store.scan(self._raw(key), revision=revision)
        entry = next((self._user(entry) for entry in snapshot.entries), None)
        return Read(
            entry=entry, revision=revision, token=self._tokens.make(self._namespace, max(least, revision))
        )

    async def scan(
        self,
        prefix: str = "",
        *,
        revision: int | None = None,
        after: str = "",
        limit: int = MAX_LISTING,
        token: str | None = None,
    ) -> Listing:
        """
        The entries whose key begins with ``prefix`` and comes after ``after``, now or as of ``revision``.

        Raises:
            Compacted: ``revision`` is no longer kept.
            NotDone: The store is older than the token.
            ValueError: An argument is malformed or out of range.
        """
        if not 1 <= limit <= MAX_LISTING:
            raise ValueError(f"limit is {limit}, must lie between 1 and {MAX_LISTING}")
        least = 0 if token is None else self._tokens.read(self._namespace, token)
        first = self._keys + check_prefix(after) + END if after else ""
        snapshot = await self._store.scan(self._keys + check_prefix(prefix), revision=revision)
        if revision is None:
            self._check_not_behind(snapshot.revision, least)
        found = [entry for entry in snapshot.entries if entry.key > first]
        return Listing(
            entries=tuple(self._user(entry) for entry in found[:limit]),
            revision=snapshot.revision,
            token=self._tokens.make(self._namespace, max(least, snapshot.revision)),
            more=len(found) > limit,
        )

    async def history(self, key: str, *, limit: int = 100) -> tuple[Entry, ...]:
        """
        What ``key`` has been since it was last made, the newest first; empty if it does not exist.

        At most ``limit`` entries, and none that has been compacted. What was before a removal is found by
        a scan as of an older revision.

        Raises:
            ValueError: The key is malformed, or ``limit`` outside 1 to MAX_HISTORY.
        """
        if not 1 <= limit <= MAX_HISTORY:
            raise ValueError(f"limit is {limit}, must lie between 1 and {MAX_HISTORY}")
        raw = self._raw(key)
        found: list[Entry] = []
        revision: int | None = None
        while len(found) < limit:
            try:
                snapshot = await self._store.scan(raw, revision=revision)
            except Compacted:
                break
            if not snapshot.entries:
                break
            entry = self._user(snapshot.entries[0])
            found.append(entry)
            if entry.modified == entry.created:
                break
            revision = entry.modified - 1
        return tuple(found)

    async def put(
        self,
        key: str,
        value: bytes,
        *,
        expected: int | None = None,
        ttl: float | None = None,
        request_id: str | None = None,
        fences: Sequence[Compare] = (),
    ) -> Written:
        """
        Set ``key``.

        Args:
            expected: Only if the key was last changed at this revision; 0: only if it does not exist.
            ttl: Seconds after which the key goes, at least; up to a sixteenth more.
        """
        lease = None if ttl is None else await self.lease(ttl)
        put = Put(key=key, value=value, lease=lease)
        return await self._write_one(put, expected, request_id, fences)

    async def delete(
        self,
        key: str,
        *,
        expected: int | None = None,
        request_id: str | None = None,
        fences: Sequence[Compare] = (),
    ) -> Written:
        """Remove ``key``; removing what is not there is no error. Arguments as of :meth:`put`."""
        return await self._write_one(Delete(key=key), expected, request_id, fences)

    async def transact(
        self,
        *,
        compares: Sequence[Compare] = (),
        success: Sequence[Put | Delete] = (),
        failure: Sequence[Put | Delete] = (),
        request_id: str | None = None,
        fences: Sequence[Compare] = (),
    ) -> Written:
        """Do ``success`` if every compare holds, else ``failure``, at one revision."""
        count = len(compares) + len(success) + len(failure)
        if count > MAX_OPERATIONS:
            raise ValueError(f"a transaction has {count} operations; at most {MAX_OPERATIONS} are allowed")
        if len(fences) > MAX_OPERATIONS:
            raise ValueError(f"a write has {len(fences)} fences; at most {MAX_OPERATIONS} are allowed")
        compares = [replace(compare, key=self._raw(compare.key)) for compare in compares]
        success = [self._raw_operation(operation) for operation in success]
        failure = [self._raw_operation(operation) for operation in failure]
        result: Outcome | Unmet
        if request_id is not None:
            request = Request(
                id=request_id, guards=fences, compares=compares, success=success, failure=failure
            )
            result = await self._requests.run(request)
        elif fences:
            result = await run(
                self._store, guards=fences, compares=compares, success=success, failure=failure
            )
        else:
            result = await self._store.transact(compares=compares, success=success, failure=failure)
        if isinstance(result, Unmet):
            raise fenced(result.guard)
        return Written(
            succeeded=result.succeeded,
            revision=result.revision,
            token=self._tokens.make(self._namespace, result.revision),
        )

    async def lease(self, ttl: float) -> int:
        """
        A lease for a Put in a transaction, by which its key lives for ``ttl`` seconds, or a little longer.

        Shared with others: never revoke or renew it.
        """
        return await self._leases.lease(ttl)

    def watch(self, prefix: str = "", *, after: int | None = None) -> KvWatch:
        """
        Every change of keys that begin with ``prefix``, from after revision ``after`` on, or from all there
        is now. No gap and no repeat; where a gap can't be helped, a resync.

        Raises:
            ValueError: An argument is malformed or negative.
        """
        if after is not None and after < 0:
            raise ValueError(f"a watch after revision {after}; the least is 0")
        return KvWatch(ResyncingWatch(self._store, self._keys + check_prefix(prefix), after=after), self)

    async def _write_one(
        self, operation: Put | Delete, expected: int | None, request_id: str | None, fences: Sequence[Compare]
    ) -> Written:
        compares = []
        if expected is not None:
            compares.append(Compare(key=operation.key, field=Field.MODIFIED, target=expected))
        return await self.transact(
            compares=compares, success=[operation], request_id=request_id, fences=fences
        )

    def _raw(self, key: str) -> str:
        return self._keys + check_key(key) + END

    def _raw_operation(self, operation: Put | Delete) -> Put | Delete:
        if isinstance(operation, Delete) and operation.prefix:
            return replace(operation, key=self._keys + check_prefix(operation.key))
        if isinstance(operation, Put) and len(operation.value) > MAX_VALUE_BYTES:
            raise ValueError(
                f"the value of {operation.key!r} has {len(operation.value)} bytes; "
                f"at most {MAX_VALUE_BYTES} are allowed"
            )
        return replace(operation, key=self._raw(operation.key))

    def _user(self, entry: Entry) -> Entry:
        return entry._replace(key=self._user_key(entry.key))

    def _user_key(self, raw: str) -> str:
        return raw[len(self._keys) : -len(END)]

    def _user_changes(self, changes: Changes) -> Changes:
        events = tuple(
            replace(
                event,
                key=self._user_key(event.key),
                entry=None if event.entry is None else self._user(event.entry),
            )
            for event in changes.events
        )
        return replace(changes, events=events)

    def _read(self, seen: Seen) -> Read:
        token = self._tokens.make(self._namespace, seen.revision)
        return Read(entry=seen.entry, revision=seen.revision, token=token)

    def _check_not_behind(self, revision: int, least: int) -> None:
        if revision < least:
            raise NotDone(
                f"the token has seen revision {least}, the store is at {revision}: "
                "it was set back to an earlier state; leave the token out to start anew"
            )


class KvWatch:
    """An iterator over :class:`Changes` with the namespace's own keys; made by :meth:`Kv.watch`."""

    def __init__(self, watch: ResyncingWatch, kv: Kv) -> None:
        self._watch = watch
        self._kv = kv

    def __aiter__(self) -> KvWatch:
        return self

    async def __anext__(self) -> Changes:
        return self._kv._user_changes(await anext(self._watch))

    async def aclose(self) -> None:
        """Let go of it."""
        await self._watch.aclose()
