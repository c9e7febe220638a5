"""
How much of its history a store keeps: the last so many revisions, and fewer where they hold many bytes. Pure.

What is current is never counted as history that may go; compaction leaves it alone.
"""

from __future__ import annotations

from collections import deque

_STEPS = 8  # parts of the bytes after which it is looked at again: not at each revision
_SLACK = 10  # parts of the revisions likewise


class Retention:
    """
    Where history may end, as far as this process has seen it grow.

    Args:
        revisions: At least so many are kept, unless they hold too much.
        size: Bytes of keys and values, written since, beyond which a revision may go; one store transaction
            may lie beyond it.
        newest: The revision at the start. What lies before it counts as nothing until ``size`` was written.
    """

    def __init__(self, revisions: int, size: int, newest: int) -> None:
        self._revisions = revisions
        self._size = size
        self._written = 0
        self._marks = deque([(newest, 0)])  # revisions, and what had been written when they were the newest
        self._beyond = 0  # the last revision after which ``size`` was written

    def wrote(self, revision: int, size: int) -> None:
        """``size`` more bytes were written, up to ``revision``."""
        self._written += size
        if self._written - self._marks[-1][1] >= self._size // _STEPS:
            self._marks.append((revision, self._written))
            while self._written - self._marks[0][1] >= self._size and len(self._marks) > 1:
                self._beyond = self._marks.popleft()[0]

    def due(self, newest: int, compacted: int) -> int | None:
        """The revision up to which history is to be compacted now; ``None`` while that is not worth it."""
        floor = newest - self._revisions
        if self._beyond > compacted or floor - compacted > self._revisions // _SLACK:
            return max(floor, self._beyond)
        return None
