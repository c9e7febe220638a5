"""Addresses to listen at."""

from __future__ import annotations

import os
import socket

import pytest

from unisono.api.addresses import INTERNAL_PORTS, BadAddress, InternalPorts, bind_failure, parse_address


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("127.0.0.1:8080", ("127.0.0.1", 8080)),
        ("0.0.0.0:80", ("0.0.0.0", 80)),
        ("[::1]:8080", ("::1", 8080)),
        ("localhost:1", ("localhost", 1)),
    ],
)
def test_address(text: str, expected: tuple[str, int]) -> None:
    """An address is a host and a port, IPv6 in brackets."""
    assert parse_address(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "8080",
        ":8080",
        "host",
        "host:",
        "host:http",
        "host:0",
        "host:65536",
        "host:" + "9" * 5000,
        "host:٣",
    ],
)
def test_no_address(text: str) -> None:
    """What is no address is refused with an example of one."""
    with pytest.raises(BadAddress, match=r"such as 127\.0\.0\.1:8080"):
        parse_address(text)


def test_internal_port_is_nobody_elses() -> None:
    """An internal port is neither a service's nor listened on."""
    ports = InternalPorts()
    first = ports.allocate(set())
    with socket.socket() as listener:
        listener.bind(("0.0.0.0", first))
        listener.listen()
        second = InternalPorts().allocate(set())
        third = InternalPorts().allocate({second})

    assert {first, second, third} <= set(INTERNAL_PORTS)
    assert len({first, second, third}) == 3


def test_nodes_side_by_side_give_no_internal_port_twice() -> None:
    """Each gateway listens there only some moments later; then one service would answer for the other."""
    ours, theirs = InternalPorts(), InternalPorts()

    given = [ours.allocate(set()), theirs.allocate(set())]
    given.append(ours.allocate({given[0]}))

    assert len(set(given)) == 3


def test_internal_ports_of_services_that_are_gone_are_given_back() -> None:
    """So that a thousand services removed one after the other do not use them up."""
    ports = InternalPorts()

    for _ in INTERNAL_PORTS:
        ports.allocate(set())

    assert ports.allocate(set()) in INTERNAL_PORTS


def test_an_internal_port_that_was_given_up_can_be_had_by_another_node() -> None:
    """It was counted as taken while its service was given another."""
    ports = InternalPorts()
    old = ports.allocate(set())
    new = ports.allocate({old})

    ports.keep_only({new})

    assert InternalPorts().hold(old, listening=False)
    assert not InternalPorts().hold(new, listening=False)


@pytest.mark.parametrize("listening", [False, True])
def test_an_internal_port_that_another_node_has_is_not_held(listening: bool) -> None:
    """Not even if our own gateway is there: it can't be the one that listens."""
    theirs = InternalPorts()
    port = theirs.allocate(set())

    assert not InternalPorts().hold(port, listening=listening)


def test_an_internal_port_at_which_our_gateway_listens_is_held() -> None:
    """After a node was killed its gateway is there still."""
    port = InternalPorts().allocate(set())
    with socket.socket() as gateway:
        gateway.bind(("127.0.0.1", port))
        gateway.listen()

        assert not InternalPorts().hold(port, listening=False)
        assert InternalPorts().hold(port, listening=True)


def test_holder_of_a_port() -> None:
    """Why an address can't be had names who has it."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        taken = bind_failure("127.0.0.1", port)

    assert f"port {port} is in use by" in taken
    assert f"(pid {os.getpid()})" in taken
    assert bind_failure("127.0.0.1", port) == ""


def test_address_of_another_machine() -> None:
    """An address that is not this machine's can't be listened at."""
    assert "can't listen at 192.0.2.1:8080" in bind_failure("192.0.2.1", 8080)
