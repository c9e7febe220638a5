"""
What Linux tells of processes: who they are, when they end, who belongs to whom.

A process is known by its pid and its start time together: the kernel gives a pid away again, but not
with the same start time within one boot. What instances are is not known here.

Sources: proc(5), pidfd_open(2), waitid(2), setsid(2).
"""

from __future__ import annotations

import asyncio
import os
import resource
import signal
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

FILES_MAX = 65_536
"""Files that a node asks to have open at a time: two for each instance, one for each connection to it."""


@dataclass(frozen=True)
class Stat:
    """A line of /proc/PID/stat, as far as it is needed."""

    pid: int
    state: str
    session: int
    start_time: int  # clock ticks since boot


@cache
def boot_id() -> str:
    """The name that the kernel gave itself at boot."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def read_stat(pid: int) -> Stat | None:
    """The process with this pid, or ``None`` if there is none."""
    try:
        with open(f"/proc/{pid}/stat", "rb", buffering=0) as file:
            line = file.read(1024)
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The name, in parentheses, may contain anything, so count from its last parenthesis.
    fields = line[line.rindex(b")") + 2 :].split()
    return Stat(pid, fields[0].decode(), int(fields[3]), int(fields[19]))


def start_time(pid: int) -> int | None:
    """When the process started, in clock ticks since boot; ``None`` if it is gone or a mere zombie."""
    stat = read_stat(pid)
    return None if stat is None or stat.state in "ZX" else stat.start_time


def all_pids() -> Iterator[int]:
    """The pid of every process that can be seen."""
    return (int(entry.name) for entry in os.scandir("/proc") if entry.name.isdigit())


def environment(pid: int) -> dict[str, str]:
    """
    The environment that the process was started with; empty if it is gone or not ours to read.

    A program may write over it, so what is missing here was not necessarily missing at the start.
    """
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            block = file.read(1 << 20)
    except OSError:
        return {}
    pairs = (item.partition(b"=") for item in block.split(b"\0") if b"=" in item)
    return {os.fsdecode(name): os.fsdecode(value) for name, _, value in pairs}


def members(sessions: Iterable[tuple[int, int]]) -> dict[int, list[int]]:
    """
    The living processes of each session, given as (pid, start time) of who leads or led it.

    A session whose number now belongs to another process has none: the kernel gives a number away again
    only when no process of the old session is left.
    """
    wanted: dict[int, list[int]] = {}
    for pid, started in sessions:
        leader = read_stat(pid)
        if leader is None or leader.start_time == started:
            wanted[pid] = []
    if wanted:
        for pid in all_pids():
            stat = read_stat(pid)
            if stat and stat.session in wanted and stat.state not in "ZX":
                wanted[stat.session].append(pid)
    return wanted


def family(pid: int) -> list[int]:
    """A process and all that descend from it; far cheaper than :func:`members`, but only while it lives."""
    found = [pid]
    for parent in found:
        with suppress(OSError), open(f"/proc/{parent}/task/{parent}/children", "rb") as file:
            found += map(int, file.read().split())
    return found


def send(pid: int, number: int) -> None:
    """Send a signal; a process that is gone is no error."""
    with suppress(ProcessLookupError):
        os.kill(pid, number)


def kill_group(pid: int) -> None:
    """Kill every process of the group; one that is gone is no error."""
    # A group of which only zombies are left answers EPERM on some kernels.
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)


def raise_file_limit() -> tuple[int, int]:
    """
    Let this process have as many files open as it may, up to :data:`FILES_MAX`.

    Returns the limit that there was, soft and hard: it is for the programs that are started, some of which go
    through all numbers up to it.
    """
    before = soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = FILES_MAX if hard == resource.RLIM_INFINITY else min(hard, FILES_MAX)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return before


def limit_files(pid: int, limit: tuple[int, int]) -> None:
    """Give a process a limit of open files, soft and hard; one that is gone is no error."""
    with suppress(OSError):
        resource.prlimit(pid, resource.RLIMIT_NOFILE, limit)


class Handle:
    """
    A hold on one process by a pidfd: it can't be mistaken for another, and its end is an event.

    Must be made in a running loop. ``close`` lets go and leaves the process as it is.
    """

    def __init__(self, pid: int) -> None:
        """
        Take hold of the process that has this pid now.

        Raises:
            ProcessLookupError: There is none.
        """
        self.pid = pid
        self._fd = os.pidfd_open(pid)
        self._loop = asyncio.get_running_loop()
        self._ended: asyncio.Future[None] = self._loop.create_future()
        self._loop.add_reader(self._fd, self._on_end)

    def _on_end(self) -> None:
        self._loop.remove_reader(self._fd)
        if not self._ended.done():
            self._ended.set_result(None)

    async def ended(self) -> None:
        """Wait for the end; many may wait, and cancelling a wait harms no other."""
        await asyncio.shield(self._ended)

    def send(self, number: int) -> None:
        """Send a signal to this very process; if it has ended this is no error."""
        if self._fd < 0:
            return
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._fd, number)

    def reap(self) -> int | None:
        """The exit code after the end, negative for a signal; ``None`` if it is not our child."""
        try:
            result = os.waitid(os.P_PIDFD, self._fd, os.WEXITED | os.WNOHANG)
        except ChildProcessError:
            return None
        if result is None:
            return None
        return result.si_status if result.si_code == os.CLD_EXITED else -result.si_status

    def close(self) -> None:
        """Let go; a second call does nothing."""
        if self._fd >= 0:
            self._loop.remove_reader(self._fd)
            os.close(self._fd)
            self._fd = -1
            self._ended.cancel()
