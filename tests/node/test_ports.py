"""Ports for instances."""

from __future__ import annotations

import socket

import pytest

from unisono.node.ports import NoPort, Ports


def test_ports_are_given_in_turn_and_not_again_soon() -> None:
    """One that was given back comes last."""
    ports = Ports(first=31990, last=31995)
    first = ports.take()
    ports.give_back(first)

    following = [ports.take() for _ in range(3)]

    assert first not in following


def test_a_port_that_someone_listens_on_is_left_out() -> None:
    """Found by binding, so it does not matter whose it is."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 31992))
        other.listen()
        ports = Ports(first=31992, last=31993)

        assert ports.take() == 31993


def test_when_all_are_taken_the_range_is_named() -> None:
    """A clear error, not a loop."""
    ports = Ports(first=31997, last=31997)
    ports.keep(31997)

    with pytest.raises(NoPort, match="no free port left between 31997 and 31997"):
        ports.take()


def test_a_fixed_port_in_use_is_refused_with_a_remedy() -> None:
    """The program insists on it, so no other will do."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 31998))
        other.listen()

        with pytest.raises(NoPort, match="port 31998 is in use; stop what listens there"):
            Ports().take_fixed(31998)


def test_a_port_given_by_one_node_is_not_given_by_another() -> None:
    """Also before anyone listens there: an instance takes its time to start."""
    ours, theirs = Ports(first=31985, last=31986), Ports(first=31985, last=31986)

    assert (ours.take(), theirs.take()) == (31985, 31986)


def test_a_port_that_was_given_back_is_free_for_other_nodes() -> None:
    """The reservation goes with it."""
    ours, theirs = Ports(first=31984, last=31984), Ports(first=31984, last=31984)
    ours.give_back(ours.take())

    assert theirs.take() == 31984
