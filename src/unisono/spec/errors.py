"""
What can be wrong in a file of services, and how it is said.

A :class:`Problem` names the place, what was found there and what would be right. :class:`Report`
collects problems and warnings, so that a user sees all of them at once; :class:`SpecError` carries them
out. Finding problems is not here: the reading modules do that.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

MAX_SHOWN = 20
MAX_COLLECTED = 100

FieldPath = tuple[str | int, ...]
"""Where in the file: names of keys, and indexes into lists."""


@dataclass(frozen=True)
class Source:
    """A file as it is called in messages, and the folder from which its relative paths are meant."""

    file: str
    folder: Path


@dataclass(frozen=True)
class Mark:
    """A place in a file; line and column count from 1."""

    source: Source
    line: int
    column: int

    def __str__(self) -> str:
        return f"{self.source.file}:{self.line}:{self.column}"


def field_path(path: FieldPath) -> str:
    """``("services", "web", "ports", 0)`` as people write it: ``services.web.ports[0]``."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            text += f".{part}" if text else part
    return text


def _place(mark: Mark | None, path: str) -> str:
    return " ".join(part for part in (str(mark) if mark else "", path) if part)


@dataclass(frozen=True, kw_only=True)
class Problem:
    """
    One thing that is wrong.

    ``message`` says it in words; without one it is made of ``found`` and ``wanted``.
    """

    mark: Mark | None = None
    path: str = ""
    found: str | None = None
    wanted: str | None = None
    message: str = ""
    hint: str | None = None

    def __str__(self) -> str:
        text = self.message or f"found {self.found}, want {self.wanted}"
        place = _place(self.mark, self.path)
        return f"{place}: {text}" if place else text


@dataclass(frozen=True, kw_only=True)
class SpecWarning:
    """Something in the file that has no effect, or not the effect one might expect."""

    mark: Mark | None = None
    path: str = ""
    message: str

    def __str__(self) -> str:
        place = _place(self.mark, self.path)
        return f"{place}: {self.message}" if place else self.message


class SpecError(Exception):
    """
    The file can't be used; nothing was changed.

    The attributes describe the first problem. With one problem the text leaves out its hint, for the
    caller to show; with several each line carries its own and ``hint`` is ``None``.
    """

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        first = self.problems[0]
        self.file = first.mark.source.file if first.mark else None
        self.line = first.mark.line if first.mark else None
        self.column = first.mark.column if first.mark else None
        self.field = first.path
        self.found = first.found
        self.wanted = first.wanted
        self.hint = first.hint if len(self.problems) == 1 else None
        super().__init__(self._text())

    def _text(self) -> str:
        if len(self.problems) == 1:
            return str(self.problems[0])
        lines = [f"{p} ({p.hint})" if p.hint else str(p) for p in self.problems[:MAX_SHOWN]]
        if len(self.problems) > MAX_SHOWN:
            lines.append(f"and {len(self.problems) - MAX_SHOWN} more")
        return "\n".join(lines)


@dataclass
class Report:
    """Problems and warnings as they are found, each once."""

    problems: dict[Problem, None] = field(default_factory=dict)
    warnings: dict[SpecWarning, None] = field(default_factory=dict)

    def error(self, problem: Problem) -> None:
        """
        Note a problem and go on looking.

        Raises:
            SpecError: MAX_COLLECTED have been found: more would help nobody, and take their time.
        """
        self.problems.setdefault(problem)
        if len(self.problems) >= MAX_COLLECTED:
            self.check()

    def warn(self, message: str, *, mark: Mark | None = None, path: str = "") -> None:
        """Note what will have no effect."""
        self.warnings.setdefault(SpecWarning(mark=mark, path=path, message=message))

    def check(self) -> None:
        """
        Stop here if there is any problem.

        Raises:
            SpecError: There is one.
        """
        if self.problems:
            raise SpecError(sorted(self.problems, key=in_reading_order))

    def fail(self, problem: Problem) -> SpecError:
        """The error of ``problem`` and all before it, for the caller to raise."""
        self.error(problem)
        return SpecError(sorted(self.problems, key=in_reading_order))


def in_reading_order(finding: Problem | SpecWarning) -> tuple[str, int, int]:
    """A key to sort problems and warnings by: as they stand in their files."""
    mark = finding.mark
    return (mark.source.file, mark.line, mark.column) if mark else ("", 0, 0)
