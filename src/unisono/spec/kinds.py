"""
The kinds of values that have a grammar of their own: commands, variables, signals, hosts, prefixes, tables …

What a kind is, and those that many fields have, are :mod:`unisono.spec.fields`'.
"""

from __future__ import annotations

import math
import re
import shlex
import signal
from typing import Any, Literal, cast

from unisono.spec.access import ALL, MAX_PREFIXES, check_prefix
from unisono.spec.fields import INTEGER, NUMBER, VARIABLE, WORDS, Kind, read_size, read_text, unfit, whole
from unisono.spec.nodes import ListNode, MapNode, Node, Scalar, quoted
from unisono.spec.outside import MAX_ADDRESSES, check_address
from unisono.spec.requests import TOKEN, HashOn
from unisono.spec.shared import MAX_TABLE_BYTES, MAX_TABLES, MIN_TABLE_BYTES, Table, overlapping
from unisono.spec.units import DURATION_PATTERN, SIZE_PATTERN, parse_duration

_OPERATORS = re.compile(r"&&|\|\||[|;<>`]|(?<=\s)&(?=\s|$)")
_IN_QUOTES = re.compile(r"""\\.|'[^']*'|"(?:[^"\\]|\\.)*\"""", re.DOTALL)


def _read_command(node: Node) -> tuple[str, ...]:
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


def _read_environment(node: Node) -> dict[str, str | None]:
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
    if isinstance(node, Scalar) and not INTEGER.fullmatch(node.text):
        raise unfit(node, "a whole number from 1 to 1000000, or auto")
    return int(whole(1, 1_000_000).read(node))


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
    if not NUMBER.fullmatch(text) or not 1 <= float(text) <= 100:
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
        size = read_size(value)
        if not MIN_TABLE_BYTES <= size <= MAX_TABLE_BYTES:
            raise unfit(value, "a size from 16k to 4g")
        tables.append(Table(prefix=prefix, size=size))
    if both := overlapping(tables):
        found = f"the prefix {quoted(both[1])}, which lies in {quoted(both[0])}"
        raise unfit(node[both[1]], "prefixes of which none begins with another", found=found)
    return tuple(tables)


COMMAND = Kind(_read_command, {"type": "string"}, {"type": "array", "items": WORDS})
ENVIRONMENT = Kind(
    _read_environment,
    {"type": "object", "additionalProperties": {"type": ["string", "number", "boolean", "null"]}},
    {"type": "array", "items": {"type": "string"}},
)
SIGNAL = Kind(_read_signal, {"type": ["string", "integer"]})
RESTART = Kind(
    _read_restart, {"type": "string", "pattern": r"^(no|always|unless-stopped|on-failure(:[0-9]+)?)$|\$"}
)
PATH = Kind(_read_path, {"type": "string", "pattern": r"^/|\$"})
HOST = Kind(_read_host, {"type": "string"})
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
ADDRESSES = Kind(_read_addresses, {"type": "array", "items": WORDS, "maxItems": MAX_ADDRESSES}, VARIABLE)
PREFIXES = Kind(
    _read_prefixes, {"const": "all"}, {"type": "array", "items": WORDS, "maxItems": MAX_PREFIXES}, VARIABLE
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
