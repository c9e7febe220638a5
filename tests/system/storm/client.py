"""
A client of the node's state over HTTP, in a process of its own, which writes down what it asks and hears.

    python -m tests.system.storm.client SOCKET HISTORY NAME SEED [TOKEN]

With a token it is a service, at the socket where those ask; else an operator.

It goes on until it is killed or its standard input ends. What is expected of it is in :mod:`.run`.
"""

from __future__ import annotations

import base64
import http.client
import json
import os
import random
import select
import socket
import sys
from pathlib import Path
from typing import Any

from unisono.evaluate.history import Call, Recorder

KEYS = ("a", "b", "c")
PAIR = ("pair/left", "pair/right")
QUOTA = 3
TTL_MS = 1500
TIMEOUT = 4.0  # seconds; a node that was stopped for less answers in time
PAUSE = 0.005  # seconds between two steps, so that clients and node share two cores
_REPEATS = 20

_NO_EFFECT = {400, 401, 403, 404, 409, 410, 412, 413, 422, 503}


class Unknown(Exception):
    """The request went out, and what came of it nobody knows."""


class NotSent(Exception):
    """Nobody was there to take the request."""


class Answer:
    """A status, headers, and the body."""

    def __init__(self, response: http.client.HTTPResponse) -> None:
        self.status = response.status
        self.headers = response.headers
        self.body = response.read()

    @property
    def json(self) -> Any:
        """The body's content."""
        return json.loads(self.body)

    @property
    def revision(self) -> int:
        """As of when it holds."""
        return int(self.headers["unisono-revision"])


class Api:
    """Requests to the node at a Unix socket, one at a time, on one connection while it lasts."""

    def __init__(self, path: str, token: str | None = None) -> None:
        self._path = path
        self._token = token
        self._connection: http.client.HTTPConnection | None = None

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> Answer:
        """
        Ask once.

        Raises:
            NotSent, Unknown: There was no answer.
        """
        connection = self._connection or self._connect()
        self._connection = None
        content = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        if content is not None and not isinstance(body, bytes):
            named["content-type"] = "application/json"
        if self._token is None:
            path += ("&" if "?" in path else "?") + "namespace=shop"
        else:  # it names the application; and without a query, what is plain is answered by the data plane
            named["authorization"] = f"Bearer {self._token}"
        try:
            connection.request(method, path, content, named)
            answer = Answer(connection.getresponse())
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            raise Unknown from error
        self._connection = connection
        return answer

    def _connect(self) -> http.client.HTTPConnection:
        connection = http.client.HTTPConnection("node", timeout=TIMEOUT)
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.settimeout(TIMEOUT)
        try:
            connection.sock.connect(self._path)
        except OSError as error:
            connection.sock.close()
            raise NotSent from error
        return connection


class Client:
    """Asks at random and records; a value is never written twice."""

    def __init__(self, api: Api, recorder: Recorder, name: str, chance: random.Random) -> None:
        self._api = api
        self._recorder = recorder
        self._name = name
        self._chance = chance
        self._count = 0
        self._versions: dict[str, tuple[Any, int]] = {}

    def step(self) -> None:
        """One thing that services do with shared state."""
        steps = (self.get, self.get, self.put, self.cas, self.delete, self.pair, self.both, self.time)
        rare = (self.locked, self.limited)
        self._chance.choice(steps if self._chance.random() < 0.75 else rare)()

    def get(self, key: str | None = None) -> None:
        """Read a key."""
        key = key or self._chance.choice(KEYS)
        with self._recorder.call("get", key=key) as call:
            answer = self._once(call, "GET", f"/v1/kv/{key}", refused={404})
            if answer is None:
                return
            there = answer.status == 200
            value = json.loads(answer.body) if there else None
            version = int(answer.headers["etag"].strip('"')) if there else 0
            call.done(result=value, version=version, revision=answer.revision)
            self._versions[key] = (value, version)

    def put(self) -> None:
        """Set a key, repeated under its id until it is known what came of it, or just once."""
        key, value = self._chance.choice(KEYS), self._value()
        with self._recorder.call("put", key=key, value=value) as call:
            headers = {"idempotency_key": value} if self._chance.random() < 0.5 else {}
            answer = self._until_known(call, "PUT", f"/v1/kv/{key}", json.dumps(value).encode(), **headers)
            if answer is not None:
                call.done(revision=answer.revision)

    def cas(self) -> None:
        """Set a key if it is as it was last seen."""
        key, value = self._chance.choice(KEYS), self._value()
        expected, version = self._versions.get(key, (None, 0))
        condition = {"if_match": f'"{version}"'} if version else {"if_none_match": "*"}
        with self._recorder.call("cas", key=key, value=value, expected=expected) as call:
            content = json.dumps(value).encode()
            answer = self._once(call, "PUT", f"/v1/kv/{key}", content, refused={412}, **condition)
            if answer is not None:
                call.done(result=answer.status == 200, revision=answer.revision)

    def delete(self) -> None:
        """Remove a key, now and then."""
        if self._chance.random() < 0.7:
            return self.get()
        key = self._chance.choice(KEYS)
        with self._recorder.call("delete", key=key) as call:
            answer = self._once(call, "DELETE", f"/v1/kv/{key}")
            if answer is not None:
                call.done(revision=answer.revision)

    def pair(self) -> None:
        """Set two keys at once."""
        value = self._value()
        encoded = base64.b64encode(json.dumps(value).encode()).decode()
        changes = [{"put": key, "value": encoded} for key in PAIR]
        with self._recorder.call("put", key="pair", value=[value, value]) as call:
            answer = self._until_known(
                call, "POST", "/v1/kv:txn", {"success": changes, "request_id": value}, idempotency_key=value
            )
            if answer is not None:
                call.done()

    def both(self) -> None:
        """Read two keys at once."""
        with self._recorder.call("get", key="pair") as call:
            answer = self._once(call, "GET", "/v1/kv?prefix=pair/")
            if answer is not None:
                values = [json.loads(base64.b64decode(one["value"])) for one in answer.json["entries"]]
                call.done(result=values or None)

    def time(self) -> None:
        """Take timestamps."""
        count = self._chance.randrange(1, 50)
        with self._recorder.call("tso", value=count) as call:
            answer = self._once(call, "POST", "/v1/tso", {"count": count})
            if answer is not None:
                call.done(result=int(answer.json["first"]))

    def locked(self) -> None:
        """Do something under a lock; whether it is still held, the fence says."""
        lease = self._lease()
        if lease is None:
            return
        with self._recorder.call("lock", key="l", expected=lease) as call:
            answer = self._once(call, "POST", "/v1/locks/l:acquire", {"lease": lease, "wait_ms": 500})
            if answer is not None:
                call.done(result=answer.json["token"])
        if answer is not None:
            held = answer.json
            for _ in range(self._chance.randrange(1, 4)):
                value = self._value()
                with self._recorder.call("put", key="guarded", value=value, token=held["token"]) as call:
                    written = self._once(
                        call, "PUT", "/v1/kv/guarded", json.dumps(value).encode(), unisono_fence=held["fence"]
                    )
                    if written is not None:
                        call.done(revision=written.revision)
            with self._recorder.call("unlock", key="l", expected=lease) as call:
                body = {"lease": lease, "token": held["token"]}
                if self._once(call, "POST", "/v1/locks/l:release", body) is not None:
                    call.done()
        self._end(lease)

    def limited(self) -> None:
        """Take some of a quota for a while."""
        lease = self._lease()
        if lease is None:
            return
        name, amount = self._value(), self._chance.randrange(1, 4)
        body = {"amount": amount, "lease": lease, "request_id": name}
        with self._recorder.call("take", key="q", value=amount, expected=lease) as call:
            answer = self._once(call, "POST", "/v1/quotas/q:acquire", body)
            if answer is not None:
                call.done()
        select.select([], [], [], 0.05)
        with self._recorder.call("give", key="q", expected=lease) as call:
            if self._once(call, "POST", "/v1/quotas/q:release", {"request_id": name}) is not None:
                call.done()
        self._end(lease)

    def _lease(self) -> str | None:
        """A lease that ends with this process."""
        with self._recorder.call("lease") as call:
            answer = self._once(call, "POST", "/v1/leases", {"ttl_ms": TTL_MS, "pid": os.getpid()})
            if answer is None:
                return None
            lease = str(answer.json["lease"])
            call.done(result=lease)
            return lease

    def _end(self, lease: str) -> None:
        with self._recorder.call("end", expected=lease) as call:
            if self._once(call, "DELETE", f"/v1/leases/{lease}") is not None:
                call.done()

    def _once(
        self,
        call: Call,
        method: str,
        path: str,
        body: Any = None,
        refused: set[int] | None = None,
        **headers: str,
    ) -> Answer | None:
        """An answer that was as asked for, or else None and what is known is said."""
        try:
            answer = self._api.ask(method, path, body, **headers)
        except NotSent:
            call.not_done()
            select.select([], [], [], 0.05)  # the node is being started
            return None
        except Unknown:
            return None
        if answer.status < 400 or answer.status in (refused or ()):
            return answer
        if answer.status in _NO_EFFECT:
            call.not_done()
        return None

    def _until_known(self, call: Call, method: str, path: str, body: Any, **headers: str) -> Answer | None:
        """As :meth:`_once`; repeated, where that has one effect, while it is not known what came of it."""
        for attempt in range(_REPEATS if headers else 1):
            trial = Call()
            answer = self._once(trial, method, path, body, **headers)
            if answer is not None:
                return answer
            if trial.outcome is trial.outcome.NOT_DONE and attempt == 0:
                call.not_done()
                return None
            select.select([], [], [], 0.1)
        return None

    def _value(self) -> str:
        self._count += 1
        return f"{self._name}-{self._count}"


def main() -> None:
    """Ask until standard input ends."""
    path, history, name, seed, *token = sys.argv[1:]
    client = Client(Api(path, *token), Recorder(Path(history), name), name, random.Random(seed))
    while not select.select([sys.stdin], [], [], 0)[0]:
        client.step()
        select.select([], [], [], PAUSE)


if __name__ == "__main__":
    main()
