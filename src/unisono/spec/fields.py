"""
What a field's value can be: what a kind is, the kinds that many fields have, and what is said of a misfit.

A kind reads a node into a plain value or refuses it with what would be right. Kinds with a grammar of their
own are :mod:`unisono.spec.kinds`'; which field has which is :mod:`unisono.spec.schema`'s.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from unisono.spec.nodes import ListNode, Node, Scalar
from unisono.spec.units import DURATION_PATTERN, SIZE_PATTERN, parse_duration, parse_size

VARIABLE = {"type": "string", "pattern": r"\$"}
WORDS = {"type": ["string", "number", "boolean"]}
TRUTH = {
    **dict.fromkeys(("true", "yes", "on", "y", "1"), True),
    **dict.fromkeys(("false", "no", "off", "n", "0"), False),
}
INTEGER = re.compile(r"[-+]?(0|[1-9][0-9]{0,18})|0o[0-7]{1,21}|0x[0-9a-fA-F]{1,16}")
NUMBER = re.compile(r"[-+]?([0-9]{1,40}(\.[0-9]{0,40})?|\.[0-9]{1,40})([eE][-+]?[0-9]{1,3})?")


def unfit(
    node: Node, wanted: str, *, found: str | None = None, hint: str | None = None
) -> PydanticCustomError:
    """The error that ``node`` is not what is wanted; :mod:`unisono.spec.schema` makes a Problem of it."""
    return PydanticCustomError(
        "unfit", "unfit", {"node": node, "wanted": wanted, "found": found, "hint": hint}
    )


class Kind:
    """A kind of value: ``read`` makes a plain value of a node or raises :func:`unfit`."""

    def __init__(self, read: Callable[[Node], Any], *schemas: dict[str, Any]) -> None:
        self.read = read
        self._schemas = schemas

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(self.read)

    def __get_pydantic_json_schema__(self, core: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return (
            dict(self._schemas[0]) if len(self._schemas) == 1 else {"anyOf": [dict(s) for s in self._schemas]}
        )


class Also:
    """For a field of a model or a mapping: the shorter spellings that ``normalise`` accepts as well."""

    def __init__(self, normalise: Callable[[Node], Node], *schemas: dict[str, Any]) -> None:
        self._normalise = normalise
        self._schemas = schemas

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_before_validator_function(self._normalise, handler(source))

    def __get_pydantic_json_schema__(self, core: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        inner = handler(core)
        return {"anyOf": [*self._schemas, inner]} if self._schemas else inner


def read_text(node: Node, wanted: str = "a text") -> str:
    """Text, or a number or truth value as it is written."""
    if not isinstance(node, Scalar) or node.is_null:
        raise unfit(node, wanted)
    return node.text


def read_flag(node: Node) -> bool:
    """A truth value in any of the spellings of YAML 1.1 and 1.2."""
    value = TRUTH.get(node.text.lower()) if isinstance(node, Scalar) else None
    if value is None:
        raise unfit(node, "true or false")
    return value


def read_anything(node: Node) -> Node:
    """The node itself, for what is checked later or not at all."""
    return node


def read_file_name(node: Node) -> Node:
    """The node of a file's path, which is meant from the folder of the file that it stands in."""
    read_text(node, "the path of a file")
    return node


def whole(low: int, high: int) -> Kind:
    """A whole number from ``low`` to ``high``."""
    wanted = f"a whole number from {low} to {high}"

    def read(node: Node) -> int:
        text = node.text if isinstance(node, Scalar) else ""
        if not INTEGER.fullmatch(text):
            hint = "write it without the leading zero" if re.fullmatch(r"0[0-9]+", text) else None
            raise unfit(node, wanted, hint=hint)
        number = int(text, 0) if text.startswith(("0o", "0x")) else int(text)
        if not low <= number <= high:
            raise unfit(node, wanted)
        return number

    schema = {"type": "integer", "minimum": low, "maximum": high}
    return Kind(read, schema, {"type": "string", "pattern": r"^[0-9]+$|\$"})


def number(low: float, high: float, *, above: bool = False) -> Kind:
    """A number from ``low`` (or only above it) to ``high``."""
    wanted = f"a number {'above' if above else 'from'} {low:g} {'and up ' if above else ''}to {high:g}"

    def read(node: Node) -> float:
        text = node.text if isinstance(node, Scalar) else ""
        if not NUMBER.fullmatch(text):
            raise unfit(node, wanted)
        value = float(text)
        if not low <= value <= high or (above and value == low):
            raise unfit(node, wanted)
        return value

    bound = "exclusiveMinimum" if above else "minimum"
    return Kind(read, {"type": "number", bound: low, "maximum": high}, {"type": "string"})


def one_of(*words: str) -> Kind:
    """One of some words."""

    def read(node: Node) -> str:
        if not isinstance(node, Scalar) or node.text not in words:
            raise unfit(node, " or ".join(words))
        return node.text

    return Kind(read, {"enum": list(words)}, VARIABLE)


def duration(*, positive: bool = False, never: bool = False) -> Kind:
    """Seconds, written as Compose does; with ``never`` also the word none, as ``math.inf``."""
    suffix = ", or none" if never else ""

    def read(node: Node) -> float:
        if not isinstance(node, Scalar) or node.is_null:
            raise unfit(node, f"a duration such as 500ms, 10s or 1m30s{suffix}")
        if never and node.text == "none":
            return float("inf")
        try:
            seconds = parse_duration(node.text)
        except ValueError as error:
            raise unfit(node, f"{error}{suffix}") from error
        if positive and seconds == 0:
            raise unfit(node, f"a duration above 0{suffix}")
        return seconds

    words = "|none" if never else ""
    return Kind(read, {"type": "string", "pattern": rf"^(({DURATION_PATTERN})+|0{words})$|\$"})


def read_size(node: Node) -> int:
    """A size in bytes, above 0."""
    try:
        size = parse_size(read_text(node, "a size such as 512m or 1.5g"))
    except ValueError as error:
        raise unfit(node, str(error)) from error
    if size == 0:
        raise unfit(node, "a size above 0")
    return size


def _read_percent(node: Node) -> float:
    text = node.text if isinstance(node, Scalar) else ""
    if not re.fullmatch(r"[0-9]{1,3}(\.[0-9]{1,6})?%", text) or float(text[:-1]) > 100:
        raise unfit(node, "a percentage from 0% to 100%")
    return float(text[:-1]) / 100


def _read_share(node: Node) -> float:
    text = node.text if isinstance(node, Scalar) else ""
    if not re.fullmatch(r"[0-9]{1,3}(\.[0-9]{1,6})?%?", text) or float(text.rstrip("%")) > 100:
        raise unfit(node, "a percentage from 0% to 100%")
    return float(text.rstrip("%")) / 100


def read_texts(node: Node) -> tuple[str, ...]:
    """One text, or a list of them."""
    if isinstance(node, ListNode):
        return tuple(read_text(item) for item in node)
    return (read_text(node, "a text or a list of texts"),)


def many(wanted: str) -> Callable[[Node], Node]:
    """For a field that holds a list of models: a check that it is a list."""

    def check(node: Node) -> Node:
        if not isinstance(node, ListNode):
            raise unfit(node, wanted)
        return node

    return check


_TEXT_LIST = {"type": "array", "items": WORDS}

TEXT = Kind(read_text, WORDS)
TEXTS = Kind(read_texts, WORDS, _TEXT_LIST)
FLAG = Kind(read_flag, {"type": "boolean"}, {"enum": ["true", "false", "yes", "no", "on", "off"]}, VARIABLE)
ANYTHING = Kind(read_anything, {})
FILE = Kind(read_file_name, {"type": "string"})
SIZE = Kind(
    read_size, {"type": "integer", "minimum": 1}, {"type": "string", "pattern": rf"^({SIZE_PATTERN})$|\$"}
)
PERCENT = Kind(_read_percent, {"type": "string", "pattern": r"^[0-9]{1,3}(\.[0-9]+)?%$|\$"})
SHARE = Kind(
    _read_share,
    {"type": "number", "minimum": 0, "maximum": 100},
    {"type": "string", "pattern": r"^[0-9]{1,3}(\.[0-9]+)?%?$|\$"},
)
