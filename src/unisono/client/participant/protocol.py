"""
What a coordinator and a participant say to each other: the call, the answers, and their HTTP form. Pure.

A call is ``POST {url}/{op}`` with the headers below. Answers: 200 or 204 done, 409 a definite no (a problem
document, RFC 9457, whose ``code`` says why), 425 still working, 410 finished and forgotten (finish and undo
only), and everything else means that the outcome is unknown: the coordinator asks again. Which answer is due
is decided in :mod:`unisono.client.participant.fence`. The contract is docs/reference/transactions-api.md.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

Mode = Literal["saga", "tcc", "xa", "msg"]
Kind = Literal["forward", "finish", "undo"]

OPS: dict[Mode, dict[str, Kind]] = {
    "saga": {"action": "forward", "compensate": "undo"},
    "tcc": {"try": "forward", "confirm": "finish", "cancel": "undo"},
    "xa": {"prepare": "forward", "commit": "finish", "rollback": "undo"},
    "msg": {"query_prepared": "undo"},
}

GID_MAX = 100
BRANCH_MAX = 64
EPOCH_MAX = 2**63 - 1
PAYLOAD_MAX = 1 << 20  # bytes
REPLY_MAX = 64 << 10  # bytes, because replies are kept until the fence is purged
DEADLINE_MAX_MS = 24 * 3600 * 1000

_NAME = re.compile(r"[A-Za-z0-9._-]+")
_CLOCK = re.compile(r"[0-9a-f]{16}")
_COUNTER_BITS = 16


@dataclass(frozen=True, kw_only=True)
class Call:
    """One call of a coordinator."""

    gid: str
    branch: str
    op: str
    kind: Kind
    mode: str = ""
    epoch: int = 0
    payload: Any = None
    reply: Any = None  # what the forward call answered, when this is its finish or undo
    began_ms: int | None = None  # when the transaction began, in milliseconds since the epoch
    deadline: float | None = None  # time.monotonic() at which the answer is no longer waited for
    headers: Mapping[str, str] = field(default_factory=dict)  # names in lower case

    def remaining(self) -> float | None:
        """Seconds until nobody waits for the answer any more, at least 0; ``None``: no deadline."""
        return None if self.deadline is None else max(0.0, self.deadline - time.monotonic())


class BadCall(Exception):
    """This is no call of the protocol; nothing was done."""

    def __init__(self, detail: str, status: int = 400) -> None:
        super().__init__(detail)
        self.status = status


class Refused(Exception):
    """
    Raised by a participant's code: a definite no. Whatever it did in its transaction is rolled back.

    Args:
        detail: Why, in words.
        code: One word for programs, such as "insufficient".
        data: Further members of the problem document.
    """

    def __init__(self, detail: str, *, code: str = "failed", **data: Any) -> None:
        super().__init__(detail)
        if not _NAME.fullmatch(code):
            raise ValueError(f"code is one word of letters, digits and . _ -, not {code!r}")
        self.detail = detail
        self.code = code
        self.data = data

    def problem(self) -> dict[str, Any]:
        """The problem document that is kept and answered."""
        return {**self.data, **_members(409, "refused", self.code, self.detail)}


# -- answers -----------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Done:
    """It took effect, now or when it was first asked for."""

    reply: Any = None


@dataclass(frozen=True, kw_only=True)
class No:
    """It did not take effect and never will."""

    problem: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class StillWorking:
    """An earlier call of this branch is still under way; ask again."""

    detail: str


@dataclass(frozen=True, kw_only=True)
class Forgotten:
    """It was finished, and its record has been purged."""

    detail: str


@dataclass(frozen=True, kw_only=True)
class Unknown:
    """It may have taken effect or not; asking again tells."""

    detail: str
    status: int = 503


Answer = Done | No | StillWorking | Forgotten | Unknown


def no(code: str, detail: str) -> No:
    """A no of the fence itself."""
    return No(problem=_members(409, "refused by the fence", code, detail))


@dataclass(frozen=True, kw_only=True)
class Response:
    """An answer in HTTP."""

    status: int
    headers: Sequence[tuple[str, str]]
    body: bytes


def response(answer: Answer) -> Response:
    """The HTTP form of an answer."""
    if isinstance(answer, Done):
        if answer.reply is None:
            return Response(status=204, headers=(), body=b"")
        return _document(200, answer.reply, "application/json")
    if isinstance(answer, No):
        return _document(409, answer.problem)
    if isinstance(answer, StillWorking):
        return _problem(425, "still working", answer.detail)
    if isinstance(answer, Forgotten):
        return _problem(410, "forgotten", answer.detail)
    return _problem(answer.status, "unknown", answer.detail)


def refusal(error: BadCall) -> Response:
    """The HTTP form of a call that is none."""
    extra = (("Allow", "POST"),) if error.status == 405 else ()
    return _problem(error.status, "bad call", str(error), *extra)


def _problem(status: int, title: str, detail: str, *extra: tuple[str, str]) -> Response:
    return _document(status, _members(status, title, title.replace(" ", "-"), detail), extra=extra)


def _members(status: int, title: str, code: str, detail: str) -> dict[str, Any]:
    return {"type": "about:blank", "title": title, "status": status, "code": code, "detail": detail}


def _document(
    status: int, content: Any, kind: str = "application/problem+json", extra: Sequence[tuple[str, str]] = ()
) -> Response:
    body = json.dumps(content, separators=(",", ":")).encode()
    return Response(status=status, headers=(("Content-Type", kind), *extra), body=body)


# -- reading a call ----------------------------------------------------------------------------------


def read_call(mode: Mode, method: str, op: str, headers: Mapping[str, str], body: bytes) -> Call:
    """
    The call that a request is.

    Args:
        mode: What the participant offers.
        method: The HTTP method.
        op: The last part of the path.
        headers: By their names in lower case.
        body: JSON; nothing means ``null``.

    Raises:
        BadCall: It is none; the message names what was found and what would be right.
    """
    kind = OPS[mode].get(op)
    if kind is None:
        raise BadCall(f"there is no operation {op!r} here; there are {', '.join(OPS[mode])}", 404)
    if method != "POST":
        raise BadCall(f"operations are called with POST, not {method}", 405)
    said = headers.get("transaction-op", op)
    if said != op:
        raise BadCall(f"the path says {op}, the header Transaction-Op says {said}")
    left_ms = _number(headers, "deadline-ms", maximum=DEADLINE_MAX_MS, default=None)
    return Call(
        gid=_name(headers, "transaction-id", GID_MAX),
        branch=_name(headers, "transaction-branch", BRANCH_MAX),
        op=op,
        kind=kind,
        mode=headers.get("transaction-mode", mode),
        epoch=_number(headers, "transaction-epoch", maximum=EPOCH_MAX, default=0) or 0,
        payload=_payload(body),
        began_ms=_began(headers),
        deadline=None if left_ms is None else time.monotonic() + left_ms / 1000,
        headers=headers,
    )


def _name(headers: Mapping[str, str], header: str, longest: int) -> str:
    found = headers.get(header)
    if found is None:
        raise BadCall(f"the header {header.title()} is missing")
    if len(found) > longest or not _NAME.fullmatch(found):
        raise BadCall(
            f"{header.title()} is 1 to {longest} letters, digits and . _ -, not {found[: longest + 1]!r}"
        )
    return found


def _number(headers: Mapping[str, str], header: str, *, maximum: int, default: int | None) -> int | None:
    found = headers.get(header)
    if found is None:
        return default
    if not (found.isascii() and found.isdigit() and len(found) <= 19 and int(found) <= maximum):
        raise BadCall(f"{header.title()} is a whole number from 0 to {maximum}, not {found[:40]!r}")
    return int(found)


def _began(headers: Mapping[str, str]) -> int | None:
    """When the transaction began; a coordinator that does not tell has its call's own time taken instead."""
    said = _number(headers, "transaction-began", maximum=EPOCH_MAX, default=None)
    clock = headers.get("unisono-clock")
    if said is not None or clock is None:
        return said
    if not _CLOCK.fullmatch(clock):
        raise BadCall(f"unisono-clock is 16 lowercase hexadecimal digits, not {clock[:40]!r}")
    return int(clock, 16) >> _COUNTER_BITS


def _payload(body: bytes) -> Any:
    if len(body) > PAYLOAD_MAX:
        raise BadCall(f"the payload has more than {PAYLOAD_MAX} bytes", 413)
    if not body:
        return None
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as error:
        raise BadCall(f"the payload is not JSON: {error}") from error
