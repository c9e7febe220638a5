"""
The internal ports of the services that a node finds in its store: its own still, or somebody else's by now?

While neither the node nor its gateway ran, any program could take one; what calls the service would reach
that program. Which ports are given to new services is :class:`unisono.api.addresses.InternalPorts`' to say.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Mapping
from collections.abc import Set as AbstractSet
from pathlib import Path

from unisono.api.addresses import InternalPorts
from unisono.daemon.settings import EXIT_REFUSED, CannotRun
from unisono.gateway import presence
from unisono.node.listening import taken_by_others
from unisono.store.base import Store

Name = tuple[str, str]  # application, service

_LOOKS, _LOOK_SECONDS = 10, 0.02  # at a port that somebody has

_log = logging.getLogger("unisono")


async def lost(held: InternalPorts, ports: Mapping[Name, int], gateway_socket: Path) -> Collection[Name]:
    """
    Reserve each of ``ports``; the services whose port somebody else has.

    Our own gateway, the one behind ``gateway_socket``, may listen there; one that was killed gets a moment.
    """
    left = [name for name, port in ports.items() if not held.hold(port, listening=False)]
    for _ in range(_LOOKS):
        if not left:
            break
        ours = _at_gateway({ports[name] for name in left}, gateway_socket)
        left = [name for name in left if not held.hold(ports[name], listening=ports[name] in ours)]
        if left:
            await asyncio.sleep(_LOOK_SECONDS)
    return left


def _at_gateway(ports: AbstractSet[int], gateway_socket: Path) -> AbstractSet[int]:
    """Those of these ports at which our own gateway listens, not one that took them while it did not."""
    if not presence.answers(gateway_socket):
        return set()
    gateway = presence.process(gateway_socket)
    return ports if gateway is None else ports - taken_by_others(ports, gateway)


async def readdress(store: Store, services: Collection[Name], held: InternalPorts) -> None:
    """
    Give these services other ports, and have what depends on them started anew.

    Raises:
        CannotRun: No port is left.
        StoreError: As the store says.
    """
    from unisono.control import commands, errors  # noqa: PLC0415 - hardly ever, and others wait

    try:
        moved = await commands.readdress(store, services, allocate_port=held.allocate)
    except errors.Conflict as error:
        raise CannotRun(str(error), EXIT_REFUSED) from error
    for service in moved:
        name, port = f"{service.application}/{service.name}", service.internal_port
        _log.warning("the internal port of %s is %d now: somebody has its old one", name, port)
