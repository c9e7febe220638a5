"""
A participant in memory, in any language's manner: right as it stands, or with one fault.

It holds one number, the sum of its effects, and serves it at /state. Each fault takes one guard away, but for
"early hints", which is none.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

MODES = {"saga": ("action", None, "compensate"), "tcc": ("try", "confirm", "cancel")}

# fault: the case that must find it, and what it needs to be found
FAULTS = {
    "undo of nothing fails": "null",
    "undo of nothing takes effect": "null",
    "forward after undo runs": "suspended",
    "forward after undo says 200": "suspended",
    "duplicate runs again": "duplicate",
    "duplicate answers otherwise": "duplicate",
    "undo does nothing": "undone",
    "second undo runs again": "undone twice",
    "second undo fails": "undone twice",
    "forward after undone runs": "forward after undo",
    "looks before it inserts": "overlapping duplicates",
    "overlap is refused for good": "overlapping duplicates",
    "undo overtakes": "overlapping undo",
    "undos overlap": "overlapping undos",
    "finishes overlap": "overlapping finishes",
    "undo takes all branches back": "two branches",
    "gids are cut": "alike names",
    "gids have no case": "alike names",
    "branches are cut": "alike names",
    "any branch": "bad calls",
    "no JSON": "null",
    "long replies": "duplicate",
    "epoch is ignored": "late coordinator",
    "branch is ignored": "two branches",
    "any operation": "bad calls",
    "any transaction": "bad calls",
    "any payload": "bad calls",
    "finish fails": "finished",
    "second finish runs again": "finished",
    "finish of nothing": "finish without forward",
    "finish after undo": "finish after undo",
    "undo after finish": "undo after finish",
    "forward after finish runs": "late forward",
    "redirects": "null",
    "hangs": "null",
    "half a body": "null",
}


class Memory:
    """The participant's state, and what a call does to it."""

    def __init__(self, mode: str, fault: str) -> None:
        self.forward, self.finish, self.undo = MODES[mode]
        self.sum = 0
        self._fault = fault
        self._lock = threading.RLock()
        self._rows: dict[tuple[str, str], dict[str, Any]] = {}
        self._numbers = iter(range(1, 1_000_000))

    def call(self, op: str, headers: dict[str, str], body: bytes) -> tuple[int, Any]:
        """Status and content."""
        gid = headers.get("transaction-id") or ("any" if self._fault == "any transaction" else "")
        if not gid:
            return 400, "Transaction-Id is missing"
        try:
            json.loads(body)
        except ValueError:
            if self._fault != "any payload":
                return 400, "the payload is not JSON"
        branch = headers.get("transaction-branch") or ("any" if self._fault == "any branch" else "")
        if not branch:
            return 400, "Transaction-Branch is missing"
        if self._fault == "branch is ignored":
            branch = "b"
        gid, branch = self._as_kept(gid, branch)
        epoch = int(headers["transaction-epoch"])
        if self._fault in ("looks before it inserts", "undo overtakes", "overlap is refused for good"):
            return self._careless(op, (gid, branch), epoch)
        if self._fault in ("undos overlap", "finishes overlap"):
            return self._carelessly_twice(op, (gid, branch), epoch)
        with self._lock:
            return self._decide(op, (gid, branch), epoch)

    def _carelessly_twice(self, op: str, key: tuple[str, str], epoch: int) -> tuple[int, Any]:
        """It looks, then works, then writes down that it did."""
        row = dict(self._rows.get(key, {}))
        careless = self.undo if self._fault == "undos overlap" else self.finish
        if op != careless or row.get("state") != "done":
            with self._lock:
                return self._decide(op, key, epoch)
        time.sleep(0.02)
        with self._lock:
            self._rows[key]["state"] = "done"
            return self._decide(op, key, epoch)

    def _as_kept(self, gid: str, branch: str) -> tuple[str, str]:
        """As a column that is too short, or one of MySQL, keeps names."""
        if self._fault == "gids have no case":
            return gid.lower(), branch
        return (
            gid[:36] if self._fault == "gids are cut" else gid,
            branch[:16] if self._fault == "branches are cut" else branch,
        )

    def _careless(self, op: str, key: tuple[str, str], epoch: int) -> tuple[int, Any]:
        if op == self.forward and key not in self._rows:
            if self._fault == "overlap is refused for good":
                if not self._lock.acquire(blocking=False):
                    return 409, "busy"
                try:
                    time.sleep(0.02)
                    return self._decide(op, key, epoch)
                finally:
                    self._lock.release()
            time.sleep(0.02)  # it looked, now it works
            if self._fault == "undo overtakes":
                with self._lock:
                    if self._rows.get(key, {}).get("state") == "fenced":
                        self._rows.pop(key)  # what it saw before is all it knows
                    return self._decide(op, key, epoch)
            self._rows[key] = self._new(epoch)
            self.sum += 1
            return 200, self._rows[key]["reply"]
        with self._lock:
            return self._decide(op, key, epoch)

    def _new(self, epoch: int) -> dict[str, Any]:
        reply = {"number": next(self._numbers), "more": "x" * 70_000 * (self._fault == "long replies")}
        return {"state": "done", "epoch": epoch, "reply": reply}

    def _decide(self, op: str, key: tuple[str, str], epoch: int) -> tuple[int, Any]:
        fault, row = self._fault, self._rows.get(key)
        if row is not None and epoch < row["epoch"] and fault != "epoch is ignored":
            return 409, "fenced"
        if row is not None:
            row["epoch"] = max(epoch, row["epoch"])
        if op == self.forward:
            return self._go_forward(key, row, epoch)
        if op == self.undo:
            return self._go_back(key, row, epoch)
        if op == self.finish:
            return self._end(row)
        return (200, None) if fault == "any operation" else (404, "no such operation")

    def _go_forward(self, key: tuple[str, str], row: dict[str, Any] | None, epoch: int) -> tuple[int, Any]:
        state = row["state"] if row else None
        again = {
            "fenced": "forward after undo runs",
            "done": "duplicate runs again",
            "undone": "forward after undone runs",
            "finished": "forward after finish runs",
        }
        if row is None or again[str(state)] == self._fault:
            self.sum += 1
            if row is None:
                self._rows[key] = row = self._new(epoch)
            return 200, row.get("reply")
        if state == "fenced" and self._fault == "forward after undo says 200":
            return 200, None
        if state in ("fenced", "undone"):
            return 409, "fenced"
        return 200, {"number": 0} if self._fault == "duplicate answers otherwise" else row["reply"]

    def _go_back(self, key: tuple[str, str], row: dict[str, Any] | None, epoch: int) -> tuple[int, Any]:
        fault = self._fault
        if row is None:
            self._rows[key] = {"state": "fenced", "epoch": epoch}
            self.sum -= fault == "undo of nothing takes effect"
            return (500, "what?") if fault == "undo of nothing fails" else (204, None)
        if row["state"] == "done":
            row["state"] = "undone"
            if fault == "undo takes all branches back":
                others = [o for k, o in self._rows.items() if k[0] == key[0] and o["state"] == "done"]
                for other in others:
                    other["taken"] = True
                self.sum -= len(others)
            if row.get("taken"):
                return 204, None
            self.sum -= fault != "undo does nothing"
            return 204, None
        if row["state"] == "finished" and fault != "undo after finish":
            return 409, "contradiction"
        self.sum -= row["state"] == "undone" and fault == "second undo runs again"
        return (404, "gone") if row["state"] == "undone" and fault == "second undo fails" else (204, None)

    def _end(self, row: dict[str, Any] | None) -> tuple[int, Any]:
        fault = self._fault
        if fault == "finish fails":
            return 500, "what?"
        if row is None:
            return (204, None) if fault == "finish of nothing" else (409, "nothing to confirm")
        if row["state"] == "done" or (row["state"] == "finished" and fault == "second finish runs again"):
            row["state"] = "finished"
            self.sum += 100
            return 204, None
        if row["state"] == "finished" or fault == "finish after undo":
            return 204, None
        return 409, "contradiction"


@contextmanager
def served(mode: str, fault: str = "") -> Iterator[str]:
    """Its URL for the block."""
    memory = Memory(mode, fault)
    release = threading.Event()
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(memory, fault, release))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        release.set()
        server.shutdown()
        thread.join()
        server.server_close()


def _handler(memory: Memory, fault: str, release: threading.Event) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: Any) -> None:
            """Be quiet."""

        def do_GET(self) -> None:
            self._say(200, memory.sum)

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            op = self.path.rpartition("/")[2]
            headers = {name.lower(): value for name, value in self.headers.items()}
            busy = fault == "is always busy"
            status, content = (425, None) if busy else memory.call(op, headers, body)
            if op != memory.undo or not _is_hurt(self, fault, release):
                self._say(status, content)

        def _say(self, status: int, content: Any) -> None:
            body = b"" if content is None else json.dumps(content).encode()
            if fault == "early hints":
                self.wfile.write(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n")
            self.send_response(status)
            if status != 204:
                self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    return Handler


def _is_hurt(handler: BaseHTTPRequestHandler, fault: str, release: threading.Event) -> bool:
    """The faults of the wire."""
    if fault == "redirects":
        handler.send_response(307)
        handler.send_header("Location", "/elsewhere")
        handler.send_header("Content-Length", "0")
        handler.end_headers()
    elif fault == "hangs":
        release.wait(30)
        handler.close_connection = True
    elif fault == "no JSON":
        handler.send_response(200)
        handler.send_header("Content-Type", "application/json")
        handler.send_header("Content-Length", "2")
        handler.end_headers()
        handler.wfile.write(b"ok")
    elif fault == "half a body":
        handler.send_response(200)
        handler.send_header("Content-Length", "100")
        handler.end_headers()
        handler.wfile.write(b'{"half": ')
        handler.close_connection = True
    else:
        return False
    return True
