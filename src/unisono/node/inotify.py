"""
Waiting for changes in folders, without looking again and again.

A thin layer over the kernel's own interface, which Python's library lacks. Source: inotify(7).
"""

from __future__ import annotations

import asyncio
import ctypes
import os
from pathlib import Path

_IN_MODIFY, _IN_MOVED_TO, _IN_CREATE, _IN_DELETE = 0x2, 0x80, 0x100, 0x200
_MASK = _IN_MODIFY | _IN_MOVED_TO | _IN_CREATE | _IN_DELETE

_libc = ctypes.CDLL(None, use_errno=True)


class Changes:
    """An event that comes whenever something in one of the watched folders was written, made or removed."""

    def __init__(self) -> None:
        """
        Watch nothing yet.

        Raises:
            OSError: The user's share of inotify instances is used up.
        """
        self._fd: int = _libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if self._fd < 0:
            raise _error("inotify_init1")
        self._changed = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._fd, self._on_readable)

    def watch(self, folder: Path) -> None:
        """
        Watch the entries of this folder, too; watching it twice is no error.

        Raises:
            OSError: It does not exist, or the user's share of watches is used up.
        """
        if _libc.inotify_add_watch(self._fd, os.fsencode(folder), _MASK) < 0:
            raise _error(f"inotify_add_watch {folder}")

    async def changed(self) -> None:
        """Wait until something has changed since the last call returned."""
        await self._changed.wait()
        self._changed.clear()

    def _on_readable(self) -> None:
        os.read(self._fd, 1 << 16)  # what changed does not matter: readers look at their files themselves
        self._changed.set()

    def close(self) -> None:
        """Stop watching."""
        self._loop.remove_reader(self._fd)
        os.close(self._fd)


def _error(what: str) -> OSError:
    number = ctypes.get_errno()
    return OSError(number, f"{what}: {os.strerror(number)}")
