"""The log process: what it writes, and that instances never suffer from it."""

from __future__ import annotations

import fcntl
import os
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from unisono.node import logger
from unisono.node.logger import FILES_MAX, LINE_BYTES_MAX, LogFile
from unisono.node.logs import LogQuery, read_logs
from unisono.node.paths import NodeLock, StateFolder
from unisono.node.pipes import Pipes

SECONDS = 20.0


def until(condition: Callable[[], object]) -> None:
    """The log process is another process, and tells nobody: look, with a generous limit."""
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline, "not in time"
        time.sleep(0.01)


@pytest.fixture
def folder(tmp_path: Path) -> StateFolder:
    folder = StateFolder(tmp_path)
    folder.prepare()
    return folder


@contextmanager
def log_process(folder: StateFolder) -> Iterator[subprocess.Popen[bytes]]:
    """A log process that runs; killed at the end."""
    process = subprocess.Popen([sys.executable, "-I", "-S", logger.__file__, folder.path])
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def texts(folder: StateFolder, **query: str) -> list[tuple[str, str]]:
    lines = read_logs(folder.logs, LogQuery(application="shop", **query))  # type: ignore[arg-type]
    return [(line.stream, line.text) for line in lines]


async def test_lines_of_both_streams_are_stamped_and_kept(folder: StateFolder) -> None:
    """Each line: time in UTC, stream, text."""
    out, err = Pipes(folder).open("shop", "web", "web-1")
    with log_process(folder):
        os.write(out, b"hello\n")
        until(lambda: len(texts(folder)) == 1)
        os.write(err, b"wor")
        os.write(err, b"ld\n\xff\n")
        until(lambda: len(texts(folder)) == 3)

    written = (folder.logs / "shop" / "web" / "web-1.log").read_bytes().splitlines()
    assert texts(folder) == [("stdout", "hello"), ("stderr", "world"), ("stderr", "\ufffd")]
    assert re.fullmatch(rb"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z o hello", written[0])


async def test_a_last_line_without_its_end_is_written_when_the_writer_is_gone(folder: StateFolder) -> None:
    """A program's last words often lack a newline."""
    out, err = Pipes(folder).open("shop", "web", "web-1")
    with log_process(folder):
        os.write(out, b"begun\n")
        until(lambda: len(texts(folder)) == 1)
        os.write(err, b"Aborted")
        os.close(out)
        os.close(err)

        until(lambda: texts(folder) == [("stdout", "begun"), ("stderr", "Aborted")])


async def test_what_was_written_without_a_log_process_is_read_by_the_next(folder: StateFolder) -> None:
    """The pipe holds it; the writer neither waits nor gets a signal."""
    out, _ = Pipes(folder).open("shop", "web", "web-1")
    with log_process(folder):
        os.write(out, b"one\n")
        until(lambda: len(texts(folder)) == 1)
    os.write(out, b"two\n")
    with log_process(folder):
        until(lambda: len(texts(folder)) == 2)
        os.write(out, b"three\n")
        until(lambda: len(texts(folder)) == 3)

    assert [text for _, text in texts(folder)] == ["one", "two", "three"]


async def test_a_writer_can_write_a_lot_while_nobody_reads(folder: StateFolder) -> None:
    """At least 64 KiB fit into the pipe, more where the system allows."""
    out, _ = Pipes(folder).open("shop", "web", "web-1")
    os.set_blocking(out, False)

    written = os.write(out, b"x" * (64 * 1024))

    assert written == 64 * 1024


def test_a_full_disk_holds_no_writer_up_and_the_loss_is_counted(tmp_path: Path) -> None:
    """Lines that can't be written are counted; the count comes with the first that can."""
    blocked = tmp_path / "folder"
    blocked.write_text("a file where the folder should be")
    log = LogFile(str(blocked / "web-1.log"))
    log.write(b"2026-01-01T00:00:00.000Z o lost\n" * 3)
    blocked.unlink()
    log.write(b"2026-01-01T00:00:00.000Z o kept\n")

    notice, kept = (blocked / "web-1.log").read_text().splitlines()
    assert notice.endswith("Z e [3 lines were lost: file exists]") or "3 lines were lost" in notice
    assert kept.endswith("o kept")


def test_a_device_without_space_is_survived() -> None:
    """/dev/full fails each write as a full disk does."""
    log = LogFile("/dev/full")

    log.write(b"a\nb\n")
    log.write(b"c\n")

    assert log._dropped == 3


def test_files_are_rotated_and_bounded(tmp_path: Path) -> None:
    """Never more than five files, never one above its limit, the youngest lines kept."""
    log = LogFile(str(tmp_path / "web-1.log"), file_bytes_max=1000)
    for number in range(1000):
        log.write(f"2026-01-01T00:00:00.000Z o line {number}\n".encode())

    files = sorted(tmp_path.iterdir())
    assert len(files) == FILES_MAX
    assert all(file.stat().st_size <= 1000 for file in files)
    assert (tmp_path / "web-1.log").read_text().endswith("line 999\n")


async def test_a_line_without_end_is_broken_into_bounded_ones(folder: StateFolder) -> None:
    """A program that never ends its line costs no memory beyond 64 KiB."""
    out, _ = Pipes(folder).open("shop", "web", "web-1")
    with log_process(folder):
        sent = 3 * LINE_BYTES_MAX
        view = memoryview(b"x" * sent)
        while view:
            view = view[os.write(out, view) :]
        os.write(out, b"\n")
        until(lambda: sum(len(text) for _, text in texts(folder)) == sent)

    assert max(len(text) for _, text in texts(folder)) == LINE_BYTES_MAX


def test_a_pipe_is_let_go_whatever_number_its_descriptor_has(tmp_path: Path) -> None:
    """Hundreds of instances have thousands of descriptors."""
    path = tmp_path / "out"
    os.mkfifo(path)
    writer = os.open(path, os.O_RDWR)
    log = LogFile(str(tmp_path / "log"))
    pipe = logger.Pipe(str(path), "o", log)
    os.write(writer, b"last\n")
    high = fcntl.fcntl(pipe.fd, fcntl.F_DUPFD_CLOEXEC, 1500)
    os.close(pipe.fd)
    pipe.fd = high

    pipe.close()
    os.close(writer)
    log.close()

    assert (tmp_path / "log").read_text().endswith(" o last\n")


async def test_there_is_one_log_process_per_folder(folder: StateFolder) -> None:
    """A second one ends at once and without an error."""
    with log_process(folder) as first:
        lock = folder.path / "logger.lock"
        until(lambda: lock.exists() and lock.read_text() == f"{first.pid}\n")
        with log_process(folder) as second:
            assert second.wait(SECONDS) == 0
        assert first.poll() is None


async def test_it_takes_no_turn_away_from_an_instance_that_is_dying(folder: StateFolder) -> None:
    """The closing of its pipes wakes the log process, before the kernel tells of its end."""
    with log_process(folder) as process:
        until(lambda: os.sched_getscheduler(process.pid) == os.SCHED_BATCH)


async def test_a_terminal_s_signals_do_not_end_it(folder: StateFolder) -> None:
    """Ctrl-C at the terminal that started the node is not meant for it."""
    out, _ = Pipes(folder).open("shop", "web", "web-1")
    with log_process(folder) as process:
        os.write(out, b"one\n")
        until(lambda: len(texts(folder)) == 1)
        process.send_signal(signal.SIGINT)
        process.send_signal(signal.SIGHUP)
        os.write(out, b"two\n")
        until(lambda: len(texts(folder)) == 2)

        assert process.poll() is None


async def test_it_stays_while_a_node_or_a_writer_is_left(
    folder: StateFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ended by itself only when neither is there."""
    out, err = Pipes(folder).open("shop", "web", "web-1")
    it = logger.Logger(str(folder.path))
    it._look_everywhere()
    with NodeLock(folder):
        os.close(out)
        writer_and_node = it._unneeded()
        os.close(err)
        for pipe in it._pipes.values():
            select.select([pipe.fd], [], [], SECONDS)
            assert not pipe.drain_once()
            it._selector.unregister(pipe.fd)
        node_alone = it._unneeded()
    neither = it._unneeded()

    assert (writer_and_node, node_alone, neither) == (False, False, True)


async def test_writers_that_went_before_their_pipes_were_opened_do_not_keep_it(folder: StateFolder) -> None:
    """The kernel tells of no end that came before; what they had written is in the log all the same."""
    pipes = Pipes(folder)
    out, err = pipes.open("shop", "web", "web-1")
    held = pipes.hold("shop", "web", "web-1")
    os.write(out, b"last\n")
    os.close(out)
    os.close(err)
    it = logger.Logger(str(folder.path))
    it._look_everywhere()
    for fd in held:
        os.close(fd)
    looks = [it._unneeded() for _ in range(2)]

    assert looks == [False, True]
    assert texts(folder) == [("stdout", "last")]
