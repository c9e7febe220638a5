"""
Addresses to listen at: read from text, tried out, given out; and who has one that is taken.

Which application may have which route or port is :mod:`unisono.control.addresses`'.
"""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from pathlib import Path

from unisono.control.errors import Conflict
from unisono.node.listening import NetlinkRefused, SocketTable
from unisono.node.ports import NoPort, Ports

INTERNAL_PORTS = range(20_000, 21_000)
"""The gateway's own addresses, one for each service, for services that call services."""


class BadAddress(ValueError):
    """A text that is no address to listen at; the message says what would be one."""


def parse_address(text: str) -> tuple[str, int]:
    """
    "127.0.0.1:8080" or "[::1]:8080" as host and port.

    Raises:
        BadAddress: It is none.
    """
    host, _, port = text.rpartition(":")
    if not host or not re.fullmatch("[0-9]{1,5}", port) or not 0 < int(port) < 65_536:
        raise BadAddress(f"{text!r} is no HOST:PORT, such as 127.0.0.1:8080")
    return host.strip("[]"), int(port)


class InternalPorts:
    """
    The internal ports of one node's services, reserved on the machine until its process ends.

    Two nodes that are asked at once would else give the same port to a service each. One gateway could not
    listen there, and what calls its service would reach the other's.
    """

    def __init__(self) -> None:
        self._ports = Ports(first=INTERNAL_PORTS[0], last=INTERNAL_PORTS[-1])
        self._held: set[int] = set()

    def hold(self, port: int, *, listening: bool) -> bool:
        """
        Reserve the port that a service has; whether nobody else has it.

        With ``listening`` our own gateway is the one that may listen there.
        """
        if listening:
            is_ours = self._ports.keep(port)
        else:
            try:
                self._ports.take_fixed(port)
            except NoPort:
                return False
            is_ours = True
        self._held.add(port)
        return is_ours

    def allocate(self, taken: AbstractSet[int]) -> int:
        """
        A port that no service has, nobody listens on and no other node has reserved.

        ``taken`` are those of all services that there are: what else is held is given back.

        Raises:
            Conflict: All are in use.
        """
        self.keep_only(taken)
        for port in taken:
            self._ports.keep(port)
        try:
            port = self._ports.take()
        except NoPort as error:
            raise Conflict(str(error)) from error
        self._held = {*taken, port}
        return port

    def keep_only(self, taken: AbstractSet[int]) -> None:
        """Let others have what is held and not ``taken`` by a service."""
        for port in self._held - taken:
            self._ports.give_back(port)
        self._held &= taken


def bind_failure(host: str, port: int) -> str:
    """Why the gateway could not listen there, with the program that does if it can be found; else empty."""
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        holder = _holder(port)
        shown = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        if holder:
            return f"port {port} is in use by {holder}; stop it, or choose another port"
        return f"can't listen at {shown}: {error.strerror}"
    return ""


def _holder(port: int) -> str:
    """Who listens on a port, as "python3 (pid 4711)"; empty if this machine does not tell."""
    try:
        table = SocketTable()
    except NetlinkRefused:
        return ""
    try:
        inodes = {listener.inode for listener in table.listeners({port})}
    except NetlinkRefused:
        return ""
    finally:
        table.close()
    wanted = {f"socket:[{inode}]" for inode in inodes}
    for process in Path("/proc").iterdir():
        if process.name.isdecimal() and wanted & set(_links(process / "fd")):
            return f"{_name(process)} (pid {process.name})"
    return ""


def _links(folder: Path) -> Iterator[str]:
    try:
        for entry in os.scandir(folder):
            yield os.readlink(entry.path)
    except OSError:
        return  # it ended meanwhile, or is not ours to look into


def _name(process: Path) -> str:
    try:
        return (process / "comm").read_text().strip()
    except OSError:
        return "a program"
