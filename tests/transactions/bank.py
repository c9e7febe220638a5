"""
The participants of the simulation: accounts behind a fence as the contract asks for it.

They see what must never be: a branch that is called before it is in the log, an effect twice, an order that
was not asked for, two processes with one epoch. Whatever they see goes to ``violate``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import Any

from pydantic_core import from_json

from tests.transactions.disk import Disk
from unisono.transactions.calls import Reply
from unisono.transactions.modes import OPERATIONS, Mode
from unisono.transactions.states import ABORT, COMMIT

MONEY = 100
"""On each account, when it begins."""


@dataclass
class Book:
    """What the initiators asked for, by gid."""

    specs: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    modes: dict[str, Mode] = field(default_factory=dict)
    sent: dict[str, bool] = field(default_factory=dict)
    """Of messages: whether the initiator's own local transaction committed."""

    def after(self, gid: str, branch: str) -> list[str]:
        return next((s.get("after", []) for s in self.specs[gid] if s["id"] == branch), [])

    def before(self, gid: str, branch: str) -> list[str]:
        return [spec["id"] for spec in self.specs[gid] if branch in spec.get("after", [])]


@dataclass
class Known:
    """What a participant knows of one branch."""

    state: str = "new"  # new, done, refused, finished, undone
    amount: int = 0
    effects: Counter[str] = field(default_factory=Counter)
    epoch: int = 0


class Bank:
    """All participants: accounts, and a fence as the contract asks for it."""

    def __init__(self, book: Book, disk: Disk, chance: Random, violate: Callable[[str], None]) -> None:
        self._book = book
        self._disk = disk
        self._chance = chance
        self._violate = violate
        self.accounts = {"a": MONEY, "b": MONEY, "c": MONEY, "d": MONEY}
        self.entries: dict[tuple[str, str], Known] = {}
        self._epochs: dict[tuple[str, int], object] = {}

    def asked(self, process: object, path: str, request: bytes) -> Reply:
        head, _, body = request.partition(b"\r\n\r\n")
        headers = dict(line.split(": ", 1) for line in head.decode().split("\r\n"))
        gid, branch, op = (headers[f"Transaction-{name}"] for name in ("Id", "Branch", "Op"))
        epoch = int(headers["Transaction-Epoch"])
        owner = self._epochs.setdefault((gid, epoch), process)
        if owner is not process:
            self._violate(f"{gid}: two processes called with the epoch {epoch}")
        if op == "query_prepared":
            return Reply(200 if self._book.sent[gid] else 409)
        entry = self.entries.setdefault((gid, branch), Known())
        entry.amount = from_json(body)
        entry.epoch = max(entry.epoch, epoch)
        kind = _kind(Mode(headers["Transaction-Mode"]), op)
        self._check_log(gid, branch, kind)
        if epoch < entry.epoch:
            return Reply(409, body=b'{"code": "fenced"}')
        return getattr(self, f"_{kind}")(gid, branch, entry)

    def _forward(self, gid: str, branch: str, entry: Known) -> Reply:
        if entry.state == "new":
            for other in self._book.after(gid, branch):
                if self.entries.get((gid, other), Known()).state != "done":
                    self._violate(f"{gid}: {branch} went forward before {other}")
            if self.accounts[branch] + entry.amount < 0:
                entry.state = "refused"
            else:
                entry.state = "done"
                self._move(gid, branch, entry, "forward", entry.amount)
        return Reply(200 if entry.state in ("done", "finished") else 409)

    def _finish(self, gid: str, branch: str, entry: Known) -> Reply:
        if entry.state == "new" and OPERATIONS[self._book.modes[gid]].forward is None:
            entry.state = "done"
            self._move(gid, branch, entry, "forward", entry.amount)
        if entry.state == "done":
            entry.state = "finished"
        if entry.state != "finished":
            self._violate(f"{gid}: {branch} is to be finished, but is {entry.state}")
            return Reply(409)
        return Reply(200 if self._chance.random() < 0.9 else 410)

    def _undo(self, gid: str, branch: str, entry: Known) -> Reply:
        if entry.state == "finished":
            self._violate(f"{gid}: {branch} is to be undone, but is finished")
        if entry.state == "done":
            for other in self._book.before(gid, branch):
                if self.entries.get((gid, other), Known()).state == "done":
                    self._violate(f"{gid}: {branch} was undone before {other}")
            self._move(gid, branch, entry, "undo", -entry.amount)
        entry.state = "undone"
        return Reply(200)

    def _move(self, gid: str, branch: str, entry: Known, what: str, amount: int) -> None:
        entry.effects[what] += 1
        self.accounts[branch] += amount
        if entry.effects[what] > 1:
            self._violate(f"{gid}: {what} of {branch} happened {entry.effects[what]} times")

    def _check_log(self, gid: str, branch: str, kind: str) -> None:
        """Whatever is called was durable before: the transaction, the branch, the decision."""
        record = self._disk.record(gid)
        if record is None or branch not in {spec.id for spec in record.specs}:
            self._violate(f"{gid}: {branch} was called and is not in the log")
        elif kind == "finish" and record.status not in COMMIT:
            self._violate(f"{gid}: {branch} is to be finished, but the log says {record.status}")
        elif kind == "undo" and record.status not in ABORT:
            self._violate(f"{gid}: {branch} is to be undone, but the log says {record.status}")


def _kind(mode: Mode, op: str) -> str:
    names = OPERATIONS[mode]
    return {names.forward: "forward", names.finish: "finish", names.undo: "undo"}[op]
