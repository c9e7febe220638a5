"""
Files of variables: ``.env`` beside the file of services, and ``env_file`` of a service.

The rules are Compose's: ``NAME=value``, ``NAME: value``, ``export NAME=value``; a bare ``NAME`` takes
its value from the environment; ``#`` begins a comment at the start of a line or after a blank;
in double quotes ``\\n``, ``\\"`` and variables are replaced, in single quotes nothing is; quoted values
may go over several lines. A variable may use those above it.

Source: https://docs.docker.com/compose/how-tos/environment-variables/variable-interpolation/
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from itertools import count

from unisono.spec.interpolate import TemplateError, interpolate

_KEY = re.compile(r"[ \t]*(?:export[ \t]+)?([A-Za-z_][A-Za-z0-9_.\-]*)[ \t]*(?:([=:])[ \t]*|(?=[#\n]|$))")
_SINGLE = re.compile(r"'((?:[^'\\]|\\.)*)'", re.DOTALL)
_DOUBLE = re.compile(r'"((?:[^"\\]|\\.)*)"', re.DOTALL)
_BARE = re.compile(r"[^\n]*")
_COMMENT = re.compile(r"(^|\s)#.*")
_ESCAPE = re.compile(r"\\(.)", re.DOTALL)
_ESCAPED = {"n": "\n", "r": "\r", "t": "\t", '"': '"', "\\": "\\", "$": "$$"}


class EnvFileError(ValueError):
    """A line is wrong; ``line`` counts from 1."""

    def __init__(self, line: int, message: str) -> None:
        super().__init__(message)
        self.line = line


def parse_env(text: str, environ: Mapping[str, str], *, raw: bool = False) -> dict[str, str]:
    """
    The variables that ``text`` sets, in its order.

    ``environ`` is what variables and bare names in it refer to, and wins over those set in the file
    when a value mentions both; with ``raw`` each line is taken as it is, quotes and dollar signs too.

    Raises:
        EnvFileError: A line is no assignment, a quote is not closed, or a variable can't be replaced.
    """
    text = text.replace("\r\n", "\n")
    if raw:
        return dict(_raw(text))
    found: dict[str, str] = {}
    at = 0
    while at < len(text):
        end = text.find("\n", at)
        end = len(text) if end < 0 else end
        if not text[at:end].strip() or text[at:end].lstrip().startswith("#"):
            at = end + 1
            continue
        at = _statement(text, at, environ, found)
    return found


def _raw(text: str) -> Iterator[tuple[str, str]]:
    for number, line in zip(count(1), text.split("\n"), strict=False):
        if line.strip() and not line.lstrip().startswith("#"):
            name, equals, value = line.partition("=")
            if not equals or not name.strip():
                raise EnvFileError(number, f"found {line.strip()[:40]!r}, want NAME=value")
            yield name.strip(), value


def _statement(text: str, at: int, environ: Mapping[str, str], found: dict[str, str]) -> int:
    """Read one assignment into ``found``; returns the offset of the next line."""
    line = text.count("\n", 0, at) + 1
    key = _KEY.match(text, at)
    if key is None:
        raise EnvFileError(line, f"found {text[at:].splitlines()[0].strip()[:40]!r}, want NAME=value")
    name, at = key[1], key.end()
    if key[2] is None:
        if name in environ:
            found[name] = environ[name]
        return _next_line(text, at, line)
    value, at, expands = _value(text, at, line)
    if expands:
        try:
            value = interpolate(value, {**found, **environ})
        except TemplateError as error:
            raise EnvFileError(line, f"{name}: {error}") from error
    if "\0" in value:
        raise EnvFileError(line, f"{name}: found a NUL, want text")
    found[name] = value
    return _next_line(text, at, line)


def _value(text: str, at: int, line: int) -> tuple[str, int, bool]:
    """A value as written, the offset behind it, and whether variables in it count."""
    quote = text[at : at + 1]
    if quote in ("'", '"'):
        match = (_SINGLE if quote == "'" else _DOUBLE).match(text, at)
        if match is None:
            raise EnvFileError(line, f"found a {quote} that is not closed, want another {quote}")
        if quote == "'":
            return match[1].replace("\\'", "'"), match.end(), False
        value = _ESCAPE.sub(lambda m: _ESCAPED.get(m[1], m[0]), match[1])
        return value, match.end(), True
    match = _BARE.match(text, at)
    assert match is not None  # noqa: S101 - it matches the empty text too
    return _COMMENT.sub("", match[0]).strip(), match.end(), True


def _next_line(text: str, at: int, line: int) -> int:
    end = text.find("\n", at)
    end = len(text) if end < 0 else end
    rest = text[at:end].strip()
    if rest and not rest.startswith("#"):
        raise EnvFileError(line, f"found {rest[:40]!r} behind the value, want the end of the line")
    return end + 1
