"""
A transaction as it is written down: one key, one value, all that recovery and operators need.

An open transaction is kept with its branches and their payloads, a final one with its outcome alone, until
retention removes it (:mod:`.retention`). The first bytes of a value tell which it is, so that a restart need
not read the final ones.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from pydantic_core import from_json, to_json

from unisono.state.names import namespace_prefix
from unisono.store.base import MAX_VALUE_BYTES
from unisono.transactions.modes import Mode
from unisono.transactions.states import FINAL, Answer, Heuristic, Kind, Status
from unisono.transactions.submission import BranchSpec

ROOT = "transaction/"
COORDINATOR = "coordinator"  # of both that follow: one watch tells of them
NODES = "coordinator/"
"""Has a key for each node that coordinates, under a lease: its term."""
FLOOR = "coordinator-floor"
"""Holds the time (seconds since the epoch), by node, up to which gids may have been forgotten."""

MAX_TIMELINE = 200  # calls that are remembered of one transaction
_LAST_WORDS = 3  # branches that the reason of an abort tells of

_log = logging.getLogger("unisono.transactions")

_OPEN = b'{"open":true,'
_MODES = {mode.value: mode for mode in Mode}  # a restart reads thousands of them
_STATUSES = {status.value: status for status in Status}


@dataclass(slots=True, kw_only=True)
class Record:
    """
    What is known of a transaction beside its machine. Times are seconds since the epoch.

    ``timeline`` holds what was called: time, branch, operation, HTTP status (0: none), answer, ms, a note.
    """

    namespace: str
    gid: str
    mode: Mode
    owner: str  # the node that coordinates it
    digest: str  # of the content, to tell a repeated begin from another one
    began: float
    deadline: float
    status: Status
    trusted: bool = False  # an operator began it: any address may be called
    question: str | None = None
    traceparent: str | None = None
    decided: float | None = None
    ended: float | None = None
    reason: str = ""
    heuristic: Heuristic | None = None
    specs: list[BranchSpec] = field(default_factory=list)
    states: list[str] = field(default_factory=list)  # of the branches, once it is final
    timeline: list[list[Any]] = field(default_factory=list)

    @property
    def key(self) -> str:
        """Where it is kept."""
        return f"{ROOT}{self.namespace}/{self.gid}"

    def note(
        self,
        at: float,
        branch: str,
        op: str,
        answer: Answer,
        *,
        status: int = 0,
        took_ms: float = 0.0,
        note: str = "",
    ) -> None:
        """
        Remember a call in the timeline; ``status`` 0: there was no answer.

        Once it is full, what is in its middle gives way: the beginning and the latest tell most.
        """
        if len(self.timeline) >= MAX_TIMELINE:
            del self.timeline[MAX_TIMELINE // 2]
        self.timeline.append([round(at, 3), branch, op, status, str(answer), round(took_ms, 1), note])

    def last_words(self, branches: Iterable[str]) -> str:
        """What the latest calls of some branches came to, of the first few of them."""
        latest = {line[1]: line for line in self.timeline}
        told = []
        for id in islice(branches, _LAST_WORDS):
            line = latest.get(id)
            if line is None:
                told.append(f"branch {id} has not answered")
            else:
                _, _, op, status, _, _, note = line
                told.append(
                    f"branch {id} answered {op} with {status or 'nothing that counts'}{note and f' ({note})'}"
                )
        return "; ".join(told)

    def encode(self) -> bytes:
        """
        As it is written down; payloads are left out once it is final.

        What was called gives way to all else where one value of the store would not hold both.
        """
        final = self.status in FINAL
        body: dict[str, Any] = {
            "open": not final,
            "v": 1,
            "mode": str(self.mode),  # an enum's member is encoded ten times as slowly as its text
            "status": str(self.status),
            "owner": self.owner,
            "digest": self.digest,
            "began": self.began,
            "deadline": self.deadline,
            "branches": [[s.id, s.url, None if final else s.payload, s.after] for s in self.specs],
        }
        for name in ("question", "traceparent", "decided", "ended", "reason", "timeline", "trusted"):
            if value := getattr(self, name):
                body[name] = value
        if final:
            body["states"] = self.states
        if self.heuristic is not None:
            told = self.heuristic
            body["heuristic"] = [str(told.kind), told.reason, told.resolved]
        encoded = to_json(body)
        if len(encoded) > MAX_VALUE_BYTES:
            body.pop("timeline", None)
            encoded = to_json(body)
        return encoded


def transaction_key(namespace: str, gid: str) -> str:
    """
    Where a transaction is kept.

    Raises:
        ValueError: The namespace is none.
    """
    namespace_prefix(namespace)
    return f"{ROOT}{namespace}/{gid}"


def is_open(value: bytes) -> bool:
    """Whether it is a transaction that is not final, without reading the rest."""
    return value.startswith(_OPEN)


def decode(key: str, value: bytes) -> Record:
    """What :meth:`Record.encode` wrote under ``key``; of a final one the payloads are gone."""
    namespace, _, gid = key.removeprefix(ROOT).partition("/")
    body = from_json(value, cache_strings="keys")
    told = body.get("heuristic")
    return Record(
        namespace=namespace,
        gid=gid,
        mode=_MODES[body["mode"]],
        owner=body["owner"],
        digest=body["digest"],
        began=body["began"],
        deadline=body["deadline"],
        status=_STATUSES[body["status"]],
        trusted=body.get("trusted", False),
        question=body.get("question"),
        traceparent=body.get("traceparent"),
        decided=body.get("decided"),
        ended=body.get("ended"),
        reason=body.get("reason", ""),
        heuristic=None if told is None else Heuristic(Kind(told[0]), told[1], told[2]),
        specs=[BranchSpec(id=b[0], url=b[1], payload=b[2], after=tuple(b[3])) for b in body["branches"]],
        states=body.get("states", []),
        timeline=body.get("timeline", []),
    )


def readable(key: str, value: bytes) -> Record | None:
    """
    As :func:`decode`; ``None`` if it is none that can be read, which is said.

    One that is broken stays where it is, for whoever looks for it, and keeps no other from going on.
    """
    try:
        return decode(key, value)
    except (ValueError, LookupError, TypeError) as error:
        _log.error("%s can't be read, and is left as it is: %r", key, error)
        return None
