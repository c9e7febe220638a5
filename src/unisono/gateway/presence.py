"""Whether a gateway is there: asked before anything of it is loaded, by a node that has no time to lose."""

from __future__ import annotations

import socket
import struct
from pathlib import Path


def answers(control_socket: Path) -> bool:
    """Whether a gateway takes connections at its control socket now; does not wait."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as probe:
        try:
            probe.connect(str(control_socket))
        except BlockingIOError:
            return True  # it is there, and busy
        except OSError:
            return False
    return True


def process(control_socket: Path) -> int | None:
    """The process that listens at the control socket; ``None`` if none takes a connection at once."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as probe:
        try:
            probe.connect(str(control_socket))
            credentials = probe.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        except OSError:
            return None
    pid: int = struct.unpack("3i", credentials)[0]
    return pid
