"""
From a file to nodes: reading within limits, and YAML as Compose reads it.

PyYAML's parser (libyaml, where it is there) gives events; the tree is built here and not by PyYAML,
because PyYAML resolves values by YAML 1.1 (``22:22`` is 1342, ``no`` is false), lets the last of two
equal keys win, and follows aliases and nesting without a bound. See docs/decisions/0003.

What the tree means is not here.
"""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path
from typing import Any

import yaml

from unisono.spec.errors import Mark, Problem, Report, Source
from unisono.spec.nodes import ListNode, MapNode, MergeTag, Node, Scalar, quoted

MAX_BYTES = 1024 * 1024
MAX_NODES = 100_000  # aliases counted each time they are used
MAX_DEPTH = 50

_LOADER = yaml.CSafeLoader if yaml.__with_libyaml__ else yaml.SafeLoader
# YAML 1.2, section 5.1. Checked first: the parsers' own message gives an offset and no line.
_UNPRINTABLE = re.compile("[^\x09\x0a\x0d\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_STANDARD = "tag:yaml.org,2002:"


def read_text(path: Path, name: str, report: Report, *, at: Problem | None = None) -> str:
    """
    The text of a file of at most MAX_BYTES; more is refused unread.

    ``name`` is what the file is called in messages; ``at`` is where another file asked for it.

    Raises:
        SpecError: It is missing, unreadable, no regular file, too large or no UTF-8.
    """

    def failed(message: str, hint: str | None = None, mark: Mark | None = None) -> Exception:
        if at is not None:
            return report.fail(Problem(mark=at.mark, path=at.path, message=f"{name}: {message}", hint=hint))
        return report.fail(Problem(mark=mark, message=message if mark else f"{name}: {message}", hint=hint))

    try:
        about, data = _read(path)
    except OSError as error:
        raise failed(f"can't be read: {error.strerror}") from error
    except ValueError as error:
        raise failed(f"can't be read: {error}") from error
    if not stat.S_ISREG(about.st_mode):
        kind = "a folder" if stat.S_ISDIR(about.st_mode) else "not a regular file"
        raise failed(f"found {kind}, want a file")
    if max(about.st_size, len(data)) > MAX_BYTES:
        raise failed(f"found {max(about.st_size, len(data)):,} bytes, want at most {MAX_BYTES:,}")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = data[: error.start].decode("utf-8", "replace")
        mark = _mark_at(before, len(before), Source(name, path.parent))
        raise failed(
            f"found the byte 0x{data[error.start]:02x}, want text in UTF-8", "save the file as UTF-8", mark
        ) from error


def parse(text: str, source: Source, report: Report) -> list[Node]:
    """
    The documents in ``text``; an empty one is a null scalar.

    Raises:
        SpecError: It is no YAML, or breaks a limit, or gives a key twice.
    """
    wrong = _UNPRINTABLE.search(text)
    if wrong:
        raise report.fail(
            Problem(
                mark=_mark_at(text, wrong.start(), source),
                message=f"found the character U+{ord(wrong[0]):04X}, want text that can be printed",
            )
        )
    builder = _Builder(source, report)
    try:
        for event in yaml.parse(text, Loader=_LOADER):
            builder.feed(event)
    except yaml.MarkedYAMLError as error:
        raise report.fail(_syntax_problem(error, source, text)) from error
    except (yaml.YAMLError, ValueError) as error:
        detail = str(error).splitlines()[0]
        raise report.fail(Problem(mark=Mark(source, 1, 1), message=f"is no YAML: {detail}")) from error
    report.check()
    return builder.documents


def _read(path: Path) -> tuple[os.stat_result, bytes]:
    """What a path is, and up to a byte above the limit of what is in it if it is a small enough file."""
    # Without O_NONBLOCK a named pipe that nobody writes to would hold us up for ever.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        about = os.fstat(descriptor)
        if not stat.S_ISREG(about.st_mode) or about.st_size > MAX_BYTES:
            return about, b""
        # Asked for more than its size, too: files in /proc say that they have none.
        with open(descriptor, "rb", closefd=False) as file:
            return about, file.read(MAX_BYTES + 1)
    finally:
        os.close(descriptor)


def _mark_at(text: str, offset: int, source: Source) -> Mark:
    before = text[:offset]
    return Mark(source, before.count("\n") + 1, offset - (before.rfind("\n") + 1) + 1)


def _syntax_problem(error: yaml.MarkedYAMLError, source: Source, text: str) -> Problem:
    at = error.problem_mark or error.context_mark
    mark = Mark(source, at.line + 1, at.column + 1) if at else Mark(source, 1, 1)
    detail = " ".join(part for part in (error.problem, error.context) if part)
    lines = text.splitlines()
    line = lines[mark.line - 1] if mark.line <= len(lines) else ""
    hint = None
    if "\t" in line[: len(line) - len(line.lstrip())]:
        hint = "YAML is indented with spaces, this line begins with a tab"
    elif "mapping values are not allowed" in detail:
        hint = "a text with a colon and a space in it needs quotes"
    elif "flow" in detail and (word := _BRACED.search(line)):
        hint = f"a text with {word[0]} in it needs quotes where it stands between braces or brackets"
    elif "unknown escape" in detail:
        hint = "use single quotes, in which a backslash is a backslash"
    return Problem(mark=mark, message=f"is no YAML: {detail}", hint=hint)


_BRACED = re.compile(r"\{[A-Za-z_]+\}")


class _Frame:
    """A mapping or list whose end has not come yet."""

    def __init__(self, mark: Mark, tag: MergeTag, anchor: str | None, *, is_map: bool) -> None:
        self.mark, self.tag, self.anchor, self.is_map = mark, tag, anchor, is_map
        self.items: list[Node] = []
        self.entries: dict[str, Node] = {}
        self.keys_at: dict[str, Mark] = {}
        self.key: Scalar | None = None
        self.merged: Node | None = None


class _Builder:
    """Makes the tree out of events, one at a time, with no recursion that a file could drive."""

    def __init__(self, source: Source, report: Report) -> None:
        self.documents: list[Node] = []
        self._source = source
        self._report = report
        self._frames: list[_Frame] = []
        self._anchors: dict[str, Node] = {}
        self._count = 0

    def feed(self, event: Any) -> None:
        if isinstance(event, yaml.DocumentStartEvent):
            self._anchors = {}
        elif isinstance(event, yaml.AliasEvent):
            self._add(self._aliased(event))
        elif isinstance(event, yaml.ScalarEvent):
            self._add(self._anchored(event.anchor, self._scalar(event)))
        elif isinstance(event, yaml.CollectionStartEvent):
            self._open(event)
        elif isinstance(event, yaml.CollectionEndEvent):
            self._close()

    def _mark(self, event: Any) -> Mark:
        return Mark(self._source, event.start_mark.line + 1, event.start_mark.column + 1)

    def _fail(self, mark: Mark, message: str, hint: str | None = None) -> Exception:
        return self._report.fail(Problem(mark=mark, message=message, hint=hint))

    def _scalar(self, event: Any) -> Scalar:
        mark = self._mark(event)
        tag, forced = self._tag(event.tag, mark)
        plain = event.implicit[0] or forced in {"int", "float", "bool", "null"}
        if tag is not None:
            plain = not event.style or event.style == "?"
        if "\0" in event.value or any("\ud800" <= c <= "\udfff" for c in event.value):
            raise self._fail(mark, "found a NUL or a lone surrogate in a text, want neither")
        return Scalar(event.value, mark, plain, tag)

    def _tag(self, tag: str | None, mark: Mark) -> tuple[MergeTag, str]:
        """What a tag means where files meet, and the standard type it forces."""
        if tag in (None, "!"):
            return None, ""
        if tag in ("!reset", "!override"):
            return ("reset" if tag == "!reset" else "override"), ""
        short = tag.removeprefix(_STANDARD) if tag else ""
        if short in {"str", "int", "float", "bool", "null", "map", "seq"}:
            return None, short
        shown = "!!" + short if tag and tag.startswith(_STANDARD) else tag
        raise self._fail(mark, f"found the tag {shown}, want none, or !reset or !override")

    def _open(self, event: Any) -> None:
        mark = self._mark(event)
        if len(self._frames) >= MAX_DEPTH:
            raise self._fail(mark, f"is nested too deep, want at most {MAX_DEPTH} levels")
        tag, _ = self._tag(event.tag, mark)
        is_map = isinstance(event, yaml.MappingStartEvent)
        self._frames.append(_Frame(mark, tag, event.anchor, is_map=is_map))

    def _close(self) -> None:
        frame = self._frames.pop()
        node: Node
        if frame.is_map:
            self._take_merged(frame)
            node = MapNode(frame.entries.items(), frame.mark, frame.keys_at, tag=frame.tag)
        else:
            node = ListNode(frame.items, frame.mark, tag=frame.tag)
        if node.weight > MAX_NODES:
            raise self._fail(frame.mark, f"has more than {MAX_NODES:,} parts once aliases are followed")
        if node.height > MAX_DEPTH:
            raise self._fail(
                frame.mark, f"is nested too deep once aliases are followed, want {MAX_DEPTH} levels"
            )
        self._add(self._anchored(frame.anchor, node))

    def _anchored(self, anchor: str | None, node: Node) -> Node:
        if anchor is not None:
            self._anchors[anchor] = node
        return node

    def _aliased(self, event: Any) -> Node:
        mark = self._mark(event)
        if any(frame.anchor == event.anchor for frame in self._frames):
            raise self._fail(mark, f"the alias *{event.anchor} stands inside what it stands for")
        if event.anchor not in self._anchors:
            known = ", ".join(f"&{name}" for name in self._anchors) or "none"
            raise self._fail(mark, f"found the alias *{event.anchor}, want one of the anchors above: {known}")
        return self._anchors[event.anchor]

    def _add(self, node: Node) -> None:
        self._count += 1
        if self._count > MAX_NODES:
            raise self._fail(node.mark, f"has more than {MAX_NODES:,} parts")
        if not self._frames:
            self.documents.append(node)
            return
        frame = self._frames[-1]
        if not frame.is_map:
            frame.items.append(node)
        elif frame.key is None:
            frame.key = self._as_key(node)
        else:
            self._set(frame, frame.key, node)
            frame.key = None

    def _as_key(self, node: Node) -> Scalar:
        if not isinstance(node, Scalar):
            raise self._fail(node.mark, "found a list or a mapping as a key, want a name")
        return node

    def _set(self, frame: _Frame, key: Scalar, node: Node) -> None:
        name = key.text
        if name in frame.keys_at:
            first = frame.keys_at[name].line
            hint = "write one `<<: [*a, *b]`" if name == "<<" else None
            self._report.error(
                Problem(
                    mark=key.mark,
                    message=f"the key {quoted(name)} stands here and in line {first}",
                    hint=hint,
                )
            )
            return
        frame.keys_at[name] = key.mark
        if name == "<<" and key.plain:
            frame.merged = node
        else:
            frame.entries[name] = node

    def _take_merged(self, frame: _Frame) -> None:
        """Fill in what a merge key brings: the mapping's own keys win, then earlier ones over later ones."""
        if frame.merged is None:
            return
        sources = frame.merged if isinstance(frame.merged, ListNode) else [frame.merged]
        for source in sources:
            if not isinstance(source, MapNode):
                raise self._fail(frame.keys_at["<<"], "found no mapping behind <<, want an alias of one")
            for name, node in source.items():
                if name not in frame.entries:
                    frame.entries[name] = node
                    frame.keys_at[name] = source.keys_at[name]
