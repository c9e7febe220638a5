"""
What can go wrong with shared state, sorted by what the caller does next; the store's own tree goes on::

    StoreError
    ├── NotDone             did not happen: may be tried again
    │   ├── NotAcquired     another has it, or too few came, and the wait is over: try later
    │   ├── Insufficient    a quota has less than was asked for: ask for less, or later
    │   ├── Fenced          it rested on a token that no longer counts: acquire anew, then decide anew
    │   └── RequestReused   the request id belongs to another request: use a new one
    ├── MaybeDone           may have happened: read first, or repeat with the same request id
    ├── Lost                what was held is held no more, or may not be: stop, undo or leave to the next
    └── Broken              the store can't go on: an operator must act

Whatever breaks a limit or can't be understood is a ValueError, and nothing has happened.
"""

from __future__ import annotations

from unisono.store.base import Compare, NotDone, StoreError


class NotAcquired(NotDone):
    """Another has it, or too few came in time; nothing is held."""


class Insufficient(NotDone):
    """
    A quota has less left than was asked for; nothing was granted.

    ``available`` is what was left when it was looked at.
    """

    def __init__(self, name: str, amount: int, available: int, size: int) -> None:
        super().__init__(f"quota {name!r}: {amount} asked for, {available} of {size} left")
        self.available = available


class Fenced(NotDone):
    """It rested on a fencing token that no longer counts, and was refused: nothing happened."""


def fenced(fence: Compare) -> Fenced:
    """The error for a fence that does not hold."""
    return Fenced(f"the token {fence.target!r} no longer counts: another may hold what it stood for")


class RequestReused(NotDone):
    """This request id came before with another request; nothing happened now."""


class Lost(StoreError):
    """
    What was held is held no more, or may not be a moment from now.

    What was written with its token before then counts; what is written with it from now on is refused.
    """
