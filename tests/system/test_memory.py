"""Shared memory from the file of services to the reader: filled by a node, read in instances."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.store.etcd_server import running
from tests.system.conftest import Site, kill, wait_until
from unisono.node.paths import StateFolder

pytestmark = pytest.mark.system

READER = """\
import http.server, json, os
from unisono import client
from unisono.client import sync

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        name, _, query = self.path[1:].partition("?")
        told = {"tables": sorted(json.loads(os.environ.get("UNISONO_SHARED", "{}"))), "pid": os.getpid()}
        try:
            found = getattr(sync.mirror, "read" if query else "get")("config/limit")
            told["found"] = found and [found.value.decode(), found.revision, found.timestamp is not None]
        except client.NodeError as error:
            told["error"] = [type(error).__name__, str(error)]
        body = json.dumps(told).encode()
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
shared: {config/: 1m}
services:
  open: {command: python reader.py, routes: [{path: /open}]}
  shut: {command: python reader.py, routes: [{path: /shut}], access: {read: [config/a]}}
"""


def ask(site: Site, path: str) -> dict[str, Any]:
    with urllib.request.urlopen(f"http://127.0.0.1:{site.port}/{path}", timeout=30) as answer:
        found: dict[str, Any] = json.load(answer)
    return found


def memory(site: Site) -> list[Path]:
    return list(StateFolder(site.state).shared_memory.glob("*/*"))


@pytest.fixture(params=["sqlite", "etcd"])
def store(request: pytest.FixtureRequest, site: Site) -> Iterator[tuple[str, ...]]:
    """The options that name the node's store, each kind in turn."""
    with ExitStack() as stack:
        etcd = stack.enter_context(running()) if request.param == "etcd" else None
        yield () if etcd is None else ("--store", etcd.url("memory"))


def test_instances_read_what_the_node_fills_through_its_death_until_the_application_goes(
    site: Site, store: tuple[str, ...]
) -> None:
    """Written once, seen in memory; read while no node runs; caught up by the next; taken away by down."""
    site.write(SERVICES)
    (site.folder / "reader.py").write_text(READER)
    site.run("up", "-d", *store)
    site.run("kv", "put", "config/limit", "10")

    wait_until(lambda: (ask(site, "open").get("found") or [""])[0] == "10", "the value in memory")
    first = ask(site, "open")
    assert ["config/"] == first["tables"]
    assert first["found"][2]

    shut = ask(site, "shut")
    assert [] == shut["tables"]
    assert "NotMirrored" == shut["error"][0]
    assert "Refused" == ask(site, "shut?node")["error"][0]

    kill(site.client.node()["pid"])
    assert first["found"] == ask(site, "open")["found"]

    site.start("node")
    site.wait_for_node()
    site.run("kv", "put", "config/limit", "11")
    wait_until(lambda: (ask(site, "open").get("found") or [""])[0] == "11", "the new value in memory")
    assert first["pid"] == ask(site, "open")["pid"]

    assert memory(site)
    site.run("down")
    wait_until(lambda: not memory(site), "the table to go")
