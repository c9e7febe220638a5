"""What was read last, for those who need not have the newest; how old it may be is the reader's to say."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

from unisono.store.base import Entry

_BYTES_MAX = 16 * 1024 * 1024
_ENTRY_BYTES = 256  # beside key and value


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What the store answered to a question asked at ``asked``, in seconds of the reader's clock."""

    entry: Entry | None
    revision: int
    asked: float


class Cache:
    """The answers last used, by key, up to a number of bytes."""

    def __init__(self) -> None:
        self._seen: OrderedDict[str, Seen] = OrderedDict()
        self._bytes = 0

    def get(self, key: str) -> Seen | None:
        """What is known of ``key``, however old; ``None``: nothing is."""
        seen = self._seen.get(key)
        if seen is not None:
            self._seen.move_to_end(key)
        return seen

    def put(self, key: str, seen: Seen) -> None:
        """Keep an answer, unless a newer one is kept already."""
        before = self._seen.pop(key, None)
        if before is not None:
            self._bytes -= _size(key, before)
            if before.revision > seen.revision:
                seen = before  # an answer that was overtaken on its way
        self._seen[key] = seen
        self._bytes += _size(key, seen)
        while self._bytes > _BYTES_MAX:
            oldest, dropped = self._seen.popitem(last=False)
            self._bytes -= _size(oldest, dropped)


def _size(key: str, seen: Seen) -> int:
    return _ENTRY_BYTES + len(key) + (0 if seen.entry is None else len(seen.entry.value))
