"""
Histories: who called what, when, and what came of it; as JSON lines that survive the death of the writer.

A call is written before it can leave, its return after the answer is whole, each in one write to the file. So
a client that is killed leaves a call without a return, which is what the checkers have to know: it may have
happened, at any time after the call, or never. Judging is done in :mod:`.checkers`.

Times are CLOCK_MONOTONIC in nanoseconds, one clock for all processes of a machine. Histories of several
machines need their intervals widened by the offset of the clocks before they are judged together.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any


class Outcome(StrEnum):
    """What a caller knows of its call."""

    DONE = "done"
    NOT_DONE = "not-done"  # surely had no effect
    UNKNOWN = "unknown"  # may take effect at any time after the call, or never


@dataclass(frozen=True, kw_only=True, slots=True)
class Operation:
    """
    One call. What ``action``, ``value``, ``expected`` and ``result`` mean is for the checker to say.

    Times are nanoseconds. ``returned`` of an operation whose outcome is unknown says nothing.
    """

    client: str  # calls one at a time
    action: str
    called: int
    returned: int | None = None
    outcome: Outcome = Outcome.DONE
    key: str = ""
    value: Any = None  # what was given
    expected: Any = None  # the condition
    result: Any = None  # what was answered
    revision: int | None = None  # of a write: when it happened; of a read: as of when the answer holds
    version: int | None = None  # of a read: the revision that last changed the key; 0: there is no such key
    token: int | None = None  # the fencing token under which it was done

    def __post_init__(self) -> None:
        if self.outcome is Outcome.DONE and (self.returned is None or self.returned < self.called):
            raise ValueError(f"{self}: an operation that was done returns, and not before it is called")

    def __str__(self) -> str:
        parts = [f"{self.client}: {self.action} {self.key}".rstrip()]
        parts += [
            f"{name}={found!r}"
            for name in ("value", "expected", "result", "revision", "version", "token")
            if (found := getattr(self, name)) is not None
        ]
        end = self.returned if self.outcome is Outcome.DONE else self.outcome.value
        return f"{' '.join(parts)} [{self.called} .. {end}]"


class Call:
    """A call under way; the caller sets ``outcome`` and what was answered."""

    def __init__(self) -> None:
        self.outcome = Outcome.UNKNOWN
        self.answer: dict[str, Any] = {}

    def done(self, **answer: Any) -> None:
        """It happened; ``answer`` are fields of :class:`Operation`."""
        self.outcome = Outcome.DONE
        self.answer = answer

    def not_done(self) -> None:
        """It surely did not happen."""
        self.outcome = Outcome.NOT_DONE


class Recorder:
    """One client's history, appended to a file. Each client needs a name and a file of its own."""

    def __init__(self, path: Path, client: str) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        self._client = client
        self._count = 0

    @contextmanager
    def call(self, action: str, **given: Any) -> Iterator[Call]:
        """Record what the block does; what came of it is unknown unless the block says so."""
        self._count += 1
        call = Call()
        self._write({"call": self._count, "client": self._client, "action": action, **given}, "called")
        try:
            yield call
        finally:
            returned = {"return": self._count, "outcome": call.outcome.value, **call.answer}
            self._write(returned, "returned")

    def close(self) -> None:
        """Let go of the file."""
        os.close(self._file)

    def _write(self, line: dict[str, Any], moment: str) -> None:
        text = json.dumps({**line, moment: time.monotonic_ns()}, separators=(",", ":"))
        os.write(self._file, text.encode() + b"\n")


def load(paths: Iterable[Path]) -> list[Operation]:
    """
    The operations in these files, by the time of their calls. A last line that a death cut short is left out.

    Raises:
        ValueError: A file is no history; the message names file, line and what is wrong.
    """
    found = [operation for path in paths for operation in _read(path)]
    return sorted(found, key=lambda operation: operation.called)


def _read(path: Path) -> list[Operation]:
    calls: dict[int, dict[str, Any]] = {}
    for number, text in enumerate(path.read_bytes().splitlines(keepends=True), 1):
        if not text.endswith(b"\n"):
            break
        try:
            line = json.loads(text)
            if "call" in line:
                calls[line.pop("call")] = line
            else:
                calls[line.pop("return")].update(line)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{path}:{number}: neither a call nor the return of one: {text!r}") from error
    operations = []
    for line in calls.values():
        line["outcome"] = Outcome(line.get("outcome", Outcome.UNKNOWN))
        try:
            operations.append(Operation(**line))
        except TypeError as error:
            raise ValueError(f"{path}: {error}") from error
    return operations
