"""
Why a command was refused. A refused command has changed nothing.

Sorted by what the caller does next::

    CommandError
    ├── NotFound   there is no such application, service or revision: the message names the nearest
    ├── Conflict   it can't be done as things stand: the message names what stands in the way
    └── Invalid    it can never be done so: the message says what would be right
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

_SHOWN = 10  # names in a message; a file may have a thousand


class CommandError(Exception):
    """A command that changed nothing; ``found`` is what stands in the way, ``wanted`` what would be right."""

    def __init__(self, message: str, *, found: str = "", wanted: str = "") -> None:
        super().__init__(message)
        self.found = found
        self.wanted = wanted


class NotFound(CommandError):
    """There is no such thing."""


class Conflict(CommandError):
    """It can't be done as things stand."""


class Invalid(CommandError):
    """It can never be done so."""


def nearest(name: str, names: Iterable[str], *, has: str = "it has") -> str:
    """
    What to end a message with that there is no ``name``: the name that was probably meant.

    Where none is near, the first of those there are, in their order; empty when there is none.
    """
    known = sorted(names)
    near = difflib.get_close_matches(name, known, n=1)
    if near:
        return f"; did you mean {near[0]}?"
    more = f" and {len(known) - _SHOWN} more" if len(known) > _SHOWN else ""
    return f"; {has} {', '.join(known[:_SHOWN])}{more}" if known else ""
