"""Two nodes on one machine: what one starts never calls what the other has."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import psutil
import pytest

from tests.system.conftest import Site, kill, opened, wait_until
from unisono.client.views import ServiceView
from unisono.gateway import presence

pytestmark = pytest.mark.system

# Answers with whose it is; what has a back answers what that does.
SERVER = """\
import http.server, os, sys, urllib.request

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        url = os.environ.get("BACK_URL")
        body = urllib.request.urlopen(url, timeout=30).read() if url else sys.argv[1].encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *args):
        pass

http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
"""

SERVICES = """\
name: shop
services:
  back: {{command: python server.py {whose}}}
  front: {{command: python server.py {whose}, depends_on: [back], routes: [{{path: /}}]}}
"""


@pytest.fixture
def neighbour(tmp_path: Path) -> Iterator[Site]:
    """Another user's node."""
    with opened(tmp_path / "n") as found:
        yield found


def test_what_is_started_beside_another_node_calls_its_own(site: Site, neighbour: Site) -> None:
    """Both have an application of the same name with services of the same names."""
    start(site, "ours")
    start(neighbour, "theirs")

    assert (asked(site), asked(neighbour)) == ("ours", "theirs")


@pytest.mark.parametrize("killed", ["all", "node and gateway"])
def test_a_node_whose_internal_ports_another_took_gets_others(
    site: Site, neighbour: Site, killed: str
) -> None:
    """They were free while it did not run. What lives on is restarted, as it would call the other's."""
    start(site, "ours")
    old = internal_ports(site)
    if killed == "all":
        site.kill_all()
    else:
        kill(site.client.node()["pid"])
        gateway(site).kill()
    start(neighbour, "theirs")

    site.run("up", "-d")
    site.wait_settled()

    assert (asked(site), asked(neighbour)) == ("ours", "theirs")
    told = [event for event in site.client.events() if event["kind"] == "service-readdressed"]
    lost = set(internal_ports(neighbour).values())  # both, where no third node gave ports back meanwhile
    assert {event["service"] for event in told} == {name for name, port in old.items() if port in lost}


def test_an_internal_port_that_a_stranger_took_from_the_gateway_is_left_to_it(site: Site) -> None:
    """The gateway that runs when the node comes back was itself started too late to have it."""
    start(site, "ours")
    ports = internal_ports(site)
    kill(site.client.node()["pid"])
    gateway(site).kill()
    with ExitStack() as strangers:
        for port in ports.values():
            strangers.enter_context(taken(port))
        command = [sys.executable, "-P", "-m", "unisono.gateway", "gateway.sock", "gateway.json"]
        started = subprocess.Popen(command, cwd=site.state, env=site.environment)
        strangers.callback(started.wait)
        strangers.callback(started.kill)
        wait_until(lambda: presence.answers(site.state / "gateway.sock"), "a gateway")
        site.run("up", "-d")
        site.wait_settled()

        assert asked(site) == "ours"


def test_a_copied_state_folder_leaves_instances_to_the_one_it_was_copied_from(
    site: Site, neighbour: Site
) -> None:
    """It says that they are its own, and its services are to run: it has others started."""
    start(site, "ours")
    before = pids(site)
    site.run("node", "stop")
    shutil.copytree(site.state, neighbour.state, ignore=shutil.ignore_patterns("*.sock*", "pipes"))
    start(neighbour, "theirs")
    neighbour.wait_settled()
    site.run("up", "-d")

    assert (asked(site), asked(neighbour)) == ("ours", "theirs")
    assert pids(site) == before
    assert not pids(neighbour) & before


def test_a_moved_state_folder_keeps_its_instances(site: Site) -> None:
    """Nothing else is left where it was."""
    start(site, "ours")
    before = pids(site)
    site.run("node", "stop")
    site.state = site.state.rename(site.state.with_name("moved"))
    site.run("up", "-d")

    assert asked(site) == "ours"
    assert pids(site) == before
    site.run("down")


def start(site: Site, whose: str) -> None:
    """Have an application up whose back answers ``whose``."""
    (site.folder / "server.py").write_text(SERVER)
    site.write(SERVICES.format(whose=whose))
    site.run("up", "-d")


def asked(site: Site) -> str:
    """What the back says through the front."""
    return httpx.get(f"http://127.0.0.1:{site.port}/", timeout=30.0).raise_for_status().text


def gateway(site: Site) -> psutil.Process:
    """The gateway's process."""
    [found] = [process for process in site.processes() if "unisono.gateway" in process.cmdline()]
    return found


def pids(site: Site) -> set[int | None]:
    """The processes of all instances."""
    return {instance["pid"] for service in services(site) for instance in service["instances"]}


def services(site: Site) -> list[ServiceView]:
    """The services of the application."""
    return site.client.application("shop")["services"]


def internal_ports(site: Site) -> dict[str, int]:
    """By the services' names."""
    return {service["name"]: urlsplit(service["internal_url"]).port or 0 for service in services(site)}


@contextmanager
def taken(port: int) -> Iterator[None]:
    """Somebody else listens there, and answers nobody."""
    with socket.socket() as stranger:
        stranger.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        wait_until(lambda: bound(stranger, port), f"port {port}")
        stranger.listen()
        yield


def bound(stranger: socket.socket, port: int) -> bool:
    """Whether it could be bound there now: whoever was killed there may still be closing."""
    try:
        stranger.bind(("127.0.0.1", port))
    except OSError:
        return False
    return True
