"""
The pipes between instances and the logger: named, so that both ends can be taken up again.

An instance holds its own two pipes open for reading as well as writing: so it has a reader at all times,
and neither the node's end nor the logger's can send it SIGPIPE. What comes out of the pipes is the
business of :mod:`unisono.node.logger`.

Source: pipe(7), fifo(7).
"""

from __future__ import annotations

import array
import asyncio
import fcntl
import os
import termios
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

from unisono.node.paths import StateFolder

LOOK = ".look"  # the pipe by which the logger is told which instance's pipes to look at

# How much an instance may write while nobody reads. The kernel holds an unprivileged user to 64 MiB for
# all of its pipes (pipe-user-pages-soft) and gives tiny ones beyond that, so ask for less then.
_BYTES_AS_ROOT = 1 << 20
_BYTES_AS_USER = 1 << 17


_GATHER_SECONDS = 0.02


class Pipes:
    """The pipes in one state folder; to be used in a running loop."""

    def __init__(self, folder: StateFolder) -> None:
        self._root = folder.pipes
        self._look: int | None = None
        self._news: set[str] = set()
        self._telling: asyncio.TimerHandle | None = None

    def open(
        self, application: str, service: str, instance: str, owner: int | None = None
    ) -> tuple[int, int]:
        """
        File descriptors for stdout and stderr of an instance; the caller closes them.

        ``owner`` is the uid that the instance runs as, if not ours: it may want to open /dev/stdout.

        Raises:
            OSError: They can't be made.
        """
        folder = self._root / application / service
        folder.mkdir(parents=True, exist_ok=True)
        fds: list[int] = []
        try:
            for stream in ("out", "err"):
                path = folder / f"{instance}.{stream}"
                with suppress(FileExistsError):
                    os.mkfifo(path, 0o600)
                # O_RDWR on a fifo neither waits for a reader nor lacks one (fifo(7)).
                fds.append(os.open(path, os.O_RDWR | os.O_CLOEXEC))
                if owner is not None:
                    os.fchown(fds[-1], owner, -1)
                _enlarge(fds[-1])
        except OSError:
            for fd in fds:
                os.close(fd)
            raise
        self._tell_soon(f"{application}/{service}/{instance}")
        return fds[0], fds[1]

    def hold(self, application: str, service: str, instance: str) -> list[int]:
        """
        File descriptors that keep what is in the pipes of an instance; the caller closes them.

        What is in a pipe that nobody has open is lost, and an instance may end before the log process has
        opened its pipes. For reading alone, so that the log process still sees the end of the last writer.
        """
        folder = self._root / application / service
        flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC
        return [os.open(folder / f"{instance}.{stream}", flags) for stream in ("out", "err")]

    def unread(self, application: str, service: str, instance: str) -> bool:
        """Whether the logger has yet to read something that the instance wrote."""
        return any(
            _bytes_in(self._root / application / service / f"{instance}.{stream}") > 0
            for stream in ("out", "err")
        )

    def remove(self, application: str, service: str, instance: str) -> None:
        """Remove an instance's pipes; the logger writes down what is still in them."""
        folder = self._root / application / service
        for stream in ("out", "err"):
            (folder / f"{instance}.{stream}").unlink(missing_ok=True)
        self._tell_soon(f"{application}/{service}/{instance}")
        with suppress(OSError):  # others are still in it
            folder.rmdir()
            folder.parent.rmdir()

    def keep_only(self, instances: Collection[tuple[str, str, str]]) -> None:
        """Remove the pipes of all others, given as (application, service, instance)."""
        found = {path.with_suffix("").relative_to(self._root).parts for path in self._root.glob("*/*/*")}
        for application, service, instance in found - set(instances):
            self.remove(application, service, instance)

    def close(self) -> None:
        """Let go of the logger's pipe."""
        if self._telling is not None:
            self._telling.cancel()
            self._tell()
        if self._look is not None:
            os.close(self._look)
            self._look = None

    def _tell_soon(self, name: str) -> None:
        """
        Tell the logger to look at the pipes of an instance, and of others that come up in this moment.

        Not at once: it would wake up, and be given the processor, between any two of many starts.
        """
        if self._telling is None:
            self._telling = asyncio.get_running_loop().call_later(_GATHER_SECONDS, self._tell)
        self._news.add(name)

    def _tell(self) -> None:
        """If it can't be told, it looks by itself within seconds."""
        names, self._news, self._telling = self._news, set(), None
        if self._look is None:
            path = self._root / LOOK
            with suppress(FileExistsError):
                os.mkfifo(path, 0o600)
            self._look = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        with suppress(BlockingIOError):
            os.write(self._look, "".join(f"{name}\n" for name in names).encode())


def _enlarge(fd: int) -> None:
    size = _BYTES_AS_ROOT if os.geteuid() == 0 else _BYTES_AS_USER
    with suppress(OSError):  # the size it has will do
        if fcntl.fcntl(fd, fcntl.F_GETPIPE_SZ) < size:
            fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, size)


def _bytes_in(path: Path) -> int:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return 0
    try:
        count = array.array("i", [0])
        fcntl.ioctl(fd, termios.FIONREAD, count)
        return count[0]
    finally:
        os.close(fd)
