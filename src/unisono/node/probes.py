"""
Probes: is one instance well, right now?

A probe is one question with one answer and a time limit. When probes are due and what their answers mean
is :mod:`unisono.node.lifecycle`'s; whether a port is listened on at all is
:mod:`unisono.node.listening`'s.

They run every second for every instance, so they are written on bare sockets: a client library would
cost several times the request.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from types import MappingProxyType

from unisono.node import processes
from unisono.node.drivers import surroundings
from unisono.node.drivers.base import CannotStart
from unisono.spec.model import HealthCheck, ServiceSpec

# How much later than its limit a probe may notice that it is over before the node itself is to blame: a
# busy machine is no proof against the instance.
_LATE_SECONDS = 0.5
_HEAD_BYTES_MAX = 16384
_NO_LINKS: Mapping[str, str] = MappingProxyType({})


class Ill(Exception):
    """The instance is not well; the message says why, in words for ``unisono ps``."""


class Inconclusive(Exception):
    """The node was too busy to tell: ask again."""


async def probe(
    spec: ServiceSpec, address: str | None, *, port: int | None = None, links: Mapping[str, str] = _NO_LINKS
) -> None:
    """
    Ask an instance of ``spec`` once, as its health check says; returns if it is well.

    ``address`` is where it answers. A command runs as the instance itself does: in its folder, as its user,
    with its variables, among them ``port`` and ``links``; cancelled, all that it started is killed.

    Raises:
        Ill: It is not.
        Inconclusive: Nobody knows.
    """
    check = spec.healthcheck
    loop = asyncio.get_running_loop()
    deadline = loop.time() + check.timeout
    what = _name(check, address)
    try:
        async with asyncio.timeout_at(deadline):
            if check.kind == "command":
                command = tuple(surroundings.with_port(part, port) for part in check.command)
                await _command(command, spec, surroundings.variables(spec, links, port))
            elif address is None:
                raise Ill(f"{what}: the instance has no port")
            elif check.kind == "http":
                await _http(_at_port(address, check.port), check.path, what)
            else:
                await _tcp(address, what)
    except TimeoutError:
        if loop.time() - deadline > _LATE_SECONDS:
            raise Inconclusive from None
        raise Ill(f"{what} did not answer within {check.timeout:g} s") from None


def _at_port(address: str, port: int | None) -> str:
    """The same host at another port, if there is one."""
    return address if port is None else f"{address.rpartition(':')[0]}:{port}"


async def _tcp(address: str, what: str) -> None:
    with await _connect(address, what):
        pass


async def _http(address: str, path: str, what: str) -> None:
    request = (
        f"GET {path} HTTP/1.1\r\nHost: {address}\r\nUser-Agent: unisono-probe\r\n"
        "Accept: */*\r\nConnection: close\r\n\r\n"
    )
    loop = asyncio.get_running_loop()
    with await _connect(address, what) as connection:
        try:
            await loop.sock_sendall(connection, request.encode("latin-1", "replace"))
            head = b""
            while b"\n" not in head and len(head) < _HEAD_BYTES_MAX:
                data = await loop.sock_recv(connection, 4096)
                if not data:
                    break
                head += data
        except OSError as error:
            raise Ill(f"{what}: {_words(error)}") from None
    _judge(head, what)


def _judge(head: bytes, what: str) -> None:
    """2xx and 3xx are well: a redirect shows that the program works."""
    parts = head.split(b"\n", 1)[0].split(None, 2)
    if len(parts) < 2 or not parts[0].startswith(b"HTTP/") or not parts[1].isdigit():
        found = "nothing" if not head else repr(head[:40].decode("latin-1"))
        raise Ill(f"{what} answered {found}, which is no HTTP")
    code = int(parts[1])
    if not 200 <= code <= 399:
        raise Ill(f"{what} answered {code}")


async def _connect(address: str, what: str) -> socket.socket:
    host, _, port = address.rpartition(":")
    family = socket.AF_INET6 if host.startswith("[") else socket.AF_INET
    connection = socket.socket(family, socket.SOCK_STREAM)
    connection.setblocking(False)
    try:
        await asyncio.get_running_loop().sock_connect(connection, (host.strip("[]"), int(port)))
    except OSError as error:
        connection.close()
        raise Ill(f"{what}: {_words(error)}") from None
    except BaseException:
        connection.close()
        raise
    return connection


async def _command(command: tuple[str, ...], spec: ServiceSpec, environment: Mapping[str, str]) -> None:
    """
    Run it in a session of its own, so that all of it can be ended when its time is over.

    Its output goes to /dev/null: what a user would want to read of it is in its exit code.
    """
    pid = _start(command, spec, environment)
    handle = processes.Handle(pid)
    try:
        await handle.ended()
    finally:
        processes.kill_group(pid)  # not reaped yet, so the number is still its own
        # What is killed ends at once, but for a disk that hangs, and that must not hang the node.
        with suppress(TimeoutError):
            async with asyncio.timeout(1.0):
                await handle.ended()
        code = handle.reap()
        handle.close()
    if code is not None and code < 0:
        raise Ill(f"health command {command[0]} was killed by {signal.Signals(-code).name}")
    if code:
        raise Ill(f"health command {command[0]} exited with {code}")


def _start(command: tuple[str, ...], spec: ServiceSpec, environment: Mapping[str, str]) -> int:
    try:
        # Its user may be able to change the command's file: what he writes there must not run as the node.
        account = surroundings.account_of(spec.user)
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd=spec.working_dir,
            env=environment,
            start_new_session=True,
            **account,
        )
    except CannotStart as error:
        raise Ill(f"health command {command[0]}: {error}") from None
    except OSError as error:
        raise Ill(f"health command {command[0]}: {error.strerror}") from None
    process.returncode = 0  # reaped by pidfd, not by subprocess
    return process.pid


def _words(error: OSError) -> str:
    """The system's words: asyncio puts its own in their place."""
    return os.strerror(error.errno).lower() if error.errno else str(error)


def _name(check: HealthCheck, address: str | None) -> str:
    match check.kind:
        case "http":
            return f"http {'' if check.port is None else f'port {check.port} '}{check.path}"
        case "command":
            return f"health command {os.path.basename(check.command[0]) if check.command else ''}"
        case _:
            return f"tcp {address}"
