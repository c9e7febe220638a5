"""
What a participant's answer means. Pure.

Only what was agreed decides: 200 and 204 are done, 409 is no, 425 and 202 are "still at it", 410 is
"finished long ago". Everything else, and no answer, is unknown: it may or may not have happened, and is
asked again. Bodies are never searched for words.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from pydantic_core import from_json

from unisono.transactions.calls import Reply
from unisono.transactions.states import Answer

MAX_REPLY_BYTES = 64 * 1024
_BUSY_SECONDS = 0.2
_BUSY_SECONDS_MIN, _BUSY_SECONDS_MAX = 0.01, 60.0
_SILENT = frozenset({0, 502, 503, 504})  # nobody answered, or only a gateway did


@dataclass(slots=True)
class Meaning:
    """
    What an answer says. ``pause``: when "still at it" wants to be asked again, in seconds.

    ``answered``: somebody was there. ``note``: for the timeline. ``data``: the reply's or problem's JSON.
    """

    answer: Answer
    answered: bool
    note: str = ""
    data: Any = None
    pause: float = 0.0


def meaning(reply: Reply) -> Meaning:
    """What is made of a reply."""
    status = reply.status
    if status in (200, 204):
        return _done(reply)
    if status == 409:
        return _no(reply)
    if status in (202, 425):
        return Meaning(Answer.BUSY, True, pause=_pause(reply.headers.get(b"retry-after", b"")))
    if status == 410:
        return Meaning(Answer.GONE, True)
    note = reply.error
    if 300 <= status < 400:
        note = "redirects are not followed"
    return Meaning(Answer.UNKNOWN, status not in _SILENT, note)


def _done(reply: Reply) -> Meaning:
    body = reply.body
    if not body or not _is_json(reply):
        return Meaning(Answer.DONE, True)
    if len(body) > MAX_REPLY_BYTES:
        return Meaning(
            Answer.DONE, True, f"a reply of {len(body)} bytes was dropped; at most {MAX_REPLY_BYTES}"
        )
    try:
        return Meaning(Answer.DONE, True, data=from_json(body, allow_inf_nan=False))
    except ValueError:
        return Meaning(Answer.UNKNOWN, True, "the body says it is JSON and is not: half an answer?")


def _no(reply: Reply) -> Meaning:
    try:
        problem = (
            from_json(reply.body, allow_inf_nan=False)
            if reply.body and len(reply.body) <= MAX_REPLY_BYTES
            else None
        )
    except ValueError:
        problem = None  # the status alone decides
    note = ""
    if isinstance(problem, dict):
        words = [problem.get(name) for name in ("code", "detail")]
        note = ": ".join(word for word in words if isinstance(word, str))[:200]
    return Meaning(Answer.NO, True, note, data=problem)


def _is_json(reply: Reply) -> bool:
    kind = reply.headers.get(b"content-type", b"").partition(b";")[0].strip().lower()
    return kind == b"application/json" or kind.endswith(b"+json")


def _pause(header: bytes) -> float:
    try:
        seconds = float(header)
    except ValueError:
        return _BUSY_SECONDS
    if not math.isfinite(seconds):
        return _BUSY_SECONDS
    return min(max(seconds, _BUSY_SECONDS_MIN), _BUSY_SECONDS_MAX)
