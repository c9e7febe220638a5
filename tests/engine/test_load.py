"""The load generator: what it sends, what it counts, and what it says of it."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from unisono import _engine


class Handler(BaseHTTPRequestHandler):
    """Answers with the status in the path, and keeps what it was sent."""

    protocol_version = "HTTP/1.1"
    seen: list[tuple[str, str, bytes, str | None]]

    def do_GET(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.seen.append((self.command, self.path, body, self.headers.get("X-Own")))
        status = int(self.path.partition("?")[0].rsplit("/", 1)[-1])
        if status == 0:
            self.close_connection = True
            return
        self.send_response(status)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"ok")

    def do_POST(self) -> None:
        self.do_GET()

    def log_message(self, format: str, *args: Any) -> None:
        """Says nothing."""


@contextmanager
def serving() -> Iterator[tuple[str, list[tuple[str, str, bytes, str | None]]]]:
    """A server's URL, and what it was sent."""
    seen: list[tuple[str, str, bytes, str | None]] = []
    handler = type("OwnHandler", (Handler,), {"seen": seen})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}", seen
        finally:
            server.shutdown()
            thread.join()


def test_a_closed_loop_counts_every_request() -> None:
    """What the report counts is what the server saw."""
    with serving() as (url, seen):
        load = _engine.Load(f"{url}/a/200?b=200", connections=2, duration=0.2, headers=[("X-Own", "1")])
        report = json.loads(load.run())

    assert report["requests"] == report["statuses"]["200"] == len(seen) > 0
    assert (report["failed"], seen[0]) == (0, ("GET", "/a/200?b=200", b"", "1"))
    latency = report["latency_ms"]
    ordered = [latency[name] for name in ("p50", "p90", "p99", "p99_9")]
    assert ordered == sorted(ordered)
    assert 0 < ordered[0] <= latency["max"]


def test_an_open_loop_keeps_its_rate() -> None:
    """Requests come at the rate, however quickly they are answered."""
    with serving() as (url, seen):
        with _engine.Load(f"{url}/200", rate=100, method="POST", body=b"hello") as load:
            while len(seen) < 50:
                time.sleep(0.01)
        report = json.loads(load.report())

    assert seen[0] == ("POST", "/200", b"hello", None)
    assert report["rate"] < 200


def test_each_request_can_be_reported() -> None:
    """Samples say of each request when it was to go out, how long it took and how it was answered."""
    with serving() as (url, _):
        report = json.loads(_engine.Load(f"{url}/503", rate=200, duration=0.5, samples=True).run())

    assert len(report["samples"]) == report["requests"]
    assert {status for _, _, status in report["samples"]} == {503}
    assert all(0 <= at <= 500_000 and took > 0 for at, took, _ in report["samples"])


def test_what_an_open_loop_cannot_send_is_counted() -> None:
    """Requests that were due and found all connections busy are not forgotten."""
    with closing(socket.socket()) as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/"
        report = json.loads(
            _engine.Load(url, connections=1, rate=500, duration=0.3, timeout=0.2, samples=True).run()
        )

    assert report["unsent"] > 0
    assert report["failures"]["timeout"] == report["requests"]


def test_failures_are_told_apart() -> None:
    """A bad status, a broken connection, none at all: each is counted as what it is, with its time."""
    with serving() as (url, _):
        status = json.loads(_engine.Load(f"{url}/503", duration=0.1, series=True).run())
        reset = json.loads(_engine.Load(f"{url}/0", duration=0.1).run())
    with closing(socket.socket()) as silent:
        silent.bind(("127.0.0.1", 0))
        port = silent.getsockname()[1]
        connect = json.loads(_engine.Load(f"http://127.0.0.1:{port}/", duration=0.1).run())
        silent.listen()
        late = json.loads(_engine.Load(f"http://127.0.0.1:{port}/", duration=0.1, timeout=0.05).run())

    kinds = {
        kind: report["failures"][kind] == report["failed"] > 0
        for kind, report in (("status", status), ("reset", reset), ("connect", connect), ("timeout", late))
    }
    assert kinds == {"status": True, "reset": True, "connect": True, "timeout": True}
    assert {(one["kind"], one["status"]) for one in status["series"]} == {("status", 503)}


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"url": "ftp://a"}, "http://"),
        ({"url": "http://a", "connections": 0}, "connections"),
        ({"url": "http://a", "rate": 0.0}, "rate"),
        ({"url": "http://a", "duration": -1.0}, "duration"),
        ({"url": "http://a", "method": "G T"}, "G T"),
    ],
)
def test_a_plan_that_makes_no_sense_is_refused(arguments: dict[str, Any], named: str) -> None:
    """The error names what was given."""
    with pytest.raises(ValueError, match=named):
        _engine.Load(**arguments)


def test_a_load_that_was_never_started_has_no_report() -> None:
    """And one without a duration can't just be run."""
    load = _engine.Load("http://127.0.0.1:1/")

    with pytest.raises(RuntimeError):
        load.report()
    with pytest.raises(ValueError, match="duration"):
        load.run()


async def test_others_run_while_the_load_does() -> None:
    """The interpreter is free for other threads meanwhile."""
    turns = 0
    with serving() as (url, _):
        running = asyncio.create_task(asyncio.to_thread(_engine.Load(f"{url}/200", duration=0.3).run))
        while not running.done():
            turns += 1
            await asyncio.sleep(0.001)

    assert turns > 3
