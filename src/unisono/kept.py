"""
Small files that outlast a crash: each is there whole or not at all, and stays once it has been written.

What is in them belongs to the rooms that write them: a node's name, its secrets, the address of its store.
"""

from __future__ import annotations

import os
from pathlib import Path


def write_kept(path: Path, content: str | bytes) -> None:
    """
    Write a file that its owner alone can read, in place of the one that was there.

    When this returns, it survives a power loss. A crash before that leaves the old one, or none where there
    was none, and perhaps a part of the new one beside it, under the number of this process.

    Raises:
        OSError: It can't be written; the old one is as it was.
    """
    # A name of its own: two nodes that start at once in one folder write there before either has its lock.
    fresh = path.with_name(f"{path.name}.{os.getpid()}.new")
    fresh.unlink(missing_ok=True)  # what a process of this number left, with whatever mode it had
    try:
        with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(path)
    except OSError:
        fresh.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def make_folder(path: Path, mode: int) -> None:
    """
    Make a folder, and the folders above it that are missing; when this returns, they survive a power loss.

    Raises:
        OSError: It can't be made, or is something else; one that is there is left as it is.
    """
    missing = [one for one in (path, *path.parents) if not one.exists()]
    path.mkdir(mode=mode, parents=True, exist_ok=True)
    for one in missing:
        sync_folder(one.parent)


def sync_folder(path: Path) -> None:
    """Make sure of the names in a folder: fsync(2) of a file alone says nothing of its name."""
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
