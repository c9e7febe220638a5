"""
Which ports are listened on: one look at the kernel's list for all instances that start.

A connect() per instance and moment would be a storm when two hundred start, and would show up in every
instance's access log; the kernel gives its list of listening sockets in one answer. Where netlink is
refused, one connect() per port takes its place. Whether an instance is healthy is another matter:
:mod:`unisono.node.probes`.

Sources: sock_diag(7), netlink(7), linux/inet_diag.h.
"""

from __future__ import annotations

import asyncio
import ipaddress
import os
import socket
import struct
from collections.abc import Collection, Container, Iterable
from dataclasses import dataclass
from functools import lru_cache

INTERVAL_SECONDS = 0.01  # between two looks, while anyone waits

_NETLINK_SOCK_DIAG = 4
_SOCK_DIAG_BY_FAMILY = 20
_NLM_F_REQUEST_DUMP = 0x301
_NLMSG_ERROR, _NLMSG_DONE = 2, 3
_TCP_LISTEN = 10

_HEADER = struct.Struct("=IHHII")  # nlmsghdr: length, type, flags, sequence, pid
_REQUEST = struct.Struct("=BBBBI48x")  # inet_diag_req_v2: family, protocol, ext, pad, states, id
# inet_diag_msg: family, state, timer, retrans, source port (network order) at 4, source address at 8,
# inode at 68.
_MESSAGE_BYTES = 72
_PORT = struct.Struct("!H")
_INET_DIAG_SKV6ONLY = 11  # attribute of a listener of IPv6


class NetlinkRefused(Exception):
    """The kernel, or a sandbox, does not let us list sockets."""


@dataclass(frozen=True)
class Listener:
    """A TCP socket that accepts connections."""

    port: int
    host: str  # where this machine reaches it: loopback if it listens there, IPv6 in brackets
    inode: int


class SocketTable:
    """The kernel's list of listening TCP sockets, over one netlink socket."""

    def __init__(self) -> None:
        """
        Open it.

        Raises:
            NetlinkRefused: It can't be had.
        """
        try:
            self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_SOCK_DIAG)
        except OSError as error:
            raise NetlinkRefused(str(error)) from error
        # A dump is answered at once; should it not be, the node must not hang.
        self._socket.settimeout(1.0)
        self._sequence = 0

    def listeners(self, ports: Container[int]) -> list[Listener]:
        """
        All sockets that listen on one of these ports in this network namespace.

        Raises:
            NetlinkRefused: The kernel did not answer.
        """
        try:
            return [*self._dump(socket.AF_INET, ports), *self._dump(socket.AF_INET6, ports)]
        except OSError as error:
            raise NetlinkRefused(str(error)) from error

    def _dump(self, family: int, ports: Container[int]) -> list[Listener]:
        self._sequence += 1
        body = _REQUEST.pack(family, socket.IPPROTO_TCP, 0, 0, 1 << _TCP_LISTEN)
        length = _HEADER.size + len(body)
        header = _HEADER.pack(length, _SOCK_DIAG_BY_FAMILY, _NLM_F_REQUEST_DUMP, self._sequence, 0)
        self._socket.send(header + body)
        found: list[Listener] = []
        while True:
            data = self._socket.recv(1 << 16)
            offset = 0
            while offset < len(data):
                length, kind, _, sequence, _ = _HEADER.unpack_from(data, offset)
                if sequence == self._sequence:  # else what is left of a dump that was broken off
                    if kind == _NLMSG_DONE:
                        return found
                    if kind == _NLMSG_ERROR:
                        (code,) = struct.unpack_from("=i", data, offset + _HEADER.size)
                        raise OSError(-code, os.strerror(-code))
                    at = offset + _HEADER.size
                    if _PORT.unpack_from(data, at + 4)[0] in ports:
                        found.append(_listener(data, at, offset + length))
                offset += (length + 3) & ~3

    def close(self) -> None:
        """Let go of the socket."""
        self._socket.close()


def taken_by_others(ports: Iterable[int], pid: int) -> set[int]:
    """
    Those of these ports at which some other program than process ``pid`` listens, and it does not.

    None where the machine does not let us tell, as for a process of another user.
    """
    try:
        table = SocketTable()
    except NetlinkRefused:
        return set()
    try:
        found = table.listeners(set(ports))
        inodes = _socket_inodes(pid, strict=True)
    except (NetlinkRefused, PermissionError):
        return set()
    finally:
        table.close()
    own = {listener.port for listener in found if listener.inode in inodes}
    return {listener.port for listener in found} - own


class ListenWatch:
    """
    Tells instances that start when their port is listened on.

    While anyone waits, and only then, it looks every 10 ms for all of them together.
    """

    def __init__(self) -> None:
        self._waiting: dict[int, list[asyncio.Future[str]]] = {}
        self._task: asyncio.Task[None] | None = None
        try:
            self._table: SocketTable | None = SocketTable()
        except NetlinkRefused:
            self._table = None

    async def listening(self, port: int) -> str:
        """Wait until the port is listened on; the host at which it is reached."""
        future: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(port, []).append(future)
        if self._task is None:
            self._task = asyncio.create_task(self._look_for_all(), name="listen-watch")
        try:
            return await future
        finally:
            waiters = self._waiting.get(port, [])
            if future in waiters:
                waiters.remove(future)
                if not waiters:
                    del self._waiting[port]

    async def hosts(self, ports: Collection[int]) -> dict[int, str]:
        """Where each of these ports is listened on now; one that is not is left out."""
        return await self._look(ports)

    def ports_of(self, pids: Iterable[int]) -> list[int]:
        """The ports that these processes listen on; empty where the machine does not tell."""
        if self._table is None:
            return []
        inodes = set().union(*(_socket_inodes(pid) for pid in pids))
        if not inodes:
            return []  # it has no sockets at all yet
        try:
            everything = self._table.listeners(range(1 << 16))
        except NetlinkRefused:
            return []
        return sorted({listener.port for listener in everything if listener.inode in inodes})

    def is_theirs(self, port: int, pids: Iterable[int]) -> bool:
        """
        Whether one of these processes listens on the port, and not some other program.

        True also where the machine does not let us tell, as for processes of another user.
        """
        if self._table is None:
            return True
        try:
            listeners = {listener.inode for listener in self._table.listeners((port,))}
            return any(listeners & _socket_inodes(pid, strict=True) for pid in pids)
        except (NetlinkRefused, PermissionError):
            return True

    async def close(self) -> None:
        """Stop looking; who still waits is cancelled."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        for waiters in list(self._waiting.values()):
            for future in waiters:
                future.cancel()
        if self._table is not None:
            self._table.close()

    async def _look_for_all(self) -> None:
        while self._waiting:
            for port, host in (await self._look(self._waiting)).items():
                for future in self._waiting.pop(port, []):
                    if not future.done():
                        future.set_result(host)
            await asyncio.sleep(INTERVAL_SECONDS)
        self._task = None

    async def _look(self, ports: Collection[int]) -> dict[int, str]:
        if self._table is not None:
            try:
                return _best_hosts(self._table.listeners(ports))
            except NetlinkRefused:
                self._table.close()
                self._table = None
        tried = list(ports)
        connected = await asyncio.gather(*(connects("127.0.0.1", port) for port in tried))
        return {port: "127.0.0.1" for port, yes in zip(tried, connected, strict=True) if yes}


async def connects(host: str, port: int) -> bool:
    """Whether a TCP connection can be made within a second; it is closed at once."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            async with asyncio.timeout(1.0):
                await asyncio.get_running_loop().sock_connect(probe, (host.strip("[]"), port))
        except (OSError, TimeoutError):
            return False
    return True


def _best_hosts(listeners: Iterable[Listener]) -> dict[int, str]:
    best: dict[int, str] = {}
    for listener in listeners:
        if listener.host == "127.0.0.1" or listener.port not in best:
            best[listener.port] = listener.host
    return best


def _listener(data: bytes, at: int, end: int) -> Listener:
    (port,) = _PORT.unpack_from(data, at + 4)
    (inode,) = struct.unpack_from("=I", data, at + _MESSAGE_BYTES - 4)
    size = 4 if data[at] == socket.AF_INET else 16
    v6_only = size == 16 and _v6_only(data, at + _MESSAGE_BYTES, end)
    return Listener(port, _host(data[at + 8 : at + 8 + size], v6_only), inode)


@lru_cache(maxsize=256)
def _host(address: bytes, v6_only: bool) -> str:
    ip = ipaddress.ip_address(address)
    if ip.is_unspecified:
        return "[::1]" if v6_only else "127.0.0.1"
    return str(ip) if ip.version == 4 else f"[{ip}]"


def _v6_only(data: bytes, at: int, end: int) -> bool:
    """Whether the attribute INET_DIAG_SKV6ONLY, which the kernel adds for listeners, is set."""
    while at + 4 <= end:
        length, kind = struct.unpack_from("=HH", data, at)
        if kind == _INET_DIAG_SKV6ONLY:
            return data[at + 4] != 0
        at += (max(length, 4) + 3) & ~3
    return False


def _socket_inodes(pid: int, *, strict: bool = False) -> set[int]:
    """The sockets of a process; with ``strict`` a PermissionError where they are not ours to look at."""
    inodes: set[int] = set()
    try:
        for entry in os.scandir(f"/proc/{pid}/fd"):
            target = os.readlink(entry.path)
            if target.startswith("socket:["):
                inodes.add(int(target[8:-1]))
    except OSError as error:  # it ended, or is not ours to look at
        if strict and isinstance(error, PermissionError):
            raise
    return inodes
