"""Who listens where, from the kernel's own list."""

from __future__ import annotations

import asyncio
import os
import socket

import pytest

from unisono.node import listening
from unisono.node.listening import ListenWatch, NetlinkRefused, taken_by_others


def bound(host: str, *, v6_only: bool = False) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    server = socket.socket(family, socket.SOCK_STREAM)
    if family == socket.AF_INET6:
        server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, v6_only)
    server.bind((host, 0))
    return server


@pytest.mark.parametrize(
    ("host", "v6_only", "reached_at"),
    [
        ("127.0.0.1", False, "127.0.0.1"),
        ("0.0.0.0", False, "127.0.0.1"),
        ("127.0.0.9", False, "127.0.0.9"),
        ("::", False, "127.0.0.1"),
        ("::", True, "[::1]"),
        ("::1", False, "[::1]"),
    ],
)
async def test_a_listener_is_found_where_it_is_reached(host: str, v6_only: bool, reached_at: str) -> None:
    """Loopback of IPv4 if it answers there, else the address that it is bound to."""
    watch = ListenWatch()
    with bound(host, v6_only=v6_only) as server:
        server.listen()
        port = server.getsockname()[1]

        async with asyncio.timeout(20):
            assert await watch.listening(port) == reached_at
    await watch.close()


async def test_a_socket_that_is_bound_but_does_not_listen_is_not_found() -> None:
    """Binding comes before listening, and connections are refused in between."""
    watch = ListenWatch()
    with bound("127.0.0.1") as server:
        port = server.getsockname()[1]
        waiting = asyncio.create_task(watch.listening(port))
        await asyncio.sleep(0.05)
        found_early = waiting.done()
        server.listen()

        async with asyncio.timeout(20):
            assert (found_early, await waiting) == (False, "127.0.0.1")
    await watch.close()


async def test_without_netlink_connections_are_tried_instead(monkeypatch: pytest.MonkeyPatch) -> None:
    """A sandbox may refuse netlink; readiness is found all the same."""

    def refuse() -> None:
        raise NetlinkRefused("not permitted")

    monkeypatch.setattr(listening, "SocketTable", refuse)
    watch = ListenWatch()
    with bound("127.0.0.1") as server:
        port = server.getsockname()[1]
        waiting = asyncio.create_task(watch.listening(port))
        await asyncio.sleep(0.05)
        found_early = waiting.done()
        server.listen()

        async with asyncio.timeout(20):
            assert (found_early, await waiting) == (False, "127.0.0.1")
    await watch.close()


async def test_it_looks_only_while_someone_waits() -> None:
    """Cancelling the last wait ends the looking."""
    watch = ListenWatch()
    waiting = asyncio.create_task(watch.listening(1))
    await asyncio.sleep(0.05)
    looked = any(task.get_name() == "listen-watch" for task in asyncio.all_tasks())
    waiting.cancel()
    async with asyncio.timeout(20):
        await asyncio.gather(*(task for task in asyncio.all_tasks() if task.get_name() == "listen-watch"))

    assert looked
    await watch.close()


async def test_the_ports_of_processes_are_told() -> None:
    """For the hint to one that listens elsewhere."""
    watch = ListenWatch()
    with bound("127.0.0.1") as server:
        server.listen()

        assert server.getsockname()[1] in watch.ports_of([os.getpid()])
    await watch.close()


async def test_a_listener_of_another_program_is_told_from_ones_own() -> None:
    """Requests for an instance must not go to whoever took its port first."""
    watch = ListenWatch()
    with bound("127.0.0.1") as server:
        server.listen()
        port = server.getsockname()[1]
        other = await asyncio.create_subprocess_exec("sleep", "60")

        mine = watch.is_theirs(port, [os.getpid()])
        others = watch.is_theirs(port, [other.pid])

        other.kill()
        await other.wait()
    await watch.close()
    assert (mine, others) == (True, False)


async def test_ports_that_others_took_are_told_from_ones_own_and_free_ones() -> None:
    """All of them in one look."""
    with bound("127.0.0.1") as server, bound("127.0.0.1") as silent:
        server.listen()
        port, free = server.getsockname()[1], silent.getsockname()[1]
        other = await asyncio.create_subprocess_exec("sleep", "60")

        mine = taken_by_others({port, free}, os.getpid())
        others = taken_by_others({port, free}, other.pid)

        other.kill()
        await other.wait()
    assert (mine, others) == (set(), {port})
