"""
The log process: reads what all instances of a node write, stamps each line, and keeps files in bounds.

Run as a program, ``python logger.py STATE_FOLDER``; one per state folder, held apart by a lock. It outlives
the node, so that instances that do are still read, and ends by itself when neither a node nor a writing
instance is left. It imports only what it must: it lives as long as the machine and should cost little.
Who starts it and watches over it is :mod:`unisono.node.logkeeper`; who reads the files,
:mod:`unisono.node.logs`.

A line in a file is ``2026-01-31T12:00:00.123Z o text``: time of reading in UTC, the stream (``o`` or
``e``), the text as it was written. Instances are never held up for the disk's sake: what can't be
written is counted, and the count is written as soon as something can.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import selectors
import signal
import sys
import time

FILE_BYTES_MAX = 10 * 1024 * 1024
FILES_MAX = 5  # the one that is written, and .1 (younger) to .4 (older)
LINE_BYTES_MAX = 64 * 1024  # a longer line is broken
_READ_BYTES = 64 * 1024
_NET_SECONDS = 5.0  # pipes are told of at once; this finds those whose telling was lost


class LogFile:
    """The rotated file of one instance."""

    def __init__(self, path: str, *, file_bytes_max: int = FILE_BYTES_MAX) -> None:
        self._path = path
        self._bytes_max = file_bytes_max
        self._fd = -1
        self._size = 0
        self._dropped = 0
        self._reason = ""

    def write(self, lines: bytes) -> None:
        """Append whole lines; if that is impossible, count them."""
        if self._dropped:
            notice = f"{_stamp()} e [{self._dropped} lines were lost: {self._reason}]\n"
            if not self._append(notice.encode()):
                self._dropped += lines.count(b"\n")
                return
            self._dropped = 0
        if not self._append(lines):
            self._dropped += lines.count(b"\n")

    def _append(self, data: bytes) -> bool:
        try:
            if self._fd < 0:
                os.makedirs(os.path.dirname(self._path), mode=0o700, exist_ok=True)
                flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
                self._fd = os.open(self._path, flags, 0o600)
                self._size = os.fstat(self._fd).st_size
            if self._size and self._size + len(data) > self._bytes_max:
                self._rotate()
                return self._append(data)
            written = os.write(self._fd, data)
            if written < len(data):  # the disk is full: half a line is worse than none
                os.ftruncate(self._fd, self._size)
                self._reason = "no space left on device"
                return False
        except OSError as error:
            self._reason = (error.strerror or str(error)).lower()
            return False
        self._size += len(data)
        return True

    def _rotate(self) -> None:
        self.close()
        for number in range(FILES_MAX - 1, 0, -1):
            younger = self._path if number == 1 else f"{self._path}.{number - 1}"
            with contextlib.suppress(FileNotFoundError):
                os.replace(younger, f"{self._path}.{number}")

    def close(self) -> None:
        """Let go of the file; the next write opens it again."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


class Pipe:
    """One stream of one instance."""

    def __init__(self, path: str, letter: str, log: LogFile) -> None:
        self.path = path
        self.log = log
        # For reading alone, unlike the instance: so the end of its last writer can be seen.
        self.fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        self._letter = letter
        self._rest = b""  # of a line that has not ended yet

    def drain_once(self) -> bool:
        """Read once and write the whole lines down; ``False`` when nobody writes any more."""
        try:
            data = os.read(self.fd, _READ_BYTES)
        except BlockingIOError:
            return True
        if not data:
            self.flush()
            return False
        data = self._rest + data
        whole, newline, self._rest = data.rpartition(b"\n")
        if newline:
            self._write(whole)
        while len(self._rest) >= LINE_BYTES_MAX:
            self._write(self._rest[:LINE_BYTES_MAX])
            self._rest = self._rest[LINE_BYTES_MAX:]
        return True

    def flush(self) -> None:
        """Write down a line that will not be ended any more."""
        if self._rest:
            self._write(self._rest)
            self._rest = b""

    def _write(self, lines: bytes) -> None:
        prefix = f"{_stamp()} {self._letter} ".encode()
        if len(lines) > LINE_BYTES_MAX:
            lines = b"\n".join(_bounded(lines))
        self.log.write(prefix + lines.replace(b"\n", b"\n" + prefix) + b"\n")

    def close(self) -> None:
        """Write down what is left, and let go."""
        with contextlib.suppress(OSError):
            while self.drain_once() and _readable(self.fd):
                pass
        self.flush()
        os.close(self.fd)


class Logger:
    """All pipes and files of one state folder."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._pipes_root = os.path.join(folder, "pipes")
        self._logs_root = os.path.join(folder, "logs")
        self._selector = selectors.DefaultSelector()
        self._pipes: dict[str, Pipe] = {}  # by path; in the selector while someone may write
        self._logs: dict[str, LogFile] = {}  # by the instance's name, "application/service/id"
        self._stopped = False
        look = os.path.join(self._pipes_root, ".look")
        with contextlib.suppress(FileExistsError):
            os.mkfifo(look, 0o600)
        self._look = os.open(look, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        self._selector.register(self._look, selectors.EVENT_READ, None)

    def run(self) -> None:
        """Until neither a node nor a writing instance is left."""
        self._look_everywhere()
        next_net = time.monotonic() + _NET_SECONDS
        while not self._stopped:
            for key, _ in self._selector.select(max(0.0, next_net - time.monotonic())):
                if key.data is None:
                    self._look_where_told()
                elif key.fd in self._selector.get_map():
                    self._goes_on(key.data)
            if time.monotonic() >= next_net:
                self._look_everywhere()
                next_net = time.monotonic() + _NET_SECONDS
                if self._unneeded():
                    return

    def stop(self) -> None:
        """Make run() return soon."""
        self._stopped = True
        with contextlib.suppress(OSError):
            os.write(self._look, b"\n")

    def _look_where_told(self) -> None:
        with contextlib.suppress(BlockingIOError):
            for name in set(os.read(self._look, 1 << 20).decode(errors="replace").split("\n")):
                # A name that was cut in two by the length of one read is found by the net.
                if name.count("/") == 2 and ".." not in name:
                    self._look_at(name)

    def _look_everywhere(self) -> None:
        names = {os.path.relpath(path, self._pipes_root).rpartition(".")[0] for path in self._pipes}
        for folder, _, files in os.walk(self._pipes_root):
            inside = os.path.relpath(folder, self._pipes_root)
            names.update(f"{inside}/{file[:-4]}" for file in files if file.endswith((".out", ".err")))
        for name in names:
            self._look_at(name)

    def _look_at(self, name: str) -> None:
        """Begin, go on or end to read an instance's pipes, whichever fits what is there."""
        left = False
        for suffix, letter in ((".out", "o"), (".err", "e")):
            path = os.path.join(self._pipes_root, name + suffix)
            pipe = self._pipes.get(path)
            if not os.path.exists(path):
                if pipe is not None:
                    with contextlib.suppress(KeyError):
                        self._selector.unregister(pipe.fd)
                    pipe.close()
                    del self._pipes[path]
                continue
            left = True
            if pipe is None:
                log = self._logs.get(name)
                if log is None:
                    log = self._logs[name] = LogFile(os.path.join(self._logs_root, name + ".log"))
                try:
                    pipe = self._pipes[path] = Pipe(path, letter, log)
                except OSError:
                    continue  # removed this moment
            if pipe.fd not in self._selector.get_map():
                self._selector.register(pipe.fd, selectors.EVENT_READ, pipe)
        if not left and name in self._logs:
            self._logs.pop(name).close()

    def _unneeded(self) -> bool:
        if not os.path.isdir(self._pipes_root):
            return True
        if _locked(os.path.join(self._folder, "node.lock")):
            return False
        # A pipe whose last writer had gone before we opened it is never told of (fifo(7)): read to see that.
        watched = [pipe for pipe in self._pipes.values() if pipe.fd in self._selector.get_map()]
        return not any([self._goes_on(pipe) for pipe in watched])

    def _goes_on(self, pipe: Pipe) -> bool:
        """Read what a watched pipe has; whether somebody may write still, else it is watched no more."""
        goes_on = pipe.drain_once()
        if not goes_on:
            self._selector.unregister(pipe.fd)
        return goes_on


def _bounded(lines: bytes) -> list[bytes]:
    bounded = []
    for line in lines.split(b"\n"):
        bounded += [line[at : at + LINE_BYTES_MAX] for at in range(0, max(len(line), 1), LINE_BYTES_MAX)]
    return bounded


def _stamp() -> str:
    now = time.time()
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(now))}.{int(now % 1 * 1000):03d}Z"


def _readable(fd: int) -> bool:
    poll = select.poll()  # select(2) itself knows no descriptor above 1023
    poll.register(fd, select.POLLIN)
    return bool(poll.poll(0))


def _locked(path: str) -> bool:
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(fd)
    return False


def _give_way() -> None:
    """
    Have what has just been woken up wait for the turn of what runs, with the same share of the processor.

    Above all of an instance that dies: closing its pipes wakes us, and the kernel tells of its end only after
    it has had a further turn, which is milliseconds later while all cores are busy.
    """
    with contextlib.suppress(OSError):  # a sandbox may forbid it; then all is as before
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))


def main(folder: str) -> int:
    """Be the log process of a state folder; 0 also when there is one already."""
    lock = os.open(os.path.join(folder, "logger.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return 0
    os.ftruncate(lock, 0)
    os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
    _give_way()
    logger = Logger(folder)
    signal.signal(signal.SIGTERM, lambda *_: logger.stop())
    # A terminal's Ctrl-C and its closing are meant for whoever is in front, not for us.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    logger.run()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
