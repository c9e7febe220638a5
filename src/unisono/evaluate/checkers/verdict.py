"""What a checker says: kept, violated with evidence, or not decided, which never counts as kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from unisono.evaluate.history import Operation


class Answer(Enum):
    """Of three kinds, so that none is taken for another."""

    KEPT = "kept"
    VIOLATED = "violated"
    UNDECIDED = "not decided"


@dataclass(frozen=True)
class Verdict:
    """An answer, why, and the operations that show it. Has no truth value: ask for the answer."""

    answer: Answer
    reason: str = ""
    evidence: Sequence[object] = ()

    @property
    def kept(self) -> bool:
        """Whether it is decided that the promise was kept."""
        return self.answer is Answer.KEPT

    @property
    def violated(self) -> bool:
        """Whether it is decided that the promise was broken."""
        return self.answer is Answer.VIOLATED

    def __bool__(self) -> bool:
        raise TypeError("a verdict has three answers; ask for kept or violated")

    def __str__(self) -> str:
        lines = [f"{self.answer.value}: {self.reason}" if self.reason else self.answer.value]
        return "\n".join([*lines, *(f"  {one}" for one in self.evidence)])


KEPT = Verdict(Answer.KEPT)


def violated(reason: str, *evidence: Operation | object) -> Verdict:
    """The promise was broken, as the evidence shows."""
    return Verdict(Answer.VIOLATED, reason, evidence)
