"""
Ports: given out from one range, reserved on the machine, and found free by binding.

Instances have theirs from here, and the gateway its own one for each service
(:class:`unisono.api.addresses.InternalPorts`). Binding alone does not do: between being given a port and
listening there an instance starts, which takes seconds, and another node of this machine would find the
port free meanwhile. So a port is reserved by a name in the abstract namespace of Unix sockets: like ports it
belongs to the network namespace, one process has it at a time, and the kernel takes it back when that
process ends (unix(7)).

Who listens on a port in the end is :mod:`unisono.node.listening`.
"""

from __future__ import annotations

import socket

FIRST_PORT = 21000
LAST_PORT = 31999  # below the range that the kernel takes ephemeral ports from


class NoPort(Exception):
    """No port can be given; the message says why."""


class Ports:
    """
    The ports of one range that a node has.

    They are given out in turn, so that a port is not given again soon after it was given back: a late
    packet or a client that remembers it finds nobody rather than somebody else.
    """

    def __init__(self, *, first: int = FIRST_PORT, last: int = LAST_PORT, start: int | None = None) -> None:
        self._first = first
        self._count = last - first + 1
        self._next = (start or first) - first
        self._taken: dict[int, socket.socket | None] = {}  # with what reserves it

    def take(self) -> int:
        """
        A port that nobody uses.

        Raises:
            NoPort: All are in use.
        """
        for _ in range(self._count):
            port = self._first + self._next % self._count
            self._next += 1
            if port in self._taken:
                continue
            reservation = _reserve(port)
            if reservation is None:
                continue
            if is_free(port):
                self._taken[port] = reservation
                return port
            reservation.close()
        last = self._first + self._count - 1
        raise NoPort(f"no free port left between {self._first} and {last}")

    def take_fixed(self, port: int) -> None:
        """
        Take the port that a program insists on.

        Raises:
            NoPort: Someone uses it.
        """
        reservation = None if port in self._taken else _reserve(port)
        if reservation is None or not is_free(port, reuse=True):
            if reservation is not None:
                reservation.close()
            raise NoPort(f"port {port} is in use; stop what listens there, or leave the port to unisono")
        self._taken[port] = reservation

    def keep(self, port: int) -> bool:
        """Count a port as taken, as one of us listens there; whether it is reserved for us now."""
        if port not in self._taken:
            self._taken[port] = _reserve(port)
        return self._taken[port] is not None

    def give_back(self, port: int) -> None:
        """Let others have it; giving back twice is no error."""
        reservation = self._taken.pop(port, None)
        if reservation is not None:
            reservation.close()


def _reserve(port: int) -> socket.socket | None:
    """Reserve a port on this machine until the socket is closed; ``None`` if another node has it."""
    reservation = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        reservation.bind(f"\0unisono-port-{port}")
    except OSError:
        reservation.close()
        return None
    return reservation


def is_free(port: int, *, reuse: bool = False) -> bool:
    """
    Whether the port can be bound on all addresses of IPv4.

    With ``reuse`` connections that have ended a moment ago do not count, as for most servers.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        if reuse:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("0.0.0.0", port))  # noqa: S104 - bound for a moment, never listening
        except OSError:
            return False
    return True
