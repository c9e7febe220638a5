"""
Starting a node in the background, for ``unisono up``.

It says that it is ready as any systemd service does, by READY=1 on NOTIFY_SOCKET; that and its exit are all
that is waited for here. Becoming a node in the foreground is :mod:`.nodeprogram`'s.
"""

from __future__ import annotations

import os
import select
import socket
import subprocess
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from types import MappingProxyType

from unisono.cli.exits import Code, CommandFailed
from unisono.cli.nodeprogram import program
from unisono.client import NotRunning
from unisono.node.paths import StateFolder
from unisono.precedence import give_precedence

READY_TIMEOUT = 30.0  # seconds; a node is ready in well under one


def is_running(folder: StateFolder) -> bool:
    """Whether a node answers for this folder."""
    from unisono.client import NodeClient  # noqa: PLC0415 - HTTP is slow to import

    try:
        NodeClient(folder.api_socket, timeout=5.0).node()
    except NotRunning:
        return False
    return True


def start_in_background(folder: StateFolder, options: Mapping[str, object] = MappingProxyType({})) -> None:
    """
    Start a node that ends by itself once its last application was removed; return when it is ready.

    Args:
        options: Of the node, with their values; ``None``: not given.

    Raises:
        CommandFailed: It did not start; the message is its own.
        KeyboardInterrupt: Ctrl-C; the node has been ended.
    """
    arguments = ["--ends-when-empty"]
    for option, value in options.items():
        if value is not None:
            arguments += [option, str(value)]
    with (
        tempfile.TemporaryDirectory(prefix="unisono-") as private,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify,
        tempfile.TemporaryFile() as said,
    ):
        address = os.path.join(private, "notify")
        notify.bind(address)
        process = subprocess.Popen(
            program(folder, [*arguments, "--log-to-folder"]),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=said,
            cwd="/",
            env={**os.environ, "NOTIFY_SOCKET": address},
            start_new_session=True,
        )
        give_precedence(process.pid)
        try:
            ready = _is_ready(process, notify)
        except KeyboardInterrupt:  # it would wait for ever for its first application
            with suppress(subprocess.TimeoutExpired):
                process.terminate()
                process.wait(READY_TIMEOUT)
            raise
        if not ready:
            said.seek(0)
            raise _failure(process, said.read().decode(errors="replace"))


def _is_ready(process: subprocess.Popen[bytes], notify: socket.socket) -> bool:
    """Wait for the node's word or its end, whichever comes first."""
    exited = os.pidfd_open(process.pid)
    try:
        poll = select.poll()
        poll.register(notify, select.POLLIN)
        poll.register(exited, select.POLLIN)
        while ready := dict(poll.poll(READY_TIMEOUT * 1000)):
            if notify.fileno() in ready and b"READY=1" in notify.recv(4096).split(b"\n"):
                return True
            if exited in ready:
                return False
    finally:
        os.close(exited)
    with suppress(ProcessLookupError):
        process.terminate()
    return False


def _failure(process: subprocess.Popen[bytes], said: str) -> CommandFailed:
    try:
        code = process.wait(timeout=5.0)
    except subprocess.TimeoutExpired:
        return CommandFailed(f"the node was not ready within {READY_TIMEOUT:g} seconds")
    lines = [line for line in said.strip().splitlines() if line]
    hints = [line.removeprefix("hint: ") for line in lines if line.startswith("hint: ")]
    errors = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    message = "\n".join(errors or lines[-1:]) or "it said nothing"
    known = Code(code) if code in (Code.USAGE, Code.REFUSED) else Code.FAILED
    return CommandFailed(f"the node did not start: {message}", code=known, hint=" ".join(hints) or None)


def wait_for_exit(pid: int, timeout: float) -> bool:
    """Wait until a process that is no child of ours has ended; False if it still runs after ``timeout`` s."""
    try:
        exited = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([exited], [], [], timeout)[0])
    finally:
        os.close(exited)


def has_remains(folder: StateFolder) -> bool:
    """Whether a gateway answers with no node beside it: then a node died here and left its work running."""
    from unisono.gateway.link import GatewayLink  # noqa: PLC0415 - asyncio is slow to import

    return GatewayLink(folder.gateway_socket).alive()


def kept_store(folder: StateFolder) -> str | None:
    """The store that a node of this folder was last asked to use, if ever it was."""
    try:
        return folder.kept_store.read_text().partition("\n")[0]
    except FileNotFoundError:
        return None
