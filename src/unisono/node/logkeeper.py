"""
Keeps the log process alive: finds the one that runs, or starts one, and another when it ends.

What the log process does is :mod:`unisono.node.logger`'s. Nothing is lost between two of them: the
pipes hold what instances write meanwhile.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress

from unisono.node import logger, processes
from unisono.node.paths import StateFolder

_RETRY_SECONDS_MAX = 5.0


class LogKeeper:
    """Looks after the log process of one state folder."""

    def __init__(self, folder: StateFolder, tell: Callable[[str], None]) -> None:
        """``tell`` is called with a message when the log process had to be started again."""
        self._folder = folder
        self._tell = tell
        self.pid: int | None = None
        self.running = asyncio.Event()  # set while a log process is known to run

    async def run(self) -> None:
        """Until cancelled; the log process goes on."""
        wait = 0.0
        started_before = False
        while True:
            self.pid = self._holder()
            if self.pid is None:
                if started_before:
                    self._tell("the log process had ended and was started again")
                await asyncio.sleep(wait)
                wait = min(_RETRY_SECONDS_MAX, max(0.05, wait * 2))
                self.pid = self._start()
            started_before = True
            try:
                handle = processes.Handle(self.pid)
            except ProcessLookupError:
                continue
            self.running.set()
            try:
                began = asyncio.get_running_loop().time()
                await handle.ended()
                handle.reap()
                if asyncio.get_running_loop().time() - began > _RETRY_SECONDS_MAX:
                    wait = 0.0
            finally:
                self.running.clear()
                handle.close()

    async def stop(self) -> None:
        """End the log process once it has written down what there is; for when nothing is left to run."""
        pid = self._holder() or self.pid  # one that was started this moment does not hold the lock yet
        if pid is None:
            return
        with suppress(ProcessLookupError):
            handle = processes.Handle(pid)
            try:
                handle.send(signal.SIGTERM)
                await handle.ended()
                handle.reap()
            finally:
                handle.close()

    def rests(self) -> bool:
        """Whether the log process waits for something to read: it has written down all that it has read."""
        stat = None if self.pid is None else processes.read_stat(self.pid)
        return stat is not None and stat.state == "S"

    def _holder(self) -> int | None:
        """The pid of the log process that holds the lock."""
        path = self._folder.path / "logger.lock"
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            written = os.pread(fd, 32, 0).strip()
            return int(written) if written.isdigit() else None
        finally:
            os.close(fd)
        return None

    def _start(self) -> int:
        # By its file and isolated (-I -S): neither our package nor site-packages are loaded into a process
        # that should stay small.
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", logger.__file__, str(self._folder.path)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
            start_new_session=True,
        )
        process.returncode = 0  # reaped by pidfd
        return process.pid
