"""
The modes of a transaction, as data: what each of a branch's three steps is called.

A branch goes *forward* before the decision, and after it is *finished* if the decision was to commit, or
*undone* if it was to abort. Modes differ in the names of these operations, and in which of them exist. The
machine (:mod:`.machine`) knows no mode by name.

Sources: Garcia-Molina, Salem, "Sagas", 1987 (saga); Pardon, Pautasso, "Atomic Distributed Transactions: a
RESTful Design", 2014 (TCC); X/Open, "The XA Specification", 1991 (prepare, commit, rollback; presumed
abort); the message that is sent only if a local transaction committed, and asked back otherwise, is that of
DTM's two-phase messages.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Mode(StrEnum):
    """How the branches of a transaction are carried out."""

    SAGA = "saga"
    TCC = "tcc"
    XA = "xa"
    MSG = "msg"


@dataclass(frozen=True, kw_only=True)
class Operations:
    """
    What a branch's steps are called in a mode; ``None``: there is no such step.

    With ``asks_back`` an undecided transaction is not aborted at its deadline: the initiator is asked.
    """

    forward: str | None
    finish: str | None
    undo: str | None
    asks_back: bool = False


OPERATIONS = {
    Mode.SAGA: Operations(forward="action", finish=None, undo="compensate"),
    Mode.TCC: Operations(forward="try", finish="confirm", undo="cancel"),
    Mode.XA: Operations(forward="prepare", finish="commit", undo="rollback"),
    Mode.MSG: Operations(forward=None, finish="action", undo=None, asks_back=True),
}

QUESTION = "query_prepared"
QUESTION_BRANCH = "00"
"""The branch that stands for the initiator of a message, when it is asked back."""
