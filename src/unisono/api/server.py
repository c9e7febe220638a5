"""
Listening: the API on a Unix socket of its owner's, and if wished on TCP behind a token.

uvicorn serves; its signal handling and its ten looks per second are replaced, because the node ends
when :mod:`unisono.daemon` says so, and an idle node should cost nothing.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import uvicorn
from starlette.types import ASGIApp

_GRACE = 5  # seconds that running requests have at the end; streams end at once, they are told

_BACKLOG = 128


class Server(uvicorn.Server):
    """One listening socket with an application behind it."""

    def __init__(self, app: ASGIApp, listener: socket.socket) -> None:
        config = uvicorn.Config(
            app,
            lifespan="off",
            log_config=None,
            access_log=False,
            ws="none",
            proxy_headers=False,
            server_header=False,
            date_header=False,
            timeout_graceful_shutdown=_GRACE,
        )
        super().__init__(config)
        self._listener = listener
        self._ended = asyncio.Event()
        self.listening = asyncio.Event()

    async def run_until_ended(self) -> None:
        """Serve until :meth:`end` is called and what runs is answered."""
        await self.serve(sockets=[self._listener])

    def end(self) -> None:
        """Accept no more, answer what has been accepted, then return."""
        self.should_exit = True
        self._ended.set()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to accept, and say so."""
        await super().startup(sockets)
        self.listening.set()

    async def main_loop(self) -> None:
        """In place of uvicorn's, which looks ten times a second whether it should end."""
        await self._ended.wait()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """In place of uvicorn's: signals are the daemon's."""
        yield


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
