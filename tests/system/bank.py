"""
The bank of examples/ under crash schedules: real node, services and databases, ``kill -9`` by chance.

A schedule sends transfers of all modes while it kills node, banks, initiators and database servers. Then
everything must come to rest: each transfer on both sides or on none, as its transaction says, nothing
set aside, nothing prepared, nothing open, nothing heuristic. The seed makes the schedule, but not the
machine's timing.

    python -m tests.system.bank --schedules 100 --seed 1
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil

from tests.databases import Postgres, running
from tests.ports import free_port
from unisono.client import NodeClient, NodeError
from unisono.client.asking import AskingSync
from unisono.client.questions import Ask, Node

ROOT = Path(__file__).resolve().parents[2]
LIMIT = 90.0  # seconds until everything has come to rest
PAUSE = 6.0  # seconds that an instance is stopped: longer than a call is waited for
ACCOUNTS, BALANCE = 10, 1000
BANKS = ("north", "south", "village")


@dataclass(frozen=True)
class Transfer:
    """One transfer that was asked for."""

    gid: str
    mode: str
    payer: tuple[str, int]
    payee: tuple[str, int]
    amount: int


class Bank:
    """The example, up and running in a folder of its own."""

    def __init__(self, folder: Path, server: Postgres) -> None:
        self.folder = folder / "bank"
        self.server = server
        shutil.copytree(ROOT / "examples/bank", self.folder, ignore=shutil.ignore_patterns("__pycache__"))
        self.state = folder / "state"
        self.port = free_port()
        for name in ("north", "south"):
            server.execute(f"CREATE DATABASE {name}")
        python = f"/usr/bin/env PYTHONPATH={ROOT / 'src'} {sys.executable}"
        self.environment = {
            "PATH": f"{Path(sys.executable).parent}:{os.environ.get('PATH', os.defpath)}",
            "HOME": os.environ.get("HOME", "/"),
            "PYTHONPATH": str(ROOT / "src"),
            "PYTHON": python,
            "UNISONO_STATE": str(self.state),
            "UNISONO_LISTEN": f"127.0.0.1:{self.port}",
            "NORTH_URL": server.url("north"),
            "SOUTH_URL": server.url("south"),
            "VILLAGE_PATH": str(self.folder / "village.db"),
            "TRANSFER_TIMEOUT": "5",
        }
        self.client = NodeClient(self.state / "api.sock", timeout=LIMIT)
        self._asking = AskingSync(Node.at(f"unix:{self.state / 'api.sock'}", namespace="bank"))

    def unisono(self, *arguments: str) -> str:
        """Run a command; what it printed."""
        done = subprocess.run(
            [sys.executable, "-m", "unisono", *arguments],
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=2 * LIMIT,
            check=False,
        )
        assert done.returncode == 0, f"{arguments}: {done.stdout}{done.stderr}"
        return done.stdout

    def transfer(self, wanted: Transfer) -> httpx.Response | None:
        """Ask for a transfer; ``None`` if there was no answer."""
        body = {
            "gid": wanted.gid,
            "mode": wanted.mode,
            "payer": {"bank": wanted.payer[0], "account": wanted.payer[1]},
            "payee": {"bank": wanted.payee[0], "account": wanted.payee[1]},
            "amount": wanted.amount,
        }
        with suppress(httpx.HTTPError):
            return httpx.post(f"http://127.0.0.1:{self.port}/transfers", json=body, timeout=30.0)
        return None

    def transactions(self, status: str) -> list[dict[str, Any]]:
        """The transactions of this status."""
        query = (("status", status), ("limit", "1000"))
        told = self._asking.ask(Ask(method="GET", path="/v1/transactions", query=query))
        assert told.status == 200, told
        return list(told.content["transactions"])

    def status(self, gid: str) -> str:
        """How a transaction ended; one that is not known never began."""
        told = self._asking.ask(Ask(method="GET", path=f"/v1/transactions/{gid}"))
        assert told.status in (200, 404), told
        return str(told.content["status"]) if told.status == 200 else "aborted"

    def balances(self) -> dict[tuple[str, int], int]:
        """What each account has."""
        found = {}
        for bank in BANKS:
            for id, balance, held in self._read(bank, "SELECT id, balance, held FROM account"):
                assert held == 0, f"{held} is still set aside in account {id} of {bank}"
                found[(bank, id)] = balance
        return found

    def prepared(self) -> list[Any]:
        """What is prepared in the database server."""
        return self.server.execute("SELECT gid FROM pg_prepared_xacts")

    def _read(self, bank: str, sql: str) -> list[Any]:
        if bank != "village":
            return self.server.execute(sql, bank)
        with sqlite3.connect(self.environment["VILLAGE_PATH"], timeout=30) as connection:
            return connection.execute(sql).fetchall()

    # -- crashes -----------------------------------------------------------------------------------

    def kill_instance(self, service: str, chance: random.Random) -> None:
        """``kill -9`` of one instance; the node starts another one."""
        with suppress(NodeError):
            pids = [one["pid"] for one in self.client.service("bank", service)["instances"] if one["pid"]]
            if pids:
                _kill(chance.choice(pids))

    def pause_instance(self, service: str, chance: random.Random) -> None:
        """SIGSTOP one instance: its calls are taken for lost, and go on when others have been made."""
        with suppress(NodeError):
            pids = [one["pid"] for one in self.client.service("bank", service)["instances"] if one["pid"]]
            if not pids:
                return
            pid = chance.choice(pids)
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGSTOP)
                time.sleep(PAUSE)
                os.kill(pid, signal.SIGCONT)

    def kill_node(self) -> None:
        """``kill -9`` of the node; a new one adopts what runs."""
        with suppress(NodeError):
            _kill(self.client.node()["pid"])
        self.unisono("up", "-d")

    def kill_database(self) -> None:
        """``kill -9`` of PostgreSQL, and start it again."""
        self.server.kill()
        self.server.start()

    def clear(self) -> None:
        """End everything."""
        with suppress(AssertionError, subprocess.TimeoutExpired):
            self.unisono("down")
        for _ in range(5):
            left = []
            for process in psutil.process_iter():
                with suppress(psutil.Error):
                    if process.environ().get("UNISONO_STATE") == str(self.state):
                        left.append(process)
            for process in left:
                with suppress(psutil.Error):
                    process.kill()
            if not left:
                break
            psutil.wait_procs(left, timeout=2.0)


@contextmanager
def opened(folder: Path) -> Iterator[Bank]:
    """A bank that is up, for the block."""
    with running(lambda place: Postgres(place, prepared=200)) as server:
        bank = Bank(folder, server)
        try:
            bank.unisono("up", "-d")
            yield bank
        finally:
            bank.clear()


def schedule(bank: Bank, seed: int, *, transfers: int = 24, kills: int = 2) -> Counter[str]:
    """
    Run one schedule and check everything; how its transfers ended, and what was killed.

    Raises:
        AssertionError: Something that must hold does not; the message says what, and names the seed.
    """
    chance = random.Random(seed)
    before = bank.balances()
    wanted = [_draw(chance, f"s{seed}-{number}-{time.time_ns()}") for number in range(transfers)]
    crashes: dict[str, Callable[[], None]] = {
        "node": bank.kill_node,
        "north": lambda: bank.kill_instance("north", chance),
        "south": lambda: bank.kill_instance("south", chance),
        "village": lambda: bank.kill_instance("village", chance),
        "transfers": lambda: bank.kill_instance("transfers", chance),
        "database": bank.kill_database,
        "nobody, south stopped": lambda: bank.pause_instance("south", chance),
        "nobody, village stopped": lambda: bank.pause_instance("village", chance),
    }
    planned = [(chance.uniform(0, 0.6), chance.choice(list(crashes))) for _ in range(kills)]
    seen: Counter[str] = Counter(f"killed {name}" for _, name in planned)

    def crash() -> None:
        for pause, name in planned:
            time.sleep(pause)
            crashes[name]()

    crashing = threading.Thread(target=crash)
    crashing.start()
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(bank.transfer, wanted))
    crashing.join()
    bank.unisono("up", "-d")
    settle(bank, seed)

    expected = dict(before)
    for one, answer in zip(wanted, answers, strict=True):
        status = bank.status(one.gid)
        seen[status] += 1
        assert status in ("committed", "aborted"), f"seed {seed}: {one} is {status}"
        if answer is not None and answer.status_code in (201, 409):
            told = "committed" if answer.status_code == 201 else "aborted"
            assert told == status, f"seed {seed}: {one} was told {told}, but is {status}: {answer.text}"
        if status == "committed":
            expected[one.payer] -= one.amount
            expected[one.payee] += one.amount
    found = bank.balances()
    wrong = {
        account: (expected[account], found[account])
        for account in expected
        if expected[account] != found[account]
    }
    assert not wrong, f"seed {seed}: account: (expected, found) {wrong}"
    assert len(BANKS) * ACCOUNTS * BALANCE == sum(found.values()), f"seed {seed}: money was made or lost"
    return seen


def _draw(chance: random.Random, gid: str) -> Transfer:
    mode = chance.choice(("saga", "tcc", "xa"))
    payer, payee = chance.sample(BANKS[:2] if mode == "xa" else BANKS, 2)
    return Transfer(
        gid,
        mode,
        (payer, chance.randint(1, ACCOUNTS)),
        (payee, chance.randint(1, ACCOUNTS)),
        chance.randint(1, 300),
    )


def settle(bank: Bank, seed: int) -> None:
    """Wait until nothing is open and nothing is prepared."""
    end, left = time.monotonic() + LIMIT, "the node did not answer"
    while time.monotonic() < end:
        with suppress(NodeError):
            open_ones = bank.transactions("open")
            left = f"open: {open_ones}, prepared: {bank.prepared()}"
            if not open_ones and not bank.prepared():
                break
        time.sleep(0.05)
    else:
        raise AssertionError(f"seed {seed}: after {LIMIT:g} s still {left[:4000]}")
    heuristic = bank.transactions("heuristic")
    assert not heuristic, f"seed {seed}: heuristic: {json.dumps(heuristic)[:4000]}"


def _kill(pid: int | None) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid or 0, signal.SIGKILL)


def main() -> None:
    """Run many schedules and print what became of them."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--schedules", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    wanted = parser.parse_args()
    seen: Counter[str] = Counter()
    violations = []
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="unisono-bank-") as folder, opened(Path(folder)) as bank:
        for seed in range(wanted.seed, wanted.seed + wanted.schedules):
            try:
                seen += schedule(bank, seed)
            except AssertionError as error:
                violations.append(str(error))
                print(error, file=sys.stderr, flush=True)
            print(f"seed {seed}: {time.monotonic() - began:.0f} s, {len(violations)} violations", flush=True)
    print(json.dumps({"schedules": wanted.schedules, "violations": len(violations), **seen}, indent=2))
    sys.exit(bool(violations))


if __name__ == "__main__":
    main()
