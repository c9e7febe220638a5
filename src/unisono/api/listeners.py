"""
Sockets for the API to listen at: a Unix socket of its owner's, or a TCP address; and who may ask at each.

Who serves there is :mod:`unisono.api.server`.
"""

from __future__ import annotations

import os
import socket
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from unisono.node.identity import Identities

_BACKLOG = 128


@dataclass(frozen=True)
class Endpoint:
    """
    A socket that listens; with a ``token``, only who presents it is answered.

    With ``identities`` it is for services, which are known by the tokens that these make.
    """

    listener: socket.socket
    token: str | None = field(default=None, repr=False)
    identities: Identities | None = None


def unix_listener(path: Path) -> socket.socket:
    """
    A socket at ``path`` that its owner alone can connect to.

    To be called by who holds the folder's lock: a socket left there by a node that died is removed.
    """
    with suppress(FileNotFoundError):
        path.unlink()
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    # Made under a mask, not changed afterwards: no moment in which others could connect.
    mask = os.umask(0o177)
    try:
        listener.bind(str(path))
    finally:
        os.umask(mask)
    listener.listen(_BACKLOG)
    listener.setblocking(False)
    return listener


def tcp_listener(host: str, port: int) -> socket.socket:
    """A socket at a TCP address. Raises OSError if it can't be bound."""
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(_BACKLOG)
    except OSError:
        listener.close()
        raise
    listener.setblocking(False)
    return listener
