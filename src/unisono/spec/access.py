"""
What a service may see and change of the state that the services of its application share.

It goes by the beginning of a key's, lock's or quota's name; asking before each request is the API's.
Pure, and immutable as all of :mod:`unisono.spec.model`, of which it is a part.
"""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass

MAX_PREFIXES = 100
MAX_PREFIX_BYTES = 512  # as long as the longest key

ALL = ("",)
"""In place of prefixes: every name begins so."""


@dataclass(frozen=True, kw_only=True)
class Access:
    """
    The prefixes of the names that a service may read, and of those that it may write.

    What it may write it may read as well: who may change a value under a condition can find it out.
    """

    read: tuple[str, ...] = ()
    write: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for prefixes in (self.read, self.write):
            if len(prefixes) > MAX_PREFIXES:
                raise ValueError(f"access has {len(prefixes)} prefixes, want at most {MAX_PREFIXES}")
            for prefix in prefixes if prefixes != ALL else ():
                try:
                    check_prefix(prefix)
                except ValueError as error:
                    raise ValueError(f"access has the prefix {prefix!r}, want {error}") from error

    def may_read(self, name: str) -> bool:
        """Whether ``name`` may be read; of a prefix: whether all that begins with it may."""
        return name.startswith(self.read) or name.startswith(self.write)

    def may_write(self, name: str) -> bool:
        """Whether ``name`` may be written; of a prefix: whether all that begins with it may."""
        return name.startswith(self.write)


def check_prefix(prefix: str) -> str:
    """A prefix, if a name can begin with it; else ValueError, which says what would be right."""
    if any(unicodedata.category(character) in ("Cc", "Cs") for character in prefix):
        raise ValueError("a prefix without control characters")
    if not 1 <= len(prefix.encode()) <= MAX_PREFIX_BYTES:
        raise ValueError(f"a prefix of 1 to {MAX_PREFIX_BYTES} bytes, or all in place of the list")
    return prefix
