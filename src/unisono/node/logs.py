"""
Reading what instances have written: the last lines, lines since a time, and new ones as they come.

The files are written and rotated by :mod:`unisono.node.logger`; this only reads them, from any process
that may. Lines of several instances are merged by their time.
"""

from __future__ import annotations

import asyncio
import heapq
import os
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import BinaryIO

from unisono.node.inotify import Changes
from unisono.node.logger import FILES_MAX

_BLOCK_BYTES = 64 * 1024
LINES_AT_ONCE = 1000  # of the past, read in one go
_GATHER_SECONDS = 0.02  # lines of a burst come together, so that they can be merged by time
GONE_KEPT = 10  # files of instances that are no more, per service


@dataclass(frozen=True, kw_only=True, order=True)
class LogLine:
    """One line of one instance; they sort by time."""

    at: str  # RFC 3339 in UTC with milliseconds, so that text order is time order
    application: str
    service: str
    instance: str
    stream: str  # "stdout" or "stderr"
    text: str


@dataclass(frozen=True, kw_only=True)
class LogQuery:
    """Which instances' lines: those of an application, or of one service, or a single one."""

    application: str
    service: str | None = None
    instance: str | None = None
    since: datetime | None = None


def writers(logs: Path, application: str) -> set[str]:
    """The instances of an application of which there are lines, those that are gone included."""
    return {path.stem for path in (logs / application).glob("*/*.log")}


def read_logs(logs: Path, query: LogQuery, tail: int | None = None) -> Iterator[LogLine]:
    """
    The lines that are there now, oldest first; with ``tail`` only the last so many.

    ``logs`` is :attr:`unisono.node.paths.StateFolder.logs`. Files are read as the lines are asked for, so ask
    in a thread where that matters; in memory are a block of each file and, with ``tail``, so many lines. What
    is rotated away meanwhile is missing. It holds the files open until it is at its end, or closed.
    """
    followers = [_Follower(path, at_end=True) for path in _files(logs, query)]
    try:
        yield from _merge_past(followers, query, tail)
    finally:
        for follower in followers:
            follower.close()


async def follow_logs(logs: Path, query: LogQuery, tail: int | None = None) -> AsyncIterator[list[LogLine]]:
    """
    First what :func:`read_logs` gives, in groups, the first of which may be empty; then what is new.

    It has no end. What was rotated away twice before it was asked for is missing.

    Instances that come into being meanwhile are followed as well.
    """
    changes = Changes()
    readers: dict[Path, _Follower] = {}
    try:
        _watch(changes, logs, query)
        # Each follower marks where its file ends now: the first look back ends there, following begins there.
        for path in _files(logs, query):
            readers[path] = _Follower(path, at_end=True)
        past = _merge_past(list(readers.values()), query, tail)
        while True:
            some = await asyncio.to_thread(lambda: list(islice(past, LINES_AT_ONCE)))
            yield some
            if len(some) < LINES_AT_ONCE:
                break
        while True:
            _watch(changes, logs, query)
            for path in _files(logs, query):
                if path not in readers:
                    readers[path] = _Follower(path, at_end=False)
            batches = [list(reader.new_lines()) for reader in readers.values()]
            lines = list(heapq.merge(*batches, key=lambda line: line.at))
            if lines:
                yield lines
            await changes.changed()
            await asyncio.sleep(_GATHER_SECONDS)
    finally:
        for reader in readers.values():
            reader.close()
        changes.close()


def last_line(logs: Path, application: str, service: str, instance: str, *, since: float) -> str:
    """
    The last line that an instance wrote since then (seconds since the epoch), preferably to stderr.

    Empty if it wrote nothing.
    """
    path = logs / application / service / f"{instance}.log"
    after = _text_of(datetime.fromtimestamp(since, UTC))
    fallback = ""
    with suppress(FileNotFoundError), path.open("rb") as file:
        for line in _backwards(file, file.seek(0, os.SEEK_END), _BLOCK_BYTES):
            parsed = _parse(line, path)
            if parsed is None or not parsed.text.strip():
                continue
            if parsed.at < after:
                break
            if parsed.stream == "stderr":
                return parsed.text.strip()
            fallback = fallback or parsed.text.strip()
    return fallback


def prune(logs: Path, application: str, service: str, living: set[str]) -> None:
    """Remove the files of instances that are no more, but for those that ended last."""
    folder = logs / application / service
    gone: dict[str, float] = {}
    with suppress(OSError):
        for entry in os.scandir(folder):
            name, separator, _ = entry.name.partition(".log")
            if separator and name not in living:
                gone[name] = max(gone.get(name, 0.0), entry.stat().st_mtime)
    for name in sorted(gone, key=lambda name: gone[name])[: max(0, len(gone) - GONE_KEPT)]:
        for path in _parts(folder / f"{name}.log"):
            path.unlink(missing_ok=True)


def _files(logs: Path, query: LogQuery) -> list[Path]:
    pattern = f"{query.service or '*'}/{query.instance or '*'}.log"
    return sorted((logs / query.application).glob(pattern))


def _watch(changes: Changes, logs: Path, query: LogQuery) -> None:
    """Watch whatever there is of the way down to the files; the rest follows when it is made."""
    application = logs / query.application
    with suppress(FileNotFoundError):
        changes.watch(logs)
        changes.watch(application)
        for folder in application.glob(query.service or "*"):
            changes.watch(folder)


def _inode(path: Path) -> int | None:
    try:
        return path.stat().st_ino
    except FileNotFoundError:
        return None


def _text_of(moment: datetime | None) -> str:
    if moment is None:
        return ""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"


def _parts(path: Path) -> list[Path]:
    """The files of one instance, youngest first."""
    return [path, *(path.with_name(f"{path.name}.{number}") for number in range(1, FILES_MAX))]


def _merge_past(followers: list[_Follower], query: LogQuery, tail: int | None) -> Iterator[LogLine]:
    since = _text_of(query.since)
    if tail is None:
        return merge(follower.past(since) for follower in followers)
    # Of lines of the same moment the first follower's are the oldest, so its are the last ones here.
    backwards = [follower.past_backwards(since) for follower in reversed(followers)]
    last = list(islice(heapq.merge(*backwards, key=lambda line: line.at, reverse=True), tail))
    return reversed(last)


def merge(sources: Iterable[Iterable[LogLine]]) -> Iterator[LogLine]:
    """The lines of several sources, each oldest first, by their time."""
    return heapq.merge(*sources, key=lambda line: line.at)


def _forwards(file: BinaryIO, end: int) -> Iterator[bytes]:
    """The lines of a file before ``end``, first first."""
    at, rest = 0, b""
    while block := os.pread(file.fileno(), min(_BLOCK_BYTES, end - at), at):
        at += len(block)
        *lines, rest = (rest + block).split(b"\n")
        yield from lines
    if rest:
        yield rest


def _backwards(file: BinaryIO, end: int, limit_bytes: int | None = None) -> Iterator[bytes]:
    """The lines of a file before ``end``, last first; of the last ``limit_bytes`` if given."""
    stop = 0 if limit_bytes is None else max(0, end - limit_bytes)
    rest = b""
    while end > stop:
        start = max(stop, end - _BLOCK_BYTES)
        block = os.pread(file.fileno(), end - start, start)
        lines = (block + rest).split(b"\n")
        rest = lines[0]
        yield from (line for line in reversed(lines[1:]) if line)
        end = start
    if rest and stop == 0:
        yield rest


def _parse(line: bytes, path: Path) -> LogLine | None:
    """A line as the logger writes it; ``None`` for what is none, such as one being written."""
    at, _, rest = line.partition(b" ")
    letter, _, text = rest.partition(b" ")
    if letter not in {b"o", b"e"} or not at.endswith(b"Z"):
        return None
    return LogLine(
        at=at.decode("ascii", "replace"),
        application=path.parent.parent.name,
        service=path.parent.name,
        instance=path.name.removesuffix(".log"),
        stream="stdout" if letter == b"o" else "stderr",
        text=text.decode("utf-8", "replace").removesuffix("\r"),
    )


class _Follower:
    """Reads on in one instance's file, through rotations."""

    def __init__(self, path: Path, *, at_end: bool) -> None:
        self._path = path
        self._file: BinaryIO | None = None
        self._begin = 0  # where following begins and the past ends
        with suppress(OSError):
            self._file = path.open("rb")
            if at_end:
                self._begin = self._file.seek(0, os.SEEK_END)
        self._rest = b""

    def past(self, since: str) -> Iterator[LogLine]:
        """What was written before, oldest first; to be asked to its end before any new lines are read."""
        for inode in reversed(self._older()):
            if older := self._open_part(inode):
                with older:
                    yield from self._parsed(_forwards(older, os.fstat(older.fileno()).st_size), since)
        if self._file is not None:
            yield from self._parsed(_forwards(self._file, self._begin), since)

    def past_backwards(self, since: str) -> Iterator[LogLine]:
        """The same, youngest first."""
        for line in self._past_backwards():
            parsed = _parse(line, self._path)
            if parsed is not None and parsed.at < since:
                return
            if parsed is not None:
                yield parsed

    def _past_backwards(self) -> Iterator[bytes]:
        older_ones = self._older()
        if self._file is not None:
            yield from _backwards(self._file, self._begin)
        for inode in older_ones:
            if older := self._open_part(inode):
                with older:
                    yield from _backwards(older, older.seek(0, os.SEEK_END))

    def _parsed(self, lines: Iterable[bytes], since: str) -> Iterator[LogLine]:
        for line in lines:
            parsed = _parse(line, self._path)
            if parsed is not None and parsed.at >= since:
                yield parsed

    def _older(self) -> list[int]:
        """The inodes of the parts before the file that is open, youngest first."""
        if self._file is None:
            return []
        ours = os.fstat(self._file.fileno()).st_ino
        found = [_inode(part) for part in _parts(self._path)]
        # It may itself have been rotated since it was opened: what is younger than it is no past of its.
        begin = found.index(ours) + 1 if ours in found else 1
        return [inode for inode in found[begin:] if inode is not None]

    def _open_part(self, inode: int) -> BinaryIO | None:
        """A part of the past, under whatever name it has by now; ``None`` if it was removed."""
        for part in _parts(self._path):
            with suppress(FileNotFoundError):
                file = part.open("rb")
                if os.fstat(file.fileno()).st_ino == inode:
                    return file
                file.close()
        return None

    def new_lines(self) -> Iterator[LogLine]:
        """What has been written since the last call."""
        yield from self._read()
        with suppress(FileNotFoundError):
            if self._file is None or os.fstat(self._file.fileno()).st_ino != self._path.stat().st_ino:
                # Rotated: the old file was read to its end after the new one was begun, so nothing is missed.
                self.close()
                self._file = self._path.open("rb")
                yield from self._read()

    def _read(self) -> Iterator[LogLine]:
        if self._file is None:
            return
        data = self._rest + self._file.read()
        *lines, self._rest = data.split(b"\n")
        for line in lines:
            if parsed := _parse(line, self._path):
                yield parsed

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None
