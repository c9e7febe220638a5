"""
One run of the storm: a node, clients and a watcher over HTTP, shot at as a seed has it, and judged.

Clients are processes that write down what they ask (:mod:`.client`): services, at the socket and with the
token that those have, so that the data plane answers what it can; and operators. Node and clients are killed
and stopped while they are at it; who was killed is replaced. Afterwards all of the history must keep every
promise.
"""

from __future__ import annotations

import base64
import http.client
import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.ports import free_port
from tests.system.storm import cleaner
from tests.system.storm.client import KEYS, QUOTA, TTL_MS, Api, Client, NotSent, Unknown
from unisono.evaluate.checkers.holdings import Holding, within
from unisono.evaluate.checkers.linearizability import linearizable
from unisono.evaluate.checkers.orders import fenced, rising
from unisono.evaluate.checkers.sessions import revisions, sessions
from unisono.evaluate.checkers.verdict import Verdict
from unisono.evaluate.checkers.watches import Seen, watched
from unisono.evaluate.history import Operation, Outcome, Recorder, load
from unisono.node.identity import Identities, Identity
from unisono.node.paths import StateFolder

CLIENTS = 5
LIMIT = 60.0  # seconds that anything may take on a slow machine
SETTLE = 1.5  # seconds before the first shot and after the last: clients start, and go on undisturbed
MAX_STOP = 2.5  # seconds; longer than a lease, shorter than a client waits for an answer

_REPOSITORY = Path(__file__).parents[3]


@dataclass
class Judged:
    """What came of a run."""

    verdicts: dict[str, Verdict]
    operations: int
    unknown: int
    events: int
    shots: dict[str, int]

    @property
    def violations(self) -> dict[str, Verdict]:
        """Promises that were broken, or that could not be judged."""
        return {promise: verdict for promise, verdict in self.verdicts.items() if not verdict.kept}


class Node:
    """A node in a folder; ``fault`` is planted in it (:mod:`.broken`)."""

    def __init__(self, folder: Path, store: str | None, fault: str | None) -> None:
        self.folder = folder
        self._state = StateFolder(folder / "state")
        self.socket = self._state.api_socket
        self.services = self._state.services_socket
        self._arguments = [
            *(["-m", "tests.system.storm.broken", fault] if fault else ["-m", "unisono", "node"]),
            *("--listen", f"127.0.0.1:{free_port()}"),
            *(["--store", store] if store else []),
        ]
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it and wait until it answers."""
        with (self.folder / "node.log").open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, *self._arguments], stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                env=environment(self.folder), cwd=_REPOSITORY,
            )  # fmt: skip
        deadline = time.monotonic() + LIMIT
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"no node: {(self.folder / 'node.log').read_text()[-2000:]}")
            time.sleep(0.02)

    def know_services(self) -> str:
        """Have an application shop with a service; the token of an instance of it."""
        file = self.folder / "unisono.yaml"
        file.write_text(
            '{"name": "shop", "services": {"web": {"command": ["true"], "deploy": {"replicas": 0}}}}'
        )
        subprocess.run(
            [sys.executable, "-m", "unisono", "up", "-d", "-f", str(file)],
            env=environment(self.folder), cwd=_REPOSITORY, capture_output=True, check=True, timeout=LIMIT,
        )  # fmt: skip
        return Identities.kept_in(self._state.identity_secret).make(Identity("shop", "web", "web-1"))

    def kill(self) -> None:
        """``kill -9``."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def stop(self, seconds: float) -> None:
        """SIGSTOP, and SIGCONT after a while."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)
        time.sleep(seconds)
        self._process.send_signal(signal.SIGCONT)

    def _answers(self) -> bool:
        try:
            return Api(str(self.socket)).ask("GET", "/v1/kv/none").status in (200, 404)
        except (NotSent, Unknown):
            return False


@dataclass
class Actor:
    """A client's process, and when it was killed."""

    name: str
    history: Path
    process: subprocess.Popen[bytes]
    killed_at: int | None = None

    def kill(self) -> None:
        """``kill -9``; what it held is held no longer than this moment."""
        self.killed_at = time.monotonic_ns()
        self.process.kill()
        self.process.wait()


class Watcher(threading.Thread):
    """Follows all changes, goes on after the last one when the stream breaks, and keeps what it was told."""

    def __init__(self, path: str) -> None:
        super().__init__(daemon=True)
        self._path = path
        self.seen: list[Seen] = []
        self.wanted = threading.Event()
        self.ended = threading.Event()
        self.failure: BaseException | None = None

    def run(self) -> None:
        """Until it is told to end."""
        try:
            while not self.ended.is_set():
                with suppress(OSError, EOFError):
                    self._follow()
                time.sleep(0.05)
        except BaseException as error:
            self.failure = error
            raise

    def _follow(self) -> None:
        connection = http.client.HTTPConnection("node", timeout=3.0)
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.settimeout(3.0)
        after = self.seen[-1].revision if self.seen else 0
        try:
            connection.sock.connect(self._path)
            headers = {"last-event-id": str(after)}
            connection.request("GET", "/v1/watch?namespace=shop&after=0", headers=headers)
            response = connection.getresponse()
            if response.status != 200:
                response.read()
                return
            event = {}
            while line := response.readline():
                text = line.decode().rstrip("\n")
                if ": " in text and not text.startswith(":"):
                    name, _, event[name] = text.partition(": ")
                elif not text and "data" in event:
                    self._note(event)
                    event = {}
                if self.ended.is_set():
                    return
        except http.client.HTTPException as error:
            raise EOFError from error
        finally:
            connection.close()

    def _note(self, event: dict[str, str]) -> None:
        data = json.loads(event["data"])
        changes = [(one["key"], _decoded(one.get("value"))) for one in data["changes"]]
        self.seen.append(Seen(revision=data["revision"], changes=changes, resync=event["event"] == "resync"))


@dataclass
class Storm:
    """A run under way."""

    folder: Path
    node: Node
    token: str
    chance: random.Random
    actors: list[Actor] = field(default_factory=list)
    shots: dict[str, int] = field(default_factory=dict)

    def shoot(self) -> None:
        """One fault, chosen at random, and its end."""
        what = self.chance.choice(("kill the node", "stop the node", "kill a client", "stop a client"))
        self.shots[what] = self.shots.get(what, 0) + 1
        alive = [actor for actor in self.actors if actor.killed_at is None]
        actor = self.chance.choice(alive)
        pause = self.chance.uniform(0.05, MAX_STOP)
        match what:
            case "kill the node":
                self.node.kill()
                self.node.start()
            case "stop the node":
                self.node.stop(pause)
            case "kill a client":
                actor.kill()
                self.add()
            case _:
                actor.process.send_signal(signal.SIGSTOP)
                time.sleep(pause)
                actor.process.send_signal(signal.SIGCONT)

    def add(self) -> None:
        """One client more: a service, an operator, a service, …"""
        name = f"c{len(self.actors)}"
        serves = len(self.actors) % 2 == 0
        path, token = (self.node.services, [self.token]) if serves else (self.node.socket, [])
        history = self.folder / f"{name}.history"
        process = subprocess.Popen(
            [
                sys.executable, "-m", "tests.system.storm.client",
                str(path), str(history), name, str(self.chance.random()), *token,
            ],
            stdin=subprocess.PIPE, env=environment(self.folder), cwd=_REPOSITORY,
        )  # fmt: skip
        self.actors.append(Actor(name, history, process))

    def wait_for(self, operations: int) -> None:
        """Wait until clients have written down so many, each in two lines, or can't."""
        deadline = time.monotonic() + LIMIT
        while time.monotonic() < deadline:
            if (
                sum(one.history.read_bytes().count(b"\n") for one in self.actors if one.history.exists())
                >= operations
            ):
                return
            time.sleep(0.1)

    def finish(self) -> None:
        """Let every client that is left end what it is at."""
        for actor in self.actors:
            if actor.killed_at is None:
                assert actor.process.stdin is not None
                actor.process.stdin.close()
        for actor in self.actors:
            if actor.killed_at is None and actor.process.wait(LIMIT) != 0:
                raise RuntimeError(f"client {actor.name} failed")


def run(
    seed: int,
    *,
    store: str | None = None,
    fault: str | None = None,
    shots: int = 8,
    seconds: float = 0.4,
    operations: int = 0,
) -> Judged:
    """
    One run.

    Args:
        store: As of ``unisono node --store``; ``None``: SQLite in the node's folder.
        fault: Planted in the node; several have commas between them.
        shots: So many kills and stops.
        seconds: Between them, on average.
        operations: At least so many are judged, however slow the machine.

    Raises:
        RuntimeError: The node did not start, or a client failed.
    """
    chance = random.Random(seed)
    with _folder() as folder:
        node = Node(folder, store, fault)
        node.start()
        made = Api(str(node.socket)).ask("PUT", "/v1/quotas/q", {"size": QUOTA})
        if made.status != 200:
            raise RuntimeError(f"no quota: {made.body!r}")
        watcher = Watcher(str(node.socket))
        watcher.start()
        storm = Storm(folder, node, node.know_services(), chance)
        for _ in range(CLIENTS):
            storm.add()
        time.sleep(SETTLE)
        for _ in range(shots):
            time.sleep(chance.expovariate(1 / seconds))
            storm.shoot()
        time.sleep(SETTLE)
        storm.wait_for(operations)
        storm.finish()
        _look_back(folder, node, watcher)
        history = load(folder.glob("*.history"))
        return _judge(history, storm, watcher)


def _look_back(folder: Path, node: Node, watcher: Watcher) -> None:
    """Read everything once more, and wait until the watcher has come as far as the writes have."""
    recorder = Recorder(folder / "last.history", "last")
    client = Client(Api(str(node.socket)), recorder, "last", random.Random(0))
    for key in (*KEYS, "guarded"):
        client.get(key)
    client.both()
    api = Api(str(node.socket))
    deadline = time.monotonic() + LIMIT
    while not any(key == "end" for one in watcher.seen for key, _ in one.changes):
        if watcher.failure is not None:
            raise RuntimeError("the watcher failed") from watcher.failure
        if time.monotonic() > deadline:
            raise RuntimeError("the watch never came to the end")
        api.ask("PUT", "/v1/kv/end", b'"end"')
        time.sleep(0.1)
    watcher.ended.set()
    watcher.join(LIMIT)


def _judge(history: list[Operation], storm: Storm, watcher: Watcher) -> Judged:
    registers = [one for one in history if one.action in ("get", "put", "delete", "cas")]
    keys = [one for one in registers if one.key != "pair"]
    tokens = [one for one in history if one.action == "lock"]
    return Judged(
        verdicts={
            "linearizable": linearizable(registers),
            "sessions": sessions(keys),
            "revisions": revisions(keys),
            "timestamps rise": rising(one for one in history if one.action == "tso"),
            "tokens rise": rising(tokens),
            "writes are fenced": fenced(one for one in keys if one.key == "guarded"),
            "the lock has one holder": within(1, _held(history, storm.actors, "lock", "unlock")),
            "the quota is kept": within(QUOTA, _held(history, storm.actors, "take", "give")),
            "watch": watched(watcher.seen, keys, after=0),
        },
        operations=len(history),
        unknown=sum(one.outcome is Outcome.UNKNOWN for one in history),
        events=len(watcher.seen),
        shots=storm.shots,
    )


def _held(history: Iterable[Operation], actors: Iterable[Actor], take: str, give: str) -> Iterator[Holding]:
    """What was surely held: no longer than the lease, the holder, and its own wish."""
    history = list(history)
    killed = {actor.name: actor.killed_at for actor in actors if actor.killed_at is not None}
    leased = {one.result: one.called for one in history if one.action == "lease"}
    given = {one.expected: one.called for one in history if one.action == give}
    for one in history:
        if one.action != take or one.outcome is not Outcome.DONE or one.returned is None:
            continue
        ends = [leased[one.expected] + TTL_MS * 1_000_000]
        ends += [moment for moment in (given.get(one.expected), killed.get(one.client)) if moment is not None]
        amount = one.value if take == "take" else 1
        yield Holding(name=one.key, holder=one.client, amount=amount, since=one.returned, until=min(ends))


def _decoded(value: str | None) -> Any:
    return None if value is None else json.loads(base64.b64decode(value))


def environment(folder: Path) -> dict[str, str]:
    """Of all processes of a run."""
    return {**os.environ, "UNISONO_STATE": str(folder / "state")}


@contextmanager
def _folder() -> Iterator[Path]:
    """A folder for a run; processes that know of it are ended with it, and with this process."""
    folder = Path(tempfile.mkdtemp(prefix="unisono-storm-"))
    with subprocess.Popen(
        [sys.executable, "-m", cleaner.__name__, str(folder)],
        stdin=subprocess.PIPE, cwd=_REPOSITORY, start_new_session=True,
    ) as cleaning:  # fmt: skip
        assert cleaning.stdin is not None
        try:
            yield folder
        finally:
            cleaning.stdin.close()
            cleaning.wait(LIMIT)
