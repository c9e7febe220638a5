"""
What every store refuses before it does anything: one set of checks, so that all refuse the same.

Pure functions that raise ValueError with what was found and what would be right. The figures are part
of the promise and stand in :mod:`unisono.store.base`; whether a lease lives is the engine's to know.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

from unisono.store.base import (
    MAX_KEY_BYTES,
    MAX_OPERATIONS,
    MAX_TRANSACTION_BYTES,
    MAX_TTL,
    MAX_VALUE_BYTES,
    Compare,
    Delete,
    Field,
    Put,
)

_LAST_BEFORE_SURROGATES = 0xD7FF
_FIRST_AFTER_SURROGATES = 0xE000
_LAST_CODE_POINT = 0x10FFFF


def check_key(key: str) -> None:
    """Refuse what can't be a key."""
    if not key:
        raise ValueError("a key is empty; it needs at least one character")
    check_prefix(key)


def check_prefix(prefix: str) -> None:
    """Refuse what can't be the beginning of a key; empty, it is the beginning of all."""
    if not isinstance(prefix, str):
        raise ValueError(f"a key must be text, found {type(prefix).__name__}")
    if prefix.isascii() and len(prefix) <= MAX_KEY_BYTES:
        return
    try:
        size = len(prefix.encode())
    except UnicodeEncodeError:
        raise ValueError(f"key {_shown(prefix)} holds half a surrogate pair, which UTF-8 can't") from None
    if size > MAX_KEY_BYTES:
        raise ValueError(f"key {_shown(prefix)} has {size} bytes; at most {MAX_KEY_BYTES} are allowed")


def check_transaction(
    compares: Sequence[Compare], success: Sequence[Put | Delete], failure: Sequence[Put | Delete]
) -> int:
    """
    Refuse a transaction that is over a limit or changes one key twice.

    Returns:
        Its size in bytes: its keys and values.
    """
    count = len(compares) + len(success) + len(failure)
    if count > MAX_OPERATIONS:
        raise ValueError(f"a transaction has {count} operations; at most {MAX_OPERATIONS} are allowed")
    size = sum(map(_check_compare, compares)) + _check_operations(success) + _check_operations(failure)
    if size > MAX_TRANSACTION_BYTES:
        raise ValueError(f"a transaction has {size} bytes; at most {MAX_TRANSACTION_BYTES} are allowed")
    return size


def check_put(key: str, value: object) -> int:
    """Refuse a key or a value that is over a limit; else their size in bytes."""
    check_key(key)
    return len(key) + _check_value(key, value)


def check_ttl(ttl: float) -> None:
    """Refuse what can't be the time of a lease."""
    if not (math.isfinite(ttl) and 0 < ttl <= MAX_TTL):
        raise ValueError(f"a lease of {ttl} s; it must be above 0 s and at most {MAX_TTL:.0f} s")


def check_revision(revision: int, newest: int) -> None:
    """Refuse a revision that has not been, ``newest`` being the last."""
    if not 0 <= revision <= newest:
        raise ValueError(f"revision {revision} does not exist; the newest is {newest}")


def prefix_end(prefix: str) -> str | None:
    """
    The least text above all that begin with ``prefix``, in the order of code points (that of UTF-8 too).

    ``None`` if there is none: all text from ``prefix`` on begins with it.
    """
    for at in range(len(prefix) - 1, -1, -1):
        point = ord(prefix[at])
        if point == _LAST_BEFORE_SURROGATES:
            return prefix[:at] + chr(_FIRST_AFTER_SURROGATES)
        if point < _LAST_CODE_POINT:
            return prefix[:at] + chr(point + 1)
    return None


def _check_compare(compare: Compare) -> int:
    check_key(compare.key)
    target = compare.target
    if compare.field is Field.VALUE:
        return len(compare.key) + _check_value(compare.key, target)
    if not isinstance(target, int):
        found = type(target).__name__
        raise ValueError(
            f"compare of {_shown(compare.key)}: {compare.field} is a whole number, found {found}"
        )
    return len(compare.key)


def _check_operations(operations: Sequence[Put | Delete]) -> int:
    size = sum(map(_check_operation, operations))
    if len(operations) > 1:
        _check_overlap(operations)
    return size


def _check_operation(operation: Put | Delete) -> int:
    if isinstance(operation, Put):
        return check_put(operation.key, operation.value)
    if operation.prefix:
        check_prefix(operation.key)
    else:
        check_key(operation.key)
    return len(operation.key)


def _check_value(key: str, value: object) -> int:
    if not isinstance(value, bytes):
        raise ValueError(f"the value of {_shown(key)} must be bytes, found {type(value).__name__}")
    if len(value) > MAX_VALUE_BYTES:
        raise ValueError(
            f"the value of {_shown(key)} has {len(value)} bytes; at most {MAX_VALUE_BYTES} are allowed"
        )
    return len(value)


def _check_overlap(operations: Sequence[Put | Delete]) -> None:
    # In the order of keys, what begins with a prefix follows it at once: neighbours are enough.
    spans = sorted((o.key, not (isinstance(o, Delete) and o.prefix)) for o in operations)
    for (key, exact), (follower, _) in pairwise(spans):
        if follower == key or (not exact and follower.startswith(key)):
            raise ValueError(f"a transaction changes key {_shown(follower)} twice")


def _shown(key: str) -> str:
    return ascii(key if len(key) <= 60 else key[:57] + "...")
