"""Stamps of the hybrid logical clock between real services: causes come first, whoever is between."""

from __future__ import annotations

import http.client
import json

import pytest

from tests.system.conftest import Site

pytestmark = pytest.mark.system

# A service that knows nothing of stamps: it takes none from its request, and gives none to what it calls.
MIDDLE = """\
import http.server, os, urllib.request

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        with urllib.request.urlopen(os.environ["BACK_URL"] + "/back", timeout=30) as answer:
            body = answer.read()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *args):
        pass

http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
"""

# Answers with the stamp that its request bore.
BACK = """\
import http.server, json, os

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = json.dumps({"got": self.headers.get_all("unisono-clock")}).encode()
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
  middle: {command: python middle.py, routes: [{path: /middle}], depends_on: [back]}
  back: {command: python back.py}
"""


def test_a_stamp_is_followed_through_a_service_that_knows_nothing_of_it(site: Site) -> None:
    """The last service's request is stamped above the client's, and the answer above that."""
    site.write(SERVICES)
    (site.folder / "middle.py").write_text(MIDDLE)
    (site.folder / "back.py").write_text(BACK)
    site.run("up", "-d")
    clock = site.run("clock", "--json").json
    # A client whose clock is ahead, as far as it may be: nothing but the stamp itself gets above it in time.
    sent = int(clock["hlc"], 16) + (clock["max_drift_ms"] - 1 << 16)
    connection = http.client.HTTPConnection("127.0.0.1", site.port, timeout=30)
    connection.request("GET", "/middle", headers={"unisono-clock": f"{sent:016x}"})
    answer = connection.getresponse()
    [got] = json.loads(answer.read())["got"]
    answered = answer.getheader("unisono-clock")
    connection.close()

    assert answered is not None
    assert sent < int(got, 16) < int(answered, 16)
