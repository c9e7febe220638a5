"""
What ``unisono lock run`` does: hold the lock, run the command, end it before the lock can be lost.

The command runs in a process group of its own, gets the signals that come, and dies with this process.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from unisono.cli import output
from unisono.client import connect

if TYPE_CHECKING:
    from unisono.client.holding import Held
    from unisono.client.shared import Shared

TOKEN, FENCE = "UNISONO_FENCING_TOKEN", "UNISONO_FENCE"

_GRACE = 0.1  # of the ttl, from SIGTERM to SIGKILL: half of what is left when loss is announced
_FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_SILENCE = 1.0  # seconds of waiting, after which it is said
_SIGNAL_BASE = 128
_PR_SET_PDEATHSIG = 1


def hold_and_run(
    where: Mapping[str, str], name: str, command: Sequence[str], *, ttl: float, wait: float
) -> int:
    """The command's exit code, or 128 and its signal; KeyboardInterrupt when a signal ended the waiting."""
    try:
        return asyncio.run(_hold_and_run(connect(**where), name, command, ttl=ttl, wait=wait))
    except asyncio.CancelledError:
        raise KeyboardInterrupt from None


class _Signals:
    """Where a signal goes: to the command once it runs, before that it ends the waiting for the lock."""

    def __init__(self, waiting: asyncio.Task[int]) -> None:
        self._waiting = waiting
        self._starting = False
        self._group: int | None = None
        self._early: list[int] = []

    def take(self, number: int) -> None:
        """One has come."""
        if self._group is not None:
            _signal(self._group, number)
        elif self._starting:
            self._early.append(number)
        else:
            self._waiting.cancel()

    def starting(self) -> None:
        """The lock is held, the command is about to run."""
        self._starting = True

    def started(self, group: int) -> None:
        """The command runs; it gets what came meanwhile."""
        self._group = group
        for number in self._early:
            _signal(group, number)


async def _hold_and_run(shared: Shared, name: str, command: Sequence[str], *, ttl: float, wait: float) -> int:
    task: asyncio.Task[int] | None = asyncio.current_task()
    assert task is not None  # noqa: S101 - asyncio.run made one
    signals = _Signals(task)
    loop = asyncio.get_running_loop()
    for number in _FORWARDED:
        loop.add_signal_handler(number, signals.take, number)
    patience = loop.call_later(_SILENCE, output.say, f"waits for the lock {name!r}")
    try:
        async with shared.lock(name, ttl=ttl, wait=wait) as held:
            patience.cancel()
            signals.starting()
            return await _run(command, held, signals, grace=ttl * _GRACE)
    finally:
        patience.cancel()


async def _run(command: Sequence[str], held: Held, signals: _Signals, *, grace: float) -> int:
    """Its exit code, or 128 and the signal that ended it. Cancelled, it is ended before this returns."""
    environment = {**os.environ, TOKEN: str(held.token), FENCE: held.fence}
    process = await asyncio.create_subprocess_exec(
        *command, env=environment, preexec_fn=_prepare(os.getpid(), foreground=os.isatty(0))
    )
    signals.started(process.pid)
    try:
        code = await process.wait()
    except asyncio.CancelledError:  # the lock will be lost
        await _stop(process, grace)
        raise
    finally:
        _take_terminal_back()
    return code if code >= 0 else _SIGNAL_BASE - code


async def _stop(process: asyncio.subprocess.Process, grace: float) -> None:
    """The whole process group, so that nothing that the command started works on without the lock."""
    _signal(process.pid, signal.SIGTERM)
    with suppress(TimeoutError):
        async with asyncio.timeout(grace):
            await process.wait()
    _signal(process.pid, signal.SIGKILL)
    await process.wait()


def _signal(group: int, number: int) -> None:
    with suppress(ProcessLookupError):
        os.killpg(group, number)


def _prepare(parent: int, *, foreground: bool) -> Callable[[], None]:
    """What the child does before it becomes the command: a group of its own, and no life without us."""
    prctl = ctypes.CDLL(None, use_errno=True).prctl  # loaded before the fork, where that is safe

    def prepare() -> None:
        os.setpgid(0, 0)
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(_SIGNAL_BASE + signal.SIGKILL)
        if foreground:  # so that it may read, and gets Ctrl-C itself
            signal.signal(signal.SIGTTOU, signal.SIG_IGN)
            os.tcsetpgrp(0, os.getpid())
            signal.signal(signal.SIGTTOU, signal.SIG_DFL)

    return prepare


def _take_terminal_back() -> None:
    if not sys.stdin.isatty():
        return
    before = signal.signal(signal.SIGTTOU, signal.SIG_IGN)
    os.tcsetpgrp(0, os.getpgrp())
    signal.signal(signal.SIGTTOU, before)
