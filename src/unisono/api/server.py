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

import uvicorn
from starlette.types import ASGIApp

from unisono.api.app import create_app, create_services_app
from unisono.api.context import Context
from unisono.api.endpoints import Endpoint
from unisono.api.guard import TokenGuard

_GRACE = 5  # seconds that running requests have at the end; streams end at once, they are told


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


def servers(context: Context, endpoints: Sequence[Endpoint]) -> list[Server]:
    """A server of the API for each endpoint, not yet serving."""
    app = create_app(context)

    def face(endpoint: Endpoint) -> ASGIApp:
        if endpoint.identities is not None:
            return create_services_app(context, endpoint.identities)
        return app if endpoint.token is None else TokenGuard(app, endpoint.token)

    return [Server(face(endpoint), endpoint.listener) for endpoint in endpoints]
