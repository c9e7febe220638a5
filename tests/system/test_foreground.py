"""A node and an application in the foreground of a terminal: what they show, and how they end."""

from __future__ import annotations

import signal

import pytest

from tests.system.conftest import LIMIT, Site, wait_until
from tests.system.shop import SHOP, get, pids

pytestmark = pytest.mark.system


def test_foreground(site: Site) -> None:
    """`up` shows what instances write and takes the application down at the first Ctrl-C."""
    site.write(SHOP)
    process = site.start("up")
    assert process.stdout is not None
    first = process.stdout.readline()
    site.wait_settled()
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=LIMIT)

    assert first.endswith("| version 1 listens\n")
    assert process.returncode == 130
    assert "shop is down" in said
    assert "Traceback" not in said
    assert site.processes() == []


def test_interrupted_while_its_node_starts(site: Site) -> None:
    """Ctrl-C before there is a node leaves neither the node nor its state folder."""
    site.write(SHOP)
    process = site.start("up", "-d", "--store", "etcd://127.0.0.1:1/shop")  # which it seeks for 15 s
    wait_until((site.state / "node.lock").exists, "a node that starts")
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=LIMIT)

    assert process.returncode == 130
    assert said == ""
    assert site.processes() == []
    assert not site.state.exists()


def test_foreground_left_by_second_interrupt(site: Site) -> None:
    """A second Ctrl-C leaves at once, while instances finish their requests."""
    site.write(SHOP.replace("scale: 2", "stop_signal: SIGWINCH"))  # it will not stop of that
    process = site.start("up")
    site.wait_settled()
    process.send_signal(signal.SIGINT)
    site.wait_for(lambda view: view["removing"])
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=LIMIT)

    assert process.returncode == 130
    assert "left shop" in said


def test_foreground_node(site: Site) -> None:
    """`node` runs in the foreground; when it is told to end, instances and gateway run on."""
    node = site.start("node")
    site.wait_for_node()
    site.write(SHOP)
    site.run("up", "-d")
    before = pids(site)
    site.run("node", "stop")
    _, said = node.communicate(timeout=LIMIT)
    still = get(site).split()[1]

    assert node.returncode == 0
    assert "3 instances and the gateway run on" in said
    assert int(still) in before
