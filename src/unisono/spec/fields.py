"""
The kinds of values that fields take: how each is read from a node, and its JSON Schema.

A kind reads a node into a plain value or refuses it with what would be right. Which field has which
kind is :mod:`unisono.spec.schema`'s.
"""

from __future__ import annotations

import math
import re
import shlex
import signal
from collections.abc import Callable
from typing import Any, Literal, cast

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from unisono.spec.access import ALL, MAX_PREFIXES, check_prefix
from unisono.spec.nodes import ListNode, MapNode, Node, Scalar, quoted
from unisono.spec.outside import MAX_ADDRESSES, check_address
from unisono.spec.requests import TOKEN, HashOn
from unisono.spec.shared import MAX_TABLE_BYTES, MAX_TABLES, MIN_TABLE_BYTES, Table, overlapping
from unisono.spec.units import DURATION_PATTERN, SIZE_PATTERN, parse_duration, parse_size

VARIABLE = {"type": "string", "pattern": r"\$"}
TRUTH = {
    **dict.fromkeys(("true", "yes", "on", "y", "1"), True),
    **dict.fromkeys(("false", "no", "off", "n", "0"), False),
}
_INTEGER = re.compile(r"[-+]?(0|[1-9][0-9]{0,18})|0o[0-7]{1,21}|0x[0-9a-fA-F]{1,16}")
_NUMBER = re.compile(r"[-+]?([0-9]{1,40}(\.[0-9]{0,40})?|\.[0-9]{1,40})([eE][-+]?[0-9]{1,3})?")
_OPERATORS = re.compile(r"&&|\|\||[|;<>`]|(?<=\s)&(?=\s|$)")
_IN_QUOTES = re.compile(r"""\\.|'[^']*'|"(?:[^"\\]|\\.)*\"""", re.DOTALL)


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
        if not _INTEGER.fullmatch(text):
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
        if not _NUMBER.fullmatch(text):
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


def _read_size(node: Node) -> int:
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


def read_command(node: Node) -> tuple[str, ...]:
    """An argument vector: a list as it is, a text split as a shell would, but with no shell to run it."""
    if isinstance(node, ListNode):
        return tuple(_read_word(item) for item in node)
    text = read_text(node, "a command, as a text or a list")
    try:
        return tuple(shlex.split(text))
    except ValueError as error:
        raise unfit(
            node, "a command with every quote closed", hint="or write it as a list: [program, argument]"
        ) from error


def _read_word(node: Node) -> str:
    if isinstance(node, MapNode) and len(node) == 1 and next(iter(node.values())) == Scalar("", node.mark):
        word = f"{{{next(iter(node))}}}"
        raise unfit(node, "a text", hint=f'write it in quotes: "{word}"; without them it is a mapping')
    return read_text(node)


def shell_operator(text: str) -> str | None:
    """The first unquoted word of ``text`` that only a shell would understand."""
    match = _OPERATORS.search(_IN_QUOTES.sub("_", text))
    return match[0] if match else None


def read_texts(node: Node) -> tuple[str, ...]:
    """One text, or a list of them."""
    if isinstance(node, ListNode):
        return tuple(read_text(item) for item in node)
    return (read_text(node, "a text or a list of texts"),)


def read_environment(node: Node) -> dict[str, str | None]:
    """Names and values, from a mapping or a list of ``NAME=value``; no value: the caller's own."""
    found: dict[str, str | None] = {}
    if isinstance(node, MapNode):
        for name, value in node.items():
            if not isinstance(value, Scalar):
                raise unfit(value, "a text or a number")
            found[_variable_name(name, value)] = None if value.is_null else value.text
    elif isinstance(node, ListNode):
        for item in node:
            name, equals, text = read_text(item, "NAME=value").partition("=")
            found[_variable_name(name, item)] = text if equals else None
    else:
        raise unfit(node, "a mapping of names to values, or a list of NAME=value")
    return found


def _variable_name(name: str, node: Node) -> str:
    if not name or "=" in name or name != name.strip() or any(c.isspace() for c in name):
        raise unfit(node, "NAME=value", found=f"the name {quoted(name)}")
    return name


def _read_signal(node: Node) -> str:
    text = read_text(node, "a signal such as SIGTERM or SIGINT").upper()
    try:
        if text.isdecimal() and len(text) < 4:
            return signal.Signals(int(text)).name
        return signal.Signals[text if text.startswith("SIG") else f"SIG{text}"].name
    except (KeyError, ValueError) as error:
        raise unfit(node, "a signal such as SIGTERM, SIGINT or 15") from error


def _read_restart(node: Node) -> str:
    text = read_text(node, "no, always, on-failure or unless-stopped")
    if not re.fullmatch(r"no|always|unless-stopped|on-failure(:[0-9]{1,6})?", text):
        hint = 'write "no" in quotes' if text in ("false", "False") else None
        raise unfit(node, "no, always, on-failure, on-failure:N or unless-stopped", hint=hint)
    return text


def _read_path(node: Node) -> str:
    text = read_text(node, "a path that begins with /")
    if not text.startswith("/") or re.search(r"[\s?#]", text) or not text.isprintable():
        raise unfit(node, "a path that begins with /, without blanks, ? or #")
    return text


def _read_host(node: Node) -> str:
    text = read_text(node, "a host name").lower()
    label = r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?"
    if len(text) > 253 or not re.fullmatch(rf"{label}(\.{label})*", text):
        hint = "leave out the port; a route fits every port" if ":" in text else None
        raise unfit(node, "a host name such as shop.example", hint=hint)
    return text


def _read_concurrency(node: Node) -> int | Literal["auto"]:
    if isinstance(node, Scalar) and node.text == "auto":
        return "auto"
    if isinstance(node, Scalar) and not _INTEGER.fullmatch(node.text):
        raise unfit(node, "a whole number from 1 to 1000000, or auto")
    return int(whole(1, 1_000_000).read(node))


def _read_share(node: Node) -> float:
    text = node.text if isinstance(node, Scalar) else ""
    if not re.fullmatch(r"[0-9]{1,3}(\.[0-9]{1,6})?%?", text) or float(text.rstrip("%")) > 100:
        raise unfit(node, "a percentage from 0% to 100%")
    return float(text.rstrip("%")) / 100


def _read_name(node: Node) -> str:
    text = read_text(node, "the name of a header or cookie")
    if not TOKEN.fullmatch(text):
        raise unfit(node, "a name of letters, digits, - and _")
    return text


def _read_hash_on(node: Node) -> HashOn:
    wanted = "path, client, {header: NAME} or {cookie: NAME}"
    if isinstance(node, Scalar) and node.text in ("path", "client"):
        return HashOn(of=cast(Any, node.text))
    if isinstance(node, MapNode) and len(node) == 1:
        of, name = next(iter(node.items()))
        if of in ("header", "cookie"):
            return HashOn(of=cast(Any, of), name=_read_name(name))
    raise unfit(node, wanted)


def _read_load(node: Node) -> float:
    if isinstance(node, Scalar) and node.text == "none":
        return math.inf
    text = node.text if isinstance(node, Scalar) else ""
    if not _NUMBER.fullmatch(text) or not 1 <= float(text) <= 100:
        raise unfit(node, "a number from 1 to 100, or none")
    return float(text)


def _read_statuses(node: Node) -> tuple[int, ...]:
    if not isinstance(node, ListNode):
        raise unfit(node, "a list of statuses such as [502, 503, 504]")
    return tuple(int(whole(400, 599).read(item)) for item in node)


def _read_after(node: Node) -> float | None:
    if isinstance(node, Scalar) and node.text == "measured":
        return None
    try:
        seconds = parse_duration(read_text(node, "a duration such as 50ms, or measured"))
    except ValueError as error:
        raise unfit(node, f"{error}, or measured") from error
    if seconds < 0.001:
        raise unfit(node, "a duration of 1ms or more, or measured")
    return seconds


def _read_prefixes(node: Node) -> tuple[str, ...]:
    if isinstance(node, Scalar) and node.text == "all":
        return ALL
    if not isinstance(node, ListNode):
        hint = f"such as [{node.text}]" if isinstance(node, Scalar) and not node.is_null else None
        raise unfit(node, "a list of prefixes, or all", hint=hint)
    if len(node) > MAX_PREFIXES:
        raise unfit(node, f"at most {MAX_PREFIXES}", found=f"{len(node)} prefixes")
    return tuple(dict.fromkeys(map(_read_prefix, node)))


def _read_prefix(node: Node) -> str:
    text = read_text(node, "a prefix such as orders/")
    try:
        return check_prefix(text)
    except ValueError as error:
        raise unfit(node, str(error)) from error


def _read_addresses(node: Node) -> tuple[str, ...]:
    """Addresses that transactions may call."""
    if not isinstance(node, ListNode):
        raise unfit(node, "a list of addresses, such as [https://pay.example.com]")
    if len(node) > MAX_ADDRESSES:
        raise unfit(node, f"at most {MAX_ADDRESSES}", found=f"{len(node)} addresses")
    return tuple(dict.fromkeys(map(_read_address, node)))


def _read_address(node: Node) -> str:
    text = read_text(node, "an address such as https://pay.example.com")
    try:
        return check_address(text)
    except ValueError as error:
        raise unfit(node, str(error)) from error


def _read_tables(node: Node) -> tuple[Table, ...]:
    wanted = "a mapping from prefixes to sizes, such as {prices/: 16m}"
    if not isinstance(node, MapNode):
        raise unfit(node, wanted)
    if len(node) > MAX_TABLES:
        raise unfit(node, f"at most {MAX_TABLES}", found=f"{len(node)} prefixes")
    tables = []
    for prefix, value in node.items():
        try:
            check_prefix(prefix)
        except ValueError as error:
            raise unfit(value, str(error), found=f"the prefix {quoted(prefix)}") from error
        size = _read_size(value)
        if not MIN_TABLE_BYTES <= size <= MAX_TABLE_BYTES:
            raise unfit(value, "a size from 16k to 4g")
        tables.append(Table(prefix=prefix, size=size))
    if both := overlapping(tables):
        found = f"the prefix {quoted(both[1])}, which lies in {quoted(both[0])}"
        raise unfit(node[both[1]], "prefixes of which none begins with another", found=found)
    return tuple(tables)


def many(wanted: str) -> Callable[[Node], Node]:
    """For a field that holds a list of models: a check that it is a list."""

    def check(node: Node) -> Node:
        if not isinstance(node, ListNode):
            raise unfit(node, wanted)
        return node

    return check


_TEXTS = {"type": "array", "items": {"type": ["string", "number", "boolean"]}}
_WORDS = {"type": ["string", "number", "boolean"]}

TEXT = Kind(read_text, _WORDS)
FLAG = Kind(read_flag, {"type": "boolean"}, {"enum": ["true", "false", "yes", "no", "on", "off"]}, VARIABLE)
ANYTHING = Kind(read_anything, {})
FILE = Kind(read_file_name, {"type": "string"})
SIZE = Kind(
    _read_size, {"type": "integer", "minimum": 1}, {"type": "string", "pattern": rf"^({SIZE_PATTERN})$|\$"}
)
PERCENT = Kind(_read_percent, {"type": "string", "pattern": r"^[0-9]{1,3}(\.[0-9]+)?%$|\$"})
COMMAND = Kind(read_command, {"type": "string"}, _TEXTS)
TEXTS = Kind(read_texts, _WORDS, _TEXTS)
ENVIRONMENT = Kind(
    read_environment,
    {"type": "object", "additionalProperties": {"type": ["string", "number", "boolean", "null"]}},
    {"type": "array", "items": {"type": "string"}},
)
SIGNAL = Kind(_read_signal, {"type": ["string", "integer"]})
RESTART = Kind(
    _read_restart, {"type": "string", "pattern": r"^(no|always|unless-stopped|on-failure(:[0-9]+)?)$|\$"}
)
PATH = Kind(_read_path, {"type": "string", "pattern": r"^/|\$"})
HOST = Kind(_read_host, {"type": "string"})
SHARE = Kind(
    _read_share,
    {"type": "number", "minimum": 0, "maximum": 100},
    {"type": "string", "pattern": r"^[0-9]{1,3}(\.[0-9]+)?%?$|\$"},
)
NAME = Kind(_read_name, {"type": "string"})
HASH_ON = Kind(
    _read_hash_on,
    {"enum": ["path", "client"]},
    {"type": "object", "properties": {"header": {"type": "string"}}, "additionalProperties": False},
    {"type": "object", "properties": {"cookie": {"type": "string"}}, "additionalProperties": False},
    VARIABLE,
)
LOAD = Kind(_read_load, {"type": "number", "minimum": 1, "maximum": 100}, {"const": "none"}, VARIABLE)
STATUSES = Kind(
    _read_statuses,
    {"type": "array", "items": {"anyOf": [{"type": "integer", "minimum": 400, "maximum": 599}, VARIABLE]}},
)
AFTER = Kind(_read_after, {"type": "string", "pattern": rf"^(({DURATION_PATTERN})+|measured)$|\$"})
CONCURRENCY = Kind(_read_concurrency, {"type": "integer", "minimum": 1}, {"const": "auto"}, VARIABLE)
ADDRESSES = Kind(_read_addresses, {"type": "array", "items": _WORDS, "maxItems": MAX_ADDRESSES}, VARIABLE)
PREFIXES = Kind(
    _read_prefixes, {"const": "all"}, {"type": "array", "items": _WORDS, "maxItems": MAX_PREFIXES}, VARIABLE
)
TABLES = Kind(
    _read_tables,
    {
        "type": "object",
        "maxProperties": MAX_TABLES,
        "additionalProperties": {
            "anyOf": [{"type": "integer"}, {"type": "string", "pattern": rf"^({SIZE_PATTERN})$|\$"}]
        },
    },
)
