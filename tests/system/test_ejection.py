"""What the gateway sees of an instance reaches the node, and ends nobody by itself: real requests."""

from __future__ import annotations

import pytest

from tests.system.conftest import Site, wait_until
from tests.system.load import Load

pytestmark = pytest.mark.system

SERVER = '''\
"""Is always well by its probe, and answers 500 to everything else while the file `ill` names its pid."""
import http.server, os, pathlib

class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        ill = pathlib.Path("ill")
        fails = self.path != "/healthz" and ill.exists() and ill.read_text() == str(os.getpid())
        self.send_response(500 if fails else 200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"ok")
    def log_message(self, *args):
        pass

http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
'''
SHOP = """
name: shop
services:
  orders:
    command: python ill.py
    scale: 3
    healthcheck: {http: /healthz}
    routes: [{path: /orders}]
"""


def test_an_ejected_instance_is_told_of_and_lives_on(site: Site) -> None:
    """`events` and `ps` say that it gets no requests; it answers its probes, so it is not replaced."""
    (site.folder / "ill.py").write_text(SERVER)
    site.write(SHOP)
    site.run("up", "-d")
    before = {instance["pid"] for instance in site.instances("orders")}
    ill = site.instances("orders")[0]

    with Load(site.port, "/orders") as load:
        load.wait_for_more()
        (site.folder / "ill.new").write_text(str(ill["pid"]))
        (site.folder / "ill.new").rename(site.folder / "ill")
        wait_until(lambda: "instance-ejected" in site.run("events").out, "an ejection that is told")
        wait_until(lambda: "gets no requests" in site.run("ps").out, "a reason in ps")
        (site.folder / "ill").unlink()
        wait_until(lambda: "instance-returned" in site.run("events").out, "a return that is told")

    assert {instance["pid"] for instance in site.instances("orders")} == before
    assert all(not instance["restarts"] for instance in site.instances("orders"))
