"""
What may be submitted: a transaction and its branches, checked when they are made.

Written by hand instead of with a schema: it runs once per transaction, whose cost counts. Which addresses
may be called is :mod:`.targets`' to know.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from json import JSONEncoder
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from pydantic_core import from_json, to_json

from unisono.transactions.errors import Invalid
from unisono.transactions.modes import OPERATIONS, QUESTION_BRANCH, Mode

MAX_GID_CHARACTERS = 100  # with cluster and branch it fits the 199 bytes of PostgreSQL's PREPARE TRANSACTION
MAX_BRANCH_ID_CHARACTERS = 40
MAX_BRANCHES = 100
MAX_URL_CHARACTERS = 2000
MAX_PAYLOAD_BYTES = 64 * 1024
MAX_PAYLOAD_DEPTH = (
    100  # within a record, and within an answer, it must stay below what a reader of JSON reads
)
MAX_CONTENT_BYTES = 640 * 1024  # of all branches: with what is noted of them they are one value of the store
MAX_TIMEOUT_MS = 86_400_000
DEFAULT_TIMEOUT_MS = 30_000

_NAME = re.compile(r"[A-Za-z0-9._-]+", re.ASCII)
_FIELDS = {"gid", "mode", "branches", "timeout_ms", "query_prepared"}
_BRANCH_FIELDS = {"id", "url", "payload", "after"}
_sorted = JSONEncoder(sort_keys=True).encode


class BranchSpec(NamedTuple):  # a restart makes thousands, and of a dataclass it takes twice as long
    """
    One participant's part: called at ``url``/OP with ``payload`` (any JSON).

    It goes forward after the branches named in ``after``, and is undone before them.
    """

    id: str
    url: str
    payload: Any = None
    after: tuple[str, ...] = ()

    @classmethod
    def of(cls, given: object, where: str) -> BranchSpec:
        """
        From JSON; ``where`` names it in errors.

        Raises:
            Invalid: A rule is broken.
        """
        if not isinstance(given, dict):
            raise Invalid(where, f"a branch is an object, found {_shown(given)}")
        _only(given, _BRANCH_FIELDS, where)
        id = check_name(given.get("id"), f"{where}.id", MAX_BRANCH_ID_CHARACTERS)
        if id == QUESTION_BRANCH:
            raise Invalid(f"{where}.id", f"{id} is kept for the initiator; take another")
        payload = given.get("payload")
        written = to_json(payload)
        size = len(written)
        if size > MAX_PAYLOAD_BYTES:
            raise Invalid(f"{where}.payload", f"has {size} bytes; at most {MAX_PAYLOAD_BYTES} are allowed")
        if written.count(b"[") + written.count(b"{") > MAX_PAYLOAD_DEPTH and _is_deep(payload):
            raise Invalid(f"{where}.payload", f"nests deeper than {MAX_PAYLOAD_DEPTH}; flatten it")
        if b"Infinity" in written:  # what 1e400 is read as, and nobody but us would read
            try:
                from_json(written, allow_inf_nan=False)
            except ValueError:
                raise Invalid(
                    f"{where}.payload", "has a number beyond 1.8e308; smaller ones are right"
                ) from None
        after = given.get("after") or ()
        if not isinstance(after, list | tuple) or not all(isinstance(other, str) for other in after):
            raise Invalid(f"{where}.after", f"a list of branch ids is right, found {_shown(after)}")
        return cls(
            id=id,
            url=check_url(given.get("url"), f"{where}.url"),
            payload=payload,
            after=tuple(dict.fromkeys(after)),
        )

    def content(self) -> list[Any]:
        """All of it, as JSON."""
        return [self.id, self.url, self.payload, list(self.after)]

    def size(self) -> int:
        """Bytes of all of it, written as JSON."""
        return len(to_json(self.content()))


@dataclass(frozen=True, kw_only=True, slots=True)
class Submission:
    """A transaction as it was asked for. Without branches it stays open for them until it is decided."""

    gid: str
    mode: Mode
    branches: tuple[BranchSpec, ...] = ()
    timeout_ms: int = DEFAULT_TIMEOUT_MS
    query_prepared: str | None = None

    @classmethod
    def of(cls, given: object) -> Submission:
        """
        From JSON; a gid that is not given is made.

        Raises:
            Invalid: A rule is broken; the error names the field.
        """
        if not isinstance(given, dict):
            raise Invalid("", f"a transaction is an object, found {_shown(given)}")
        _only(given, _FIELDS, "")
        mode = _mode(given.get("mode"))
        listed = given.get("branches") or []
        if not isinstance(listed, list):
            raise Invalid("branches", f"a list is right, found {_shown(listed)}")
        if len(listed) > MAX_BRANCHES:
            raise Invalid("branches", f"{len(listed)} branches; at most {MAX_BRANCHES} are allowed")
        branches = tuple([BranchSpec.of(one, f"branches[{n}]") for n, one in enumerate(listed)])
        check_graph(branches)
        check_size(branches)
        gid = given.get("gid")
        question = given.get("query_prepared")
        if OPERATIONS[mode].asks_back:
            if not branches:
                raise Invalid("branches", f"a {mode} has at least one branch from the start")
            question = check_url(question, "query_prepared")
        elif question is not None:
            raise Invalid("query_prepared", f"is for msg alone, found in a {mode}")
        return cls(
            gid=new_gid() if gid is None else check_name(gid, "gid", MAX_GID_CHARACTERS),
            mode=mode,
            branches=branches,
            timeout_ms=check_ms(given.get("timeout_ms", DEFAULT_TIMEOUT_MS), "timeout_ms", 1, MAX_TIMEOUT_MS),
            query_prepared=question,
        )

    def digest(self) -> str:
        """Equal for equal content, whatever the order of the fields was."""
        content = [self.mode, [b.content() for b in self.branches], self.timeout_ms, self.query_prepared]
        return blake2b(_sorted(content).encode(), digest_size=12).hexdigest()


def new_gid() -> str:
    """A UUIDv7 (RFC 9562), which tells when it was made: one too old to be remembered is known as such."""
    millis = time.time_ns() // 1_000_000
    chance = int.from_bytes(os.urandom(10), "big")
    number = millis << 80 | 0x7 << 76 | (chance >> 68) << 64 | 0b10 << 62 | chance & ((1 << 62) - 1)
    digits = f"{number:032x}"
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


_UUID7 = re.compile(r"([0-9a-f]{8})-([0-9a-f]{4})-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")


def made_at(gid: str) -> float | None:
    """When a gid was made, in seconds since the epoch; ``None`` for one that does not tell."""
    found = _UUID7.fullmatch(gid)
    return int(found[1] + found[2], 16) / 1000 if found else None


def check_graph(branches: Sequence[BranchSpec], known: Mapping[str, object] | None = None) -> None:
    """
    Refuse ids that come twice, orders that name nobody, and circles; ``known`` are there already.

    Raises:
        Invalid: One of these; a circle is named branch by branch.
    """
    by_id = {branch.id: branch for branch in branches}
    if len(by_id) < len(branches):
        ids = [branch.id for branch in branches]
        twice = next(id for id in ids if ids.count(id) > 1)
        raise Invalid("branches", f"the id {twice} is there twice; each branch needs its own")
    if not any(branch.after for branch in branches):
        return
    for number, branch in enumerate(branches):
        for other in branch.after:
            if other not in by_id and other not in (known or ()):
                raise Invalid(f"branches[{number}].after", f"there is no branch {other}")
    done: set[str] = set(known or ())
    left = dict(by_id)
    while left:
        free = [id for id, branch in left.items() if done.issuperset(branch.after)]
        if not free:
            raise Invalid("branches", f"after goes in a circle: {' after '.join(_circle(left))}")
        done.update(free)
        for id in free:
            del left[id]


def check_size(branches: Iterable[BranchSpec]) -> None:
    """Raise Invalid if all branches of a transaction together are more than is written down of one."""
    size = sum(branch.size() for branch in branches)
    if size > MAX_CONTENT_BYTES:
        raise Invalid(
            "branches", f"have {size} bytes together, as JSON; at most {MAX_CONTENT_BYTES} are allowed"
        )


def check_name(given: object, field: str, characters: int) -> str:
    """An id, if it is one; else Invalid."""
    if not isinstance(given, str) or not given or len(given) > characters or _NAME.fullmatch(given) is None:
        raise Invalid(field, f"1 to {characters} of A-Z a-z 0-9 . _ - are right, found {_shown(given)}")
    if given in (".", ".."):
        raise Invalid(field, f"{given} means a place in an address; take another")
    return given


def check_ms(given: object, field: str, least: int, most: int) -> int:
    """A whole number of milliseconds within bounds, both included; else Invalid."""
    if not isinstance(given, int) or isinstance(given, bool) or not least <= given <= most:
        raise Invalid(field, f"a whole number from {least} to {most} is right, found {_shown(given)}")
    return given


def check_url(given: object, field: str) -> str:
    """An absolute HTTP address without user, query and fragment; else Invalid."""
    right = "http://SERVICE/PATH is right"
    if not isinstance(given, str) or not given.isascii() or not given.isprintable() or " " in given:
        raise Invalid(field, f"{right}, found {_shown(given)}")
    if len(given) > MAX_URL_CHARACTERS:
        raise Invalid(field, f"has {len(given)} characters; at most {MAX_URL_CHARACTERS} are allowed")
    try:
        parts = urlsplit(given)
        _ = parts.port
    except ValueError as error:
        raise Invalid(field, f"{right}; {error}") from error
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise Invalid(field, f"{right}, found {_shown(given)}")
    if parts.username is not None or parts.query or parts.fragment:
        raise Invalid(
            field, f"no user, query or fragment may be in it, as /OP is appended, found {_shown(given)}"
        )
    return given.rstrip("/")


def _is_deep(payload: object) -> bool:
    """Whether lists and objects stand in each other more often than a payload's may."""
    level = [payload]
    for _ in range(MAX_PAYLOAD_DEPTH + 1):
        inner = [one for one in level if isinstance(one, list | dict)]
        level = [part for one in inner for part in (one.values() if isinstance(one, dict) else one)]
        if not inner:
            return False
    return True


def _mode(given: object) -> Mode:
    try:
        return Mode(str(given))
    except ValueError:
        raise Invalid("mode", f"{', '.join(Mode)} are right, found {_shown(given)}") from None


def _only(given: Mapping[str, Any], fields: set[str], where: str) -> None:
    for name in given:
        if name not in fields:
            raise Invalid(f"{where}.{name}" if where else name, "unknown field")


def _circle(left: Mapping[str, BranchSpec]) -> list[str]:
    """One circle among branches that all wait for another of them, its first at both ends."""
    path: list[str] = []
    id = next(iter(left))
    while id not in path:
        path.append(id)
        id = next(other for other in left[id].after if other in left)
    return [*path[path.index(id) :], id]


def _shown(given: object) -> str:
    shown = ascii(given)
    return shown if len(shown) <= 60 else shown[:57] + "..."
