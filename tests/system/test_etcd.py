"""A node that keeps its truth in etcd, as a user runs it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.store.etcd_server import Etcd, running
from tests.system.conftest import Site, kill

pytestmark = pytest.mark.system

SHOP = """
name: shop
services:
  orders:
    command: python server.py
    scale: 2
    routes: [{path: /orders}]
"""


@pytest.fixture(scope="module")
def etcd() -> Iterator[Etcd]:
    with running() as etcd:
        yield etcd


def pids(site: Site) -> set[int | None]:
    return {instance["pid"] for instance in site.instances("orders")}


def test_a_life_on_etcd(site: Site, etcd: Etcd) -> None:
    """Up, ps, kill -9 of the node, adopted by the next, which finds the store by itself, and down."""
    site.write(SHOP)
    site.run("up", "-d", "--store", etcd.url("life"))
    before = pids(site)
    assert "orders" in site.run("ps").out

    kill(site.client.node()["pid"])
    site.run("up", "-d")

    assert pids(site) == before
    assert "instance-adopted" in site.run("events").out
    assert not (site.state / "store.db").exists()
    kill(site.client.node()["pid"])
    site.run("down", "-p", "shop")
    assert site.processes() == []


def test_a_node_outlives_its_etcd(site: Site, etcd: Etcd) -> None:
    """While etcd is stopped the node stays; when it goes on, so do changes."""
    site.write(SHOP)
    site.run("up", "-d", "--store", etcd.url("outlives"))
    pid = site.client.node()["pid"]
    member = etcd.members[0]
    member.kill()
    member.start()

    site.run("scale", "orders=3", "-p", "shop")

    site.wait_for(lambda view: len(view["services"][0]["instances"]) == 3)
    assert site.client.node()["pid"] == pid
    site.run("down", "-p", "shop")


def test_an_etcd_that_is_not_there(site: Site) -> None:
    """One clear error that names it, and nothing is left."""
    site.write(SHOP)
    result = site.run("up", "-d", "--store", "etcd://127.0.0.1:1/shop", ok=False)

    assert result.code != 0
    assert "no member of the etcd at etcd://127.0.0.1:1/shop answered" in result.err
    assert site.processes() == []
    assert not site.state.exists()


@pytest.mark.parametrize(
    ("store", "says"),
    [
        ("postgres://db", "write sqlite:PATH or etcd://"),
        ("etcd://user:secret@host/x", "holds a password"),
        ("etcd://host?colour=red", "'colour' is not known"),
        ("etcd://host:99999", "port must be a number"),
    ],
)
def test_bad_addresses(site: Site, store: str, says: str) -> None:
    """Wrong usage, and never a word of a password."""
    site.write(SHOP)
    result = site.run("up", "-d", "--store", store, ok=False)

    assert result.code == 2
    assert says in result.err
    assert "secret" not in result.err


def test_without_the_extra(site: Site) -> None:
    """Where grpcio is not installed one error says what to install."""
    program = (
        "import sys; sys.modules['grpc'] = None\n"
        "from unisono.daemon import main; sys.exit(main(sys.argv[1:]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, "--state", site.state, "--store", "etcd://127.0.0.1:1/shop"],
        env=site.environment,
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 1
    assert done.stderr.strip().splitlines()[-1].endswith("pip install 'unisono[etcd]'")
    assert "Traceback" not in done.stderr


def test_the_password_is_nowhere_to_be_seen(site: Site, etcd: Etcd) -> None:
    """Neither in arguments, nor in files and logs of the state folder, nor in what instances inherit."""
    site.write(SHOP)
    url = etcd.url("password", user="shop@")
    site.run("up", "-d", "--store", url, ok=False, UNISONO_STORE_PASSWORD="s3cret-word")

    found = [path for path in site.state.rglob("*") if path.is_file() and b"s3cret" in path.read_bytes()]
    assert found == []
