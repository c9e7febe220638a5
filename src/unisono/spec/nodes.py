"""
A YAML file as a tree that remembers where each part was written.

Scalars keep their text, because only the field they end up in knows what they mean: ``8000`` is a
number for ``replicas`` and text in ``environment``. Mappings and lists are Python's own with a place
added, so that a schema can validate them as they are. Nodes are not changed once made.

How text becomes nodes is :mod:`unisono.spec.source`'s.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from unisono.spec.errors import FieldPath, Mark, Problem, field_path

MergeTag = Literal["reset", "override"] | None
"""Compose's ``!reset`` and ``!override``: what happens where files meet."""

# YAML 1.2, core schema, section 10.3.2. A leading zero is left to the field: 0644 means two things.
_NULL = frozenset({"", "~", "null", "Null", "NULL"})
_BOOL = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_INT = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_DIGITS_MAX = 4300  # beyond it Python refuses to read a number, for its quadratic cost
_SHOWN = 60


@dataclass(frozen=True, slots=True)
class Scalar:
    """Text at a place; ``plain`` tells that it stood without quotes, and so may be more than text."""

    text: str
    mark: Mark = field(compare=False)
    plain: bool = field(default=True, compare=False)
    tag: MergeTag = field(default=None, compare=False)
    path: FieldPath = field(default=(), compare=False)

    @property
    def is_null(self) -> bool:
        """Whether this is no value at all."""
        return self.plain and self.text in _NULL

    @property
    def value(self) -> bool | int | float | str | None:
        """The value by YAML 1.2's core schema: ``22:22``, ``on`` and ``no`` are text."""
        text = self.text
        if not self.plain or len(text) > _DIGITS_MAX:
            return text
        if text in _NULL:
            return None
        if text in _BOOL:
            return _BOOL[text]
        if _INT.fullmatch(text):
            return int(text, 0) if text.startswith(("0o", "0x")) else int(text)
        if _FLOAT.fullmatch(text):
            return float(text)
        return text


class MapNode(dict[str, Any]):
    """A mapping at a place, with the places of its keys. The values are nodes."""

    __slots__ = ("height", "keys_at", "mark", "path", "tag", "weight")

    def __init__(
        self,
        entries: Iterable[tuple[str, Any]],
        mark: Mark,
        keys_at: dict[str, Mark],
        *,
        tag: MergeTag = None,
        path: FieldPath = (),
    ) -> None:
        super().__init__(entries)
        self.mark = mark
        self.keys_at = keys_at
        self.tag: MergeTag = tag
        self.path = path
        self.weight, self.height = _extent(self.values())


class ListNode(list[Any]):
    """A list at a place. The items are nodes."""

    __slots__ = ("height", "mark", "path", "tag", "weight")

    def __init__(
        self, items: Iterable[Any], mark: Mark, *, tag: MergeTag = None, path: FieldPath = ()
    ) -> None:
        super().__init__(items)
        self.mark = mark
        self.tag: MergeTag = tag
        self.path = path
        self.weight, self.height = _extent(self)


Node = Scalar | MapNode | ListNode


def _extent(children: Iterable[Node]) -> tuple[int, int]:
    """How many nodes there are below, aliases counted each time, and how deep they go."""
    weight, height = 1, 1
    for child in children:
        if isinstance(child, Scalar):
            weight += 1
        else:
            weight += child.weight
            height = max(height, child.height + 1)
    return weight, height


def located(node: Node, path: FieldPath = ()) -> Node:
    """The same tree with each node knowing its path, which aliases and ``extends`` may have changed."""
    if isinstance(node, Scalar):
        return replace(node, path=path)
    if isinstance(node, MapNode):
        entries = [(key, located(child, (*path, key))) for key, child in node.items()]
        return MapNode(entries, node.mark, node.keys_at, tag=node.tag, path=path)
    items = [located(child, (*path, index)) for index, child in enumerate(node)]
    return ListNode(items, node.mark, tag=node.tag, path=path)


def key_mark(node: MapNode, key: str) -> Mark:
    """Where ``key`` was written."""
    return node.keys_at.get(key, node.mark)


def find(node: Node, path: Iterable[str | int]) -> Node:
    """
    The node at ``path``, or the last one on the way that exists.

    A name that is looked for in a list means its item of that name, ``name`` or ``name=value``.
    """
    for part in path:
        child: Node | None = None
        if isinstance(node, MapNode):
            child = node.get(str(part))
        elif isinstance(node, ListNode) and isinstance(part, int):
            child = node[part] if part < len(node) else None
        elif isinstance(node, ListNode):
            child = next((item for item in node if _names(item, str(part))), None)
        if child is None:
            return node
        node = child
    return node


def _names(item: Node, name: str) -> bool:
    return isinstance(item, Scalar) and item.text.partition("=")[0] == name


def describe(node: object) -> str:
    """A node in a message: ``"text"`` in quotes, numbers as written, else what it is."""
    if isinstance(node, MapNode):
        return "a mapping" if node else "an empty mapping"
    if isinstance(node, ListNode):
        return "a list" if node else "an empty list"
    if not isinstance(node, Scalar):
        return quoted(str(node))
    if node.is_null:
        return "nothing"
    return quoted(node.text) if isinstance(node.value, str) else node.text[:_SHOWN]


def quoted(text: str) -> str:
    """``text`` in double quotes, shortened if long, with nothing unprintable in it."""
    return json.dumps(text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…", ensure_ascii=False)


def problem(node: Node, wanted: str, *, found: str | None = None, hint: str | None = None) -> Problem:
    """The problem that ``node`` is not what is ``wanted`` in its place."""
    return Problem(
        mark=node.mark, path=field_path(node.path), found=found or describe(node), wanted=wanted, hint=hint
    )


def plain_data(node: Node) -> Any:
    """The tree as Python's plain data."""
    if isinstance(node, MapNode):
        return {key: plain_data(child) for key, child in node.items()}
    if isinstance(node, ListNode):
        return [plain_data(child) for child in node]
    return node.value
