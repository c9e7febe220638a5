"""
The gateway's process: found where it runs already, started where it does not, started again when it dies.

The gateway outlives the node on purpose: cancelling :meth:`GatewayProcess.run` leaves it running, and the
next node finds it by its control socket. Its end is seen by pidfd, so nothing is polled while it runs. What
it does is the engine's; what it is told is :mod:`unisono.gateway.link`'s.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from unisono import _engine
from unisono.gateway import presence
from unisono.gateway.errors import GatewayError
from unisono.gateway.link import GatewayLink
from unisono.precedence import give_precedence

_log = logging.getLogger(__name__)

_BACKOFF_SECONDS_MIN = 0.05
_BACKOFF_SECONDS_MAX = 5.0
_BACKOFF_SERVED_SECONDS_MAX = 0.1  # one that had answered can serve: requests should not wait for longer
_HEALTHY_SECONDS = 10.0  # a gateway that has lived so long is started again at once
_START_SECONDS_MAX = 10.0
_LOOK_SECONDS = 0.003  # between two looks for the socket, only while a gateway starts
_HANDOVER_SECONDS_MAX = 25.0  # both sides wait for 10 s at most
_STOP_SECONDS_MAX = 12.0  # it ends its answers within 10 s
_LOG_BYTES_MAX = 1 << 20  # beyond it the log begins anew with the next start


def pause(in_a_row: int, *, served: bool) -> float:
    """
    Seconds before another gateway is started, after so many that ended early.

    The first is replaced at once. One that had ``served`` can serve: requests should not wait long for the
    next, however often somebody kills it. One that can't start is not tried again and again.
    """
    if in_a_row <= 1:
        return 0.0
    backoff: float = min(_BACKOFF_SECONDS_MIN * 2 ** min(in_a_row - 1, 16), _BACKOFF_SECONDS_MAX)
    return min(backoff, _BACKOFF_SERVED_SECONDS_MAX) if served else backoff


class GatewayProcess:
    """
    Keeps one gateway alive at a control socket.

    Args:
        control_socket: Where it answers the node.
        table: File in which it keeps the last routing table.
        log: Where its few lines go; by default beside the table, as ``gateway.log``.
    """

    def __init__(self, control_socket: Path, table: Path, *, log: Path | None = None) -> None:
        self._socket = control_socket.absolute()
        self._table = table.absolute()
        self._log_file = log or table.with_suffix(".log")
        self._pidfd: int | None = None
        self._gone = asyncio.Event()
        self._on_ready: Callable[[], None] | None = None
        self._child: subprocess.Popen[bytes] | None = None
        self.pid: int | None = None  # of the gateway that answers; None while there is none
        self.problem = ""  # why none could be started the last time; empty otherwise

    async def run(
        self,
        on_ready: Callable[[], None] | None = None,
        on_exit: Callable[[], None] | None = None,
        on_failure: Callable[[str], None] | None = None,
    ) -> None:
        """
        Keep a gateway alive until cancelled; it lives on then.

        ``on_ready`` is called each time one answers that did not before: the first, found or started, and
        each that had to be started after it. It has the table from its disk and serves already. One that is
        of another version than this package is told to give its place to one of this. ``on_exit`` is called
        when one that answered has ended by itself, and before the next is started. ``on_failure`` is told
        why none can be started, once for each reason; it is tried again and again.
        """
        self._on_ready = on_ready
        loop = asyncio.get_running_loop()
        in_a_row = 0  # gateways that ended before they had lived for long
        try:
            while True:
                began = loop.time()
                known = self.problem
                pidfd = await self._ensure()
                if pidfd is None and self.problem != known and on_failure is not None:
                    on_failure(self.problem)
                if pidfd is not None:
                    self.problem = ""
                    if on_ready is not None:
                        on_ready()
                    await self._gone.wait()
                    _log.warning("the gateway (process %s) ended by itself; starting another", self.pid)
                    if on_exit is not None:
                        on_exit()
                self._forget()
                in_a_row = 0 if loop.time() - began >= _HEALTHY_SECONDS else in_a_row + 1
                await asyncio.sleep(pause(in_a_row, served=pidfd is not None))
        finally:
            self._close_pidfd()

    async def stop(self) -> None:
        """
        End the gateway, for good: SIGTERM, which lets answers end, and SIGKILL after 12 s.

        To be called once :meth:`run` has been cancelled. Returns when it is gone; none at all is no error.
        """
        if self._pidfd is None:
            self._adopt()
        pidfd = self._pidfd
        if pidfd is None:
            return
        for number in (signal.SIGTERM, signal.SIGKILL):
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(pidfd, number)
            with suppress(TimeoutError):
                async with asyncio.timeout(_STOP_SECONDS_MAX):
                    await self._gone.wait()
                    break
        self._forget()

    async def upgrade(self) -> None:
        """
        Have a new process take the gateway's place, without a connection refused or reset.

        The old one ends with what it carries, after an hour at most. Cancelled, either of the two serves.

        Raises:
            OSError: It could not; the old one serves on.
        """
        await self._replace()
        if self._on_ready is not None:
            self._on_ready()

    async def _replace(self) -> None:
        old, child = self.pid, self._spawn("--take-over")
        deadline = asyncio.get_running_loop().time() + _HANDOVER_SECONDS_MAX
        while asyncio.get_running_loop().time() < deadline:
            if presence.process(self._socket) not in (None, old) and self._adopt():
                self._reap(self._child)
                self._child = child
                _log.info("process %s took the place of process %s as the gateway", self.pid, old)
                return
            if child.poll() is not None:
                raise OSError(f"the new gateway can't start: {self._last_words()}")
            await asyncio.sleep(_LOOK_SECONDS)
        child.kill()
        child.wait()
        raise OSError(f"the new gateway did not serve within {_HANDOVER_SECONDS_MAX:.0f} s")

    async def _ensure(self) -> int | None:
        """Find a gateway or start one; its pidfd, or ``None`` if none answers in the end."""
        if self._adopt():
            _log.info("the gateway runs already, as process %s", self.pid)
            await self._modernise()
            return self._pidfd
        self._child = self._spawn()
        deadline = asyncio.get_running_loop().time() + _START_SECONDS_MAX
        while asyncio.get_running_loop().time() < deadline:
            if self._adopt():
                _log.info("started the gateway, as process %s", self.pid)
                return self._pidfd
            if self._child.poll() is not None:
                self._fail(f"it can't start: {self._last_words()}")
                return None
            await asyncio.sleep(_LOOK_SECONDS)
        self._child.kill()
        self._child.wait()
        self._fail(f"it did not answer within {_START_SECONDS_MAX:.0f} s of its start")
        return None

    def _fail(self, problem: str) -> None:
        _log.error("the gateway does not run: %s", problem)
        self.problem = problem

    def _adopt(self) -> bool:
        """Take the process that answers at the socket as the gateway, if there is one."""
        pid = presence.process(self._socket)
        if pid is None:
            return False
        try:
            pidfd = os.pidfd_open(pid)
        except OSError:
            return False
        self._close_pidfd()
        self._pidfd, self.pid = pidfd, pid
        asyncio.get_running_loop().add_reader(pidfd, self._gone.set)
        return True

    async def _modernise(self) -> None:
        """Have a gateway of another version replaced; where that fails, the old one is better than none."""
        try:
            async with asyncio.timeout(_HANDOVER_SECONDS_MAX):
                found = (await GatewayLink(self._socket).measurements()).get("engine")
                if found != _engine.__version__:
                    _log.info(
                        "the gateway is of version %s, this is %s: replacing it", found, _engine.__version__
                    )
                    await self._replace()
        except (GatewayError, OSError) as error:
            _log.warning("the gateway stays as it is: %s", error)

    def _spawn(self, *options: str) -> subprocess.Popen[bytes]:
        command = [
            sys.executable,
            "-P",
            "-m",
            "unisono.gateway",
            *options,
            str(self._socket),
            str(self._table),
        ]
        with self._open_log() as log:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                env=_environment(),
                start_new_session=True,
            )
        give_precedence(process.pid)
        return process

    def _open_log(self) -> BinaryIO:
        try:
            begins_anew = self._log_file.stat().st_size > _LOG_BYTES_MAX
        except FileNotFoundError:
            begins_anew = True
        return self._log_file.open("wb" if begins_anew else "ab")

    def _last_words(self) -> str:
        try:
            lines = self._log_file.read_text(errors="replace").splitlines()
        except OSError as error:
            return str(error)
        return lines[-1] if lines else "it said nothing"

    @staticmethod
    def _reap(child: subprocess.Popen[bytes] | None) -> None:
        """Take the exit status of a process that is going, whenever it ends, so that no zombie stays."""
        if child is None:
            return
        loop, pidfd = asyncio.get_running_loop(), os.pidfd_open(child.pid)

        def ended() -> None:
            loop.remove_reader(pidfd)
            os.close(pidfd)
            child.poll()

        loop.add_reader(pidfd, ended)

    def _forget(self) -> None:
        self._close_pidfd()
        self.pid = None
        if self._child is not None:
            self._child.poll()  # takes the exit status, so that no zombie stays
            self._child = None

    def _close_pidfd(self) -> None:
        self._gone.clear()
        if self._pidfd is not None:
            asyncio.get_running_loop().remove_reader(self._pidfd)
            os.close(self._pidfd)
            self._pidfd = None


def _environment() -> dict[str, str]:
    """This process's, with a module path that holds in another working directory, too."""
    environment = dict(os.environ)
    if path := environment.get("PYTHONPATH"):
        environment["PYTHONPATH"] = os.pathsep.join(
            os.path.abspath(entry) for entry in path.split(os.pathsep)
        )
    return environment
