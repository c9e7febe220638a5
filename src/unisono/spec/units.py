"""
Durations and sizes as Compose writes them, both ways.

Inside they are seconds and bytes. Each ``format_`` gives a text that its ``parse_`` reads as the very
same number.
"""

from __future__ import annotations

import re
from fractions import Fraction

MAX_DURATION = 365 * 86_400.0
MAX_SIZE = 2**62

DURATION_PATTERN = r"(\d+(\.\d*)?|\.\d+)(ns|us|µs|ms|s|m|h|d|w)"
SIZE_PATTERN = r"(\d+(\.\d*)?|\.\d+)\s*([bB]|[kKmMgGtTpP]([iI]?[bB])?)?"

_NANOSECONDS = {
    "w": 604_800 * 10**9,
    "d": 86_400 * 10**9,
    "h": 3_600 * 10**9,
    "m": 60 * 10**9,
    "s": 10**9,
    "ms": 10**6,
    "us": 10**3,
    "µs": 10**3,
    "ns": 1,
}
_WRITTEN = ("h", "m", "s", "ms", "us", "ns")
_POWERS = "bkmgtp"
_PART = re.compile(DURATION_PATTERN, re.ASCII)
_LONGEST = 64  # characters; a longer text is no duration that anybody wrote


def parse_duration(text: str) -> float:
    """
    Seconds of a text such as ``1m30s``, ``500ms`` or ``1.5h``; ``0`` needs no unit.

    Raises:
        ValueError: It is none, or longer than MAX_DURATION; the message says what would be right.
    """
    if text == "0":
        return 0.0
    if len(text) <= _LONGEST and re.fullmatch(r"[0-9]+(\.[0-9]+)?", text):
        raise ValueError(f"a number with its unit, such as {text}s or {text}ms")
    total, position = Fraction(0), 0
    while position < len(text) <= _LONGEST:
        part = _PART.match(text, position)
        if part is None:
            break
        total += Fraction("0" + part[1].rstrip(".")) * _NANOSECONDS[part[3]]
        position = part.end()
    if not text or position < len(text):
        raise ValueError("a duration such as 500ms, 10s or 1m30s")
    seconds = round(total) / 10**9
    if seconds > MAX_DURATION:
        raise ValueError("a duration of at most 365 days")
    return seconds


def format_duration(seconds: float) -> str:
    """The shortest such text with whole numbers: ``1m30s``; below a nanosecond is rounded."""
    left = round(Fraction(seconds) * 10**9)
    text = ""
    for unit in _WRITTEN:
        count, left = divmod(left, _NANOSECONDS[unit])
        if count:
            text += f"{count}{unit}"
    return text or "0s"


def parse_size(text: str) -> int:
    """
    Bytes of a text such as ``512m``, ``1.5gb`` or ``1024``; k is 1024, as in Compose.

    Raises:
        ValueError: It is none, or above MAX_SIZE; the message says what would be right.
    """
    match = re.fullmatch(SIZE_PATTERN, text, re.ASCII) if len(text) <= _LONGEST else None
    if match is None:
        raise ValueError("a size such as 512m or 1.5g, or a number of bytes")
    power = _POWERS.index(match[3][0].lower()) if match[3] else 0
    size = int(Fraction("0" + match[1].rstrip(".")) * 1024**power)
    if size > MAX_SIZE:
        raise ValueError(f"a size of at most {MAX_SIZE} bytes")
    return size


def format_size(size: int) -> str:
    """The same with the largest unit that divides it: ``512m``."""
    power = 0
    while size and power < len(_POWERS) - 1 and size % 1024 == 0:
        size //= 1024
        power += 1
    return f"{size}{_POWERS[power]}"
