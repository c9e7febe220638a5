"""
What of an application's shared state each machine mirrors in memory that the application's instances read.

Each prefix has a table of its own, whose size is its quota. Pure, and immutable as all of
:mod:`unisono.spec.model`, of which it is a part.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from unisono.spec.access import Access, check_prefix

MAX_TABLES = 16  # of one application
DEFAULT_NODE_BYTES = 256 * 1024 * 1024  # of all tables of a node
MIN_TABLE_BYTES, MAX_TABLE_BYTES = 16 * 1024, 1 << 32


@dataclass(frozen=True, kw_only=True)
class Table:
    """Keys that begin with ``prefix`` are mirrored in ``size`` bytes of memory on each machine."""

    prefix: str
    size: int

    def __post_init__(self) -> None:
        try:
            check_prefix(self.prefix)
        except ValueError as error:
            raise ValueError(f"shared has the prefix {self.prefix!r}, want {error}") from error
        if not MIN_TABLE_BYTES <= self.size <= MAX_TABLE_BYTES:
            raise ValueError(f"shared.{self.prefix} is {self.size} bytes, want 16k to 4g")


def overlapping(tables: Iterable[Table]) -> tuple[str, str] | None:
    """The first two prefixes of which one begins with the other, the shorter one first."""
    last = ""
    for prefix in sorted(table.prefix for table in tables):
        if last and prefix.startswith(last):
            return last, prefix
        last = prefix
    return None


def given_to(access: Access | None, tables: Iterable[Table]) -> tuple[Table, ...]:
    """
    The tables that a service gets to see: those of which it may read everything.

    Memory can't ask who reads it, so a table that holds a key which the service may not read is not for it.
    """
    return tuple(table for table in tables if access is None or access.may_read(table.prefix))
