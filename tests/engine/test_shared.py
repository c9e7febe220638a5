"""A table in shared memory, between real processes: what is read, and what the death of the writer leaves."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from unisono._engine import SharedReader, SharedValue, SharedWriter

SIZE = 1 << 20

# Writes for ever; every eight bytes of a value are its revision.
_WRITER = """
import sys
from unisono._engine import SharedWriter
writer = SharedWriter(sys.argv[1], 1 << 20)
writer.put("key", (1).to_bytes(8, "little") * 100, 1, 1)
writer.publish(1)
print("ready", flush=True)
revision = 1
while True:
    revision += 1
    writer.put("key", revision.to_bytes(8, "little") * (50 + revision % 50), revision, revision)
    writer.progress(revision)
"""


def whole(found: SharedValue) -> bool:
    """Whether the value is of one write alone."""
    return whole_value(found.value, found.revision, found.timestamp)


def whole_value(value: bytes, revision: int, timestamp: int | None) -> bool:
    """Whether these belong together."""
    return value == revision.to_bytes(8, "little") * (len(value) // 8) and revision == timestamp


def writing(path: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen([sys.executable, "-c", _WRITER, str(path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def test_trap_50_another_process_reads_no_mix_and_never_goes_back(tmp_path: Path) -> None:
    """While one process writes without pause, each read of another is of one write, and not older."""
    with writing(tmp_path / "table") as process:
        try:
            reader = SharedReader(tmp_path / "table")
            last, reads = 0, 0
            for _ in range(100_000):
                try:
                    found = reader.get("key")
                except BlockingIOError:
                    continue  # the writer lost its processor in the middle
                assert found is not None
                assert whole(found)
                assert found.revision >= last
                last, reads = found.revision, reads + 1
        finally:
            process.kill()

    assert reads > 0


def test_the_check_finds_a_mix() -> None:
    """A value of two writes is no whole one: the check above can fail."""
    mixed = (1).to_bytes(8, "little") + (2).to_bytes(8, "little")

    assert not whole_value(mixed, 2, 2)


@pytest.mark.parametrize("run", range(5))
def test_trap_50_a_killed_writer_leaves_what_can_be_read_or_is_told_and_the_next_one_heals_it(
    tmp_path: Path, run: int
) -> None:
    """After kill -9 a read is whole or says that it can't be; the next writer's table has it again."""
    with writing(tmp_path / "table") as process:
        process.send_signal(signal.SIGKILL)
    reader = SharedReader(tmp_path / "table")
    try:
        found = reader.get("key")
    except BlockingIOError:
        found = None
    writer = SharedWriter(tmp_path / "table", SIZE)
    writer.put("key", b"healed", 10, 11)
    writer.publish(10)

    assert found is None or whole(found)
    healed = reader.get("key")
    assert healed is not None
    assert (healed.value, healed.revision, healed.timestamp) == (b"healed", 10, 11)
    assert reader.progress()[::2] == (10, 2)


def test_a_paused_writer_grows_old_and_still_lets_read(tmp_path: Path) -> None:
    """While the writer is stopped, reads end, and the age of the table rises."""
    with writing(tmp_path / "table") as process:
        try:
            process.send_signal(signal.SIGSTOP)
            reader = SharedReader(tmp_path / "table")
            first = reader.progress()
            try:
                found = reader.get("key")
            except BlockingIOError:
                found = None
            second = reader.progress()
        finally:
            process.kill()

    assert found is None or whole(found)
    assert second[1] > first[1]


def test_trap_50_the_end_of_a_reader_takes_nothing_along(tmp_path: Path) -> None:
    """However it ends: what it has mapped belongs to the writer."""
    read = "import os, sys; from unisono._engine import SharedReader as R; r = R(sys.argv[1]); r.get('key'); "
    writer = SharedWriter(tmp_path / "table", SIZE)
    writer.put("key", b"value", 1, 1)
    writer.publish(1)
    reader = SharedReader(tmp_path / "table")
    for end in ("sys.exit()", "os.kill(os.getpid(), 9)"):
        subprocess.run([sys.executable, "-c", read + end, str(tmp_path / "table")], check=False)
    writer.put("key", b"later", 2, 2)
    found = [one.get("key") for one in (reader, SharedReader(tmp_path / "table"))]

    assert [b"later", b"later"] == [one and one.value for one in found]


def test_a_second_writer_is_refused(tmp_path: Path) -> None:
    """One writer at a time, whatever process it is in."""
    with writing(tmp_path / "table") as process:
        try:
            with pytest.raises(BlockingIOError, match="already has a writer"):
                SharedWriter(tmp_path / "table", SIZE)
        finally:
            process.kill()


def test_each_refusal_is_an_error_of_its_own(tmp_path: Path) -> None:
    """No table, a foreign file, no room, a bad key, a bad size: each says what it is."""
    (tmp_path / "foreign").write_bytes(b"something else")
    writer = SharedWriter(tmp_path / "table", SIZE)

    with pytest.raises(FileNotFoundError):
        SharedReader(tmp_path / "none")
    with pytest.raises(RuntimeError, match="no table of unisono"):
        SharedReader(tmp_path / "foreign")
    with pytest.raises(MemoryError, match="no room"):
        writer.put("key", bytes(2 * SIZE), 1, 1)
    with pytest.raises(ValueError, match="1 to 1024"):
        writer.put("", b"", 1, 1)
    with pytest.raises(ValueError, match="16384"):
        SharedWriter(tmp_path / "small", 100)


def test_a_table_is_for_its_owner_alone(tmp_path: Path) -> None:
    """The permissions of the file keep others from reading."""
    writer = SharedWriter(tmp_path / "table", SIZE)
    writer.publish(0)

    assert (tmp_path / "table").stat().st_mode & 0o777 == 0o600
