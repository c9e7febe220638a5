"""
Asking until it is known: what may be repeated is, until an answer says what happened or time is up.

Whoever asks so makes sure that a repeat has one effect: a read, a request with an id, a lease's place in
line.
"""

from __future__ import annotations

import time
from typing import Any

from unisono.client.errors import (
    Changed,
    Fenced,
    Insufficient,
    Lost,
    MaybeDone,
    NodeError,
    NotAcquired,
    NotDone,
    NotRunning,
    Refused,
)
from unisono.client.questions import Ask, Pause, Steps, Told

PATIENCE = 10.0
"""Seconds that a request is repeated while the node is away, as it is while it is started again."""

_PAUSE = 0.02
_PAUSE_MAX = 0.5
_REFUSALS: dict[str, type[Refused]] = {
    "precondition-failed": Changed,
    "not-acquired": NotAcquired,
    "insufficient": Insufficient,
    "fenced": Fenced,
}
_LOST = frozenset({"lease-ended", "lost"})


def insist(ask: Ask, *, patience: float = PATIENCE, but: tuple[int, ...] = ()) -> Steps[Told]:
    """
    The answer to ``ask``, which is repeated for ``patience`` seconds while its outcome is unknown or none
    came.

    ``but`` are statuses of errors that are answers.

    Raises:
        Refused, Lost: As the node says.
        NotRunning, NotDone: It did not happen, any of the times.
        MaybeDone: One of the times may have.
    """
    deadline = time.monotonic() + patience
    pause = _PAUSE
    unknown: MaybeDone | None = None
    while True:
        failed: NodeError
        try:
            told: Told = yield ask
        except NotRunning as error:
            failed = error
        except MaybeDone as error:
            failed = unknown = error
        else:
            if told.status < 400 or told.status in but:
                return told
            said = failure(told)
            if isinstance(said, Refused | Lost):
                raise said
            failed = said
            if isinstance(said, MaybeDone):
                unknown = said
        if time.monotonic() + pause > deadline:
            raise unknown or failed
        yield Pause(pause)
        pause = min(2 * pause, _PAUSE_MAX)


def failure(told: Told) -> NodeError:
    """What an answer that is an error means to the caller."""
    problem: dict[str, Any] = told.content if isinstance(told.content, dict) else {}
    code, detail = problem.get("code"), str(problem.get("detail", f"HTTP status {told.status}"))
    if code in _LOST:
        return Lost(detail)
    if code == "not-done":
        return NotDone(detail)
    # Whatever the node failed at without saying that nothing happened may have happened.
    if told.status >= 500 and code != "broken":
        return MaybeDone(detail)
    return _REFUSALS.get(str(code), Refused)(told.status, problem)
