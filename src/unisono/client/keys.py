"""
Keys with values that all instances of an application share: read, write, look back, watch.

    await client.kv.put("stock/book", b"41", expected=0)
    found = await client.kv.get("stock/book")

Writes are linearizable and durable; how fresh a read must be, each reader says. A :class:`Session` sees its
own writes and never looks back, across services. Every write bears a request id, so it is repeated while its
outcome is unknown, and has one effect. The twin without asyncio is ``client.sync.kv``.
Pure: what is asked, and what the answers say; the faces are in :mod:`unisono.client.keyvalue`.
"""

from __future__ import annotations

import base64
import json
import secrets
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import quote

from unisono.client.insisting import insist
from unisono.client.questions import Ask, ServerSent, Steps, Told

Consistency = Literal["linearizable", "session", "bounded", "eventual"]

NOT_FOUND = 404
TOKEN = "consistency-token"  # noqa: S105 - the name of a header
_TOKEN_BYTES = 25  # version, revision, signature: as unisono.state.tokens makes them


@dataclass(frozen=True)
class Value:
    """A key's value, and the revisions that made the key and last changed it."""

    key: str
    value: bytes
    revision: int
    created: int


@dataclass(frozen=True)
class Listing:
    """Entries in the order of their keys; with ``more``, go on ``after`` the last, at this ``revision``."""

    entries: tuple[Value, ...]
    revision: int
    more: bool


@dataclass(frozen=True)
class Written:
    """Whether the compares of a transaction held, and the revision after it."""

    succeeded: bool
    revision: int


@dataclass(frozen=True)
class Change:
    """One key's change; ``value`` is ``None`` when it was removed."""

    key: str
    revision: int
    value: bytes | None


@dataclass(frozen=True)
class Changes:
    """All that changed at one revision; with ``resync`` all there is: what is not here does not exist."""

    revision: int
    changes: tuple[Change, ...]
    resync: bool


@dataclass(frozen=True)
class Compare:
    """A condition: exactly one of ``created`` and ``modified`` (0: there is no such key) and ``value``."""

    key: str
    created: int | None = None
    modified: int | None = None
    value: bytes | None = None


@dataclass(frozen=True)
class Put:
    """Set a key; with ``ttl``, for so many seconds."""

    key: str
    value: bytes
    ttl: float | None = None


@dataclass(frozen=True)
class Delete:
    """Remove a key, or with ``prefix`` all keys that begin so."""

    key: str
    prefix: bool = False


class Session:
    """
    What its bearer has seen. Within it reads see all that it wrote and never anything older than it has read.

    ``token`` may be passed on to another service of the application, which goes on from there.
    """

    def __init__(self, token: str | None = None) -> None:
        self.token = token
        self._revision = (token and revision_of(token)) or 0

    def saw(self, token: str, revision: int) -> None:
        """Take an answer in, unless one that came before it tells of more."""
        if revision >= self._revision:
            self.token, self._revision = token, revision

    @property
    def revision(self) -> int | None:
        """The revision that it has seen; ``None``: none yet, or its token does not tell."""
        return self._revision or None


def revision_of(token: str) -> int | None:
    """The revision that the bearer of a token has seen, if it is one of ours; a node checks that it is."""
    try:
        packed = base64.b64decode(token.encode("ascii"), altchars=b"-_", validate=True)
    except ValueError:
        return None
    known = len(packed) == _TOKEN_BYTES and packed[0] == 1
    return int.from_bytes(packed[1:9], "big") if known else None


def current_session() -> Session | None:
    """The session in which this runs."""
    return _session.get()


_session: ContextVar[Session | None] = ContextVar("unisono-session", default=None)


@contextmanager
def session(token: str | None = None) -> Iterator[Session]:
    """Let reads in this block, and in tasks that it starts, never look back behind what they have seen."""
    made = Session(token)
    before = _session.set(made)
    try:
        yield made
    finally:
        _session.reset(before)


# -- what is asked -------------------------------------------------------------------------------------


def get(
    key: str,
    *,
    consistency: Consistency | None = None,
    max_staleness: float | None = None,
    revision: int | None = None,
) -> Steps[Value | None]:
    """The value of ``key``, or ``None``; see :meth:`Kv.get`."""
    wanted = consistency or ("linearizable" if _session.get() is None else "session")
    query: dict[str, str] = {"consistency": wanted} if wanted != "linearizable" else {}
    if max_staleness is not None:
        query["max_staleness_ms"] = str(round(max_staleness * 1000))
    if revision is not None:
        query["revision"] = str(revision)
    ask = Ask(method="GET", path=_path(key), query=tuple(query.items()), headers=_seen())
    told = yield from insist(ask, but=(NOT_FOUND,))
    _note(told)
    if told.status == NOT_FOUND:
        return None
    return Value(
        key=key,
        value=told.content if isinstance(told.content, bytes) else b"",
        revision=int(told.headers["etag"].strip('"')),
        created=int(told.headers["unisono-created"]),
    )


def write(ask: Ask, *, expected: int | None, request_id: str | None, fence: str | None) -> Steps[int]:
    """Put or delete; the revision after it."""
    headers = [("Idempotency-Key", request_id or new_request_id())]
    if expected is not None:
        headers.append(("If-None-Match", "*") if expected == 0 else ("If-Match", f'"{expected}"'))
    if fence is not None:
        headers.append(("Unisono-Fence", fence))
    asked = Ask(
        method=ask.method, path=ask.path, raw=ask.raw, query=ask.query, headers=(*ask.headers, *headers)
    )
    told = yield from insist(asked)
    _note(told)
    return int(told.content["revision"])


def put(key: str, value: bytes | str, *, ttl: float | None = None) -> Ask:
    """What sets a key."""
    raw = value.encode() if isinstance(value, str) else bytes(value)
    query = () if ttl is None else (("ttl_ms", str(max(1, round(ttl * 1000)))),)
    return Ask(method="PUT", path=_path(key), raw=raw, query=query)


def delete(key: str) -> Ask:
    """What removes a key."""
    return Ask(method="DELETE", path=_path(key))


def scan(prefix: str, *, after: str, limit: int, revision: int | None) -> Steps[Listing]:
    """Entries by key; see :meth:`Kv.scan`."""
    query = [("prefix", prefix), ("after", after), ("limit", str(limit))]
    if revision is not None:
        query.append(("revision", str(revision)))
    told = yield from insist(Ask(method="GET", path="/v1/kv", query=tuple(query), headers=_seen()))
    _note(told)
    found = told.content
    return Listing(
        entries=tuple(map(_value, found["entries"])), revision=found["revision"], more=found["more"]
    )


def history(key: str, *, limit: int) -> Steps[tuple[Value, ...]]:
    """What a key has been; see :meth:`Kv.history`."""
    query = (("key", key), ("limit", str(limit)))
    told = yield from insist(Ask(method="GET", path="/v1/kv:history", query=query))
    return tuple(map(_value, told.content["entries"]))


def transact(
    compare: Iterable[Compare],
    success: Iterable[Put | Delete],
    failure: Iterable[Put | Delete],
    *,
    request_id: str | None,
    fence: str | None,
) -> Steps[Written]:
    """Compare and change at one revision; see :meth:`Kv.transact`."""
    body = {
        "compare": [_compared(each) for each in compare],
        "success": [_changed(each) for each in success],
        "failure": [_changed(each) for each in failure],
        "request_id": request_id or new_request_id(),
    }
    headers = () if fence is None else (("Unisono-Fence", fence),)
    told = yield from insist(Ask(method="POST", path="/v1/kv:txn", body=body, headers=headers))
    _note(told)
    return Written(succeeded=told.content["succeeded"], revision=told.content["revision"])


def new_request_id() -> str:
    """An id that no other request has."""
    return secrets.token_hex(16)


class Watching:
    """
    One watch over as many connections as it takes: what to ask for next, and what its events tell.

    Pure. A node that is asked anew does not know what was shown before, so a resync is completed here.
    """

    def __init__(self, prefix: str, after: int | None) -> None:
        self._prefix = prefix
        self._last = after
        self._shown: set[str] = set()

    def ask(self) -> Ask:
        """For what has not been seen yet."""
        query = [("prefix", self._prefix)]
        if self._last is not None:
            query.append(("after", str(self._last)))
        headers = (("Accept", "text/event-stream"),)
        return Ask(method="GET", path="/v1/watch", query=tuple(query), headers=headers)

    def take(self, event: ServerSent) -> Changes | None:
        """What an event tells; ``None`` if that was told before."""
        said = json.loads(event.data)
        revision, resync = int(said["revision"]), event.kind == "resync"
        if not resync and self._last is not None and revision <= self._last:
            return None
        told = {each["key"]: _change(each) for each in said["changes"]}
        if resync:
            for key in sorted(self._shown - told.keys()):
                told[key] = Change(key=key, revision=revision, value=None)
        for key, change in told.items():
            (self._shown.discard if change.value is None else self._shown.add)(key)
        self._last = revision
        return Changes(revision=revision, changes=tuple(told.values()), resync=resync)


def _change(said: dict[str, Any]) -> Change:
    value = None if said["kind"] == "delete" else base64.b64decode(said.get("value") or "")
    return Change(key=said["key"], revision=said["revision"], value=value)


def _path(key: str) -> str:
    return "/v1/kv/" + quote(key)


def _seen() -> tuple[tuple[str, str], ...]:
    own = _session.get()
    return () if own is None or own.token is None else (("Consistency-Token", own.token),)


def _note(told: Told) -> None:
    """Whatever was answered has been seen; the answer's token covers the one that was sent."""
    own = _session.get()
    if own is not None and (token := told.headers.get(TOKEN)):
        own.saw(token, int(told.headers["unisono-revision"]))


def _value(entry: dict[str, Any]) -> Value:
    return Value(
        key=entry["key"],
        value=base64.b64decode(entry["value"]),
        revision=entry["modified"],
        created=entry["created"],
    )


def _compared(compare: Compare) -> dict[str, Any]:
    said: dict[str, Any] = {"key": compare.key}
    if compare.created is not None:
        said["created"] = compare.created
    if compare.modified is not None:
        said["modified"] = compare.modified
    if compare.value is not None:
        said["value"] = base64.b64encode(compare.value).decode()
    return said


def _changed(operation: Put | Delete) -> dict[str, Any]:
    if isinstance(operation, Delete):
        return {"delete": operation.key, "prefix": operation.prefix}
    said: dict[str, Any] = {"put": operation.key, "value": base64.b64encode(operation.value).decode()}
    if operation.ttl is not None:
        said["ttl_ms"] = max(1, round(operation.ttl * 1000))
    return said
