"""
Serving an application at a socket that listens.

uvicorn serves; its signal handling and its ten looks per second are replaced, because the node ends
when :mod:`unisono.daemon` says so, and an idle node should cost nothing.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import uvicorn
from starlette.types import ASGIApp

from unisono.api.app import create_app, create_services_app
from unisono.api.context import Context
from unisono.api.guard import TokenGuard
from unisono.api.listeners import Endpoint, unix_listener
from unisono.api.protocol import BoundedProtocol
from unisono.api.state.plane import Plane
from unisono.store.local import LocalStore

_BEHIND = "behind.sock"  # beside the services' socket, which the data plane then has
_GRACE = 5  # seconds that running requests have at the end; streams end at once, they are told


class Server(uvicorn.Server):
    """One listening socket with an application behind it."""

    def __init__(self, app: ASGIApp, listener: socket.socket) -> None:
        config = uvicorn.Config(
            app,
            http=BoundedProtocol,
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


async def servers(context: Context, endpoints: Sequence[Endpoint]) -> list[Server]:
    """
    A server of the API for each endpoint, not yet serving.

    In front of the services' there is the data plane of shared state, if the store allows one; it serves
    already, and :attr:`~unisono.api.state.rooms.States.plane` is to be closed after the servers have ended.

    Raises:
        StoreError, OSError: The data plane could not be opened.
    """
    app = create_app(context)
    made = []
    for endpoint in endpoints:
        if endpoint.identities is not None:
            listener = await _behind_plane(context, endpoint.listener)
            made.append(Server(create_services_app(context, endpoint.identities), listener))
        else:
            face = app if endpoint.token is None else TokenGuard(app, endpoint.token)
            made.append(Server(face, endpoint.listener))
    return made


async def _behind_plane(context: Context, listener: socket.socket) -> socket.socket:
    if not isinstance(context.store, LocalStore):
        return listener
    path = Path(listener.getsockname()).with_name(_BEHIND)
    behind = unix_listener(path)
    context.states.plane = await Plane.open(
        context.store, context.informer, listener, path, take=context.states.timestamps
    )
    return behind
