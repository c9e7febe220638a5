"""
Drives any participant through what a transaction may do to it, over HTTP alone, and says what it does wrong.

Each case has transactions of its own, so a participant is tried as it runs; branches that are finished leave
their effect. What a participant answers can be judged from outside; whether an effect is there once can be
judged only by looking: give ``state_url``, whose answer changes if and only if the effects do.

The contract is docs/reference/transactions-api.md, the cases are those of docs/guide/participants.md.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from unisono.client.calling import OPS, Mode, Participant, Wrong, http_url
from unisono.client.conformancecases import Kit, NotConnected

__all__ = ["Finding", "NotConnected", "verify"]


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What one case found: ``wrong`` is empty when all was right."""

    case: str
    wrong: str

    @property
    def ok(self) -> bool:
        """Whether the participant did right."""
        return not self.wrong


def verify(
    url: str,
    mode: Mode,
    *,
    payload: Any = None,
    state_url: str | None = None,
    timeout: float = 5.0,
) -> Iterator[Finding]:
    """
    Try a participant, one finding a case.

    Args:
        url: Where it answers; the operations are appended.
        mode: What it offers.
        payload: What its forward call says yes to, about eighty times; a few branches are finished.
        state_url: Answers to GET, the same as long as no effect is added or taken away.
        timeout: Seconds for one answer.

    Raises:
        ValueError: The URL is none, or the mode is none.
        NotConnected: Nothing answers there, or a plain forward call is not answered with yes.
    """
    if mode not in OPS:
        raise ValueError(f"mode is one of {', '.join(OPS)}, not {mode!r}")
    participant = Participant(url, mode, payload, timeout)
    kit = Kit(participant, None if state_url is None else http_url(state_url), timeout)
    kit.begin()
    for name, case in kit.cases().items():
        kit.begin_case()
        try:
            case()
        except Wrong as wrong:
            kit.tidy()
            yield Finding(case=name, wrong=str(wrong))
        else:
            yield Finding(case=name, wrong="")
