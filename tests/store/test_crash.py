"""The store on SQLite when its process is killed, the power goes, or the disk fails: real processes."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import unisono
from tests.store.asking import LIMIT, take
from tests.store.child import CLIENTS
from unisono.store.base import Compacted
from unisono.store.sqlite import SqliteStore

CHILD = Path(__file__).with_name("child.py")


@pytest.fixture(scope="session")
def faults(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The library that makes a disk fail on order. The engine's build needs a C compiler as well."""
    library = tmp_path_factory.mktemp("faults") / "faults.so"
    source = CHILD.with_name("faults.c")
    subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", library, source, "-ldl"], check=True)
    return library


@contextmanager
def child(what: str, path: Path, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
    """A process that runs ``what``; killed at the end, or when it hangs, unless it has ended by itself."""
    source = str(Path(unisono.__file__).parents[1])
    process = subprocess.Popen(
        [sys.executable, CHILD, what, path],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": source, **environment},
    )
    watchdog = threading.Timer(LIMIT, process.kill)
    watchdog.start()
    try:
        yield process
    finally:
        watchdog.cancel()
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def said(process: subprocess.Popen[bytes], count: int | None = None) -> list[Any]:
    """The next ``count`` lines of a child, or all until it ends; a line cut by its death does not count."""
    assert process.stdout is not None
    lines: list[Any] = []
    while count is None or len(lines) < count:
        line = process.stdout.readline()
        if not line.endswith(b"\n"):
            break
        lines.append(json.loads(line))
    return lines


def lose_power(path: Path) -> None:
    """Leave of the store's files what the last fsync of each has made sure, and nothing else."""
    for file in (path, path.with_name(path.name + "-wal")):
        file.unlink(missing_ok=True)
        synced = file.with_name(file.name + ".synced")
        if synced.exists():
            shutil.copy(synced, file)


async def test_killing_loses_nothing_acknowledged(tmp_path: Path) -> None:
    """Killed 24 times in the middle of writes: all acknowledged is there, and nothing is half done."""
    chance = random.Random(2)
    path = tmp_path / "store.db"
    counts = dict.fromkeys(range(CLIENTS), 0)
    newest = 0
    leases: list[int] = []
    for _ in range(24):
        with child("write", path) as process:
            lines = said(process, 1 + chance.randrange(400))
            process.kill()
            lines += said(process)
        wrote = [line[1:] for line in lines if line[0] == "wrote"]
        revoked = [line[1:] for line in lines if line[0] == "revoked"]

        store = await SqliteStore.open(path, keep_revisions=300)
        snapshot = await store.scan("")
        entries = {entry.key: entry for entry in snapshot.entries}
        acknowledged = counts | {number: count for number, count, _ in wrote}

        for number in range(CLIENTS):
            left, right = entries.get(f"left/{number}"), entries.get(f"right/{number}")
            found = 0 if left is None else int(left.value)
            assert (None if left is None else left.value) == (None if right is None else right.value)
            assert found in (acknowledged[number], acknowledged[number] + 1)
            counts[number] = found
        for number, count, _ in revoked:
            brief = entries.get(f"brief/{number}")
            assert brief is None or int(brief.value) > count
        revisions = [revision for *_, revision in wrote]
        assert newest < min(revisions, default=newest + 1)
        assert max(revisions, default=newest) <= snapshot.revision
        await check_history(store, newest, snapshot.revision, {r: (n, c) for n, c, r in wrote})
        newest = snapshot.revision
        leases += [lease for *_, lease in revoked]
        await store.close()

    assert len(set(leases)) == len(leases)
    assert sum(counts.values()) > 500


async def check_history(
    store: SqliteStore, after: int, newest: int, wrote: dict[int, tuple[int, int]]
) -> None:
    """The history has every revision once, and each acknowledged write at the revision it was told."""
    try:
        await take(store.watch("", after=after), 1 if after < newest else 0)
    except Compacted as error:
        after = error.revision
    batches = await take(store.watch("", after=after), newest - after)

    assert [batch.revision for batch in batches] == list(range(after + 1, newest + 1))
    for batch in batches:
        if batch.revision in wrote:
            number, count = wrote[batch.revision]
            found = [(event.key, event.entry and int(event.entry.value)) for event in batch.events]
            assert found == [(f"left/{number}", count), (f"right/{number}", count)]


async def test_a_power_loss_loses_nothing_acknowledged(tmp_path: Path, faults: Path) -> None:
    """With nothing on the disk but what fsync has made sure, all acknowledged is there."""
    path = tmp_path / "store.db"
    with child("write", path, LD_PRELOAD=str(faults)) as process:
        lines = said(process, 1500)
        process.kill()
        lines += said(process)
    lose_power(path)

    store = await SqliteStore.open(path)

    last = {line[1]: line[2] for line in lines if line[0] == "wrote"}
    for number, count in last.items():
        entry = await store.get(f"left/{number}")
        assert entry is not None
        assert int(entry.value) >= count
    await store.close()


def test_what_was_read_survives_a_power_loss(tmp_path: Path, faults: Path) -> None:
    """A commit whose process died before the fsync, once read by the next process, outlasts the power."""
    path = tmp_path / "store.db"
    with child("write_alone", path, LD_PRELOAD=str(faults), FAULT_KILL="12") as process:
        acknowledged = said(process)[-1]
        assert process.wait() == -9
    with child("read", path, LD_PRELOAD=str(faults)) as process:
        (first,) = said(process, 1)
    lose_power(path)
    with child("read", path) as process:
        (second,) = said(process, 1)

    assert first == acknowledged + 1  # the kernel kept what was written: it was not committed, but is there
    assert second == first


async def test_a_torn_end_of_the_log_is_left_out(tmp_path: Path) -> None:
    """Half a page at the end of the log, as a power loss leaves it, costs nothing before it."""
    path = tmp_path / "store.db"
    with child("write_alone", path) as process:
        said(process, 50)
        process.kill()
        count = 50 + len(said(process))
    log = path.with_name("store.db-wal")
    content = log.read_bytes()
    log.write_bytes(content + content[-4120:-2000])

    store = await SqliteStore.open(path)

    entry = await store.get("count")
    assert entry is not None
    assert int(entry.value) in (count, count + 1)
    await store.close()


async def test_a_failed_fsync_is_told_as_unknown(tmp_path: Path, faults: Path) -> None:
    """When fsync fails that write may be done, later ones are refused, reads go on; reopened, all is well."""
    path = tmp_path / "store.db"
    with child("fail", path, LD_PRELOAD=str(faults), FAULT_FAIL="9") as process:
        (count, error, message), (later, why), visible = said(process)

    assert (error, later, visible) == ("MaybeDone", "Broken", count)
    assert "may or may not be kept" in message
    assert "until it is reopened" in why
    store = await SqliteStore.open(path)
    entry = await store.get("count")
    assert entry is not None
    assert int(entry.value) in (count, count + 1)
    assert await store.get("later") is None
    await store.close()


@pytest.mark.parametrize("how", ["fill", "fill_disk"])
async def test_a_full_disk_changes_nothing(tmp_path: Path, faults: Path, how: str) -> None:
    """Writes that find no room are Broken and leave no trace; with room again the store goes on."""
    path = tmp_path / "store.db"
    full = tmp_path / "full"
    with child(how, path, LD_PRELOAD=str(faults), FAULT_FULL=str(full)) as process:
        errors, end = said(process)

    assert all(error.startswith("Broken:") and "nothing was changed; free space" in error for error in errors)
    assert end == {"kept": True, "new": ["room"], "next": True, "gapless": True}
    store = await SqliteStore.open(path)
    assert await store.get("room") is not None
    await store.close()


async def test_what_was_decided_on_a_failed_change_fails(tmp_path: Path) -> None:
    """Who saw a transaction that then failed fails too: neither written, nor told what it saw."""
    path = tmp_path / "store.db"
    with child("undermine", path) as process:
        errors, after = said(process)

    assert set(errors[:16]) == {"Broken"}
    assert errors[-2:] == ["NotDone", "NotDone"]
    assert after == [False, 2, ["count"]]
    store = await SqliteStore.open(path)
    assert (await store.scan("")).revision == 2
    await store.close()


def test_what_waits_is_limited(tmp_path: Path) -> None:
    """Beyond a limit of bytes that wait to be written a transaction is refused; later there is room."""
    with child("flood", tmp_path / "store.db") as process:
        errors, revision = said(process)

    refused = [error for error in errors if "wait to be written already: try again later" in error]
    assert refused == errors[-len(refused) :]
    assert 5 <= len(refused) <= 15
    assert revision == 1
