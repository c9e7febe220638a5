"""Whether a gateway is there: asked before anything of it is loaded, by a node that has no time to lose."""

from __future__ import annotations

import socket
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
