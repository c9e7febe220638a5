"""
The state folder: where a node keeps what must outlive it, and who may use it.

Here are the names of everything in the folder, its format number and the lock that lets one node at a
time use it. What is inside those files belongs to the rooms that write them.

Errors::

    StateFolderError      can't be used; the message says why and what to do
    └── FolderInUse       another node holds it; ``pid`` names it
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

from unisono.kept import make_folder, write_kept

FORMAT = 1  # of the folder as a whole; rises when an older node could not read what a newer one wrote

_SOCKET_PATH_BYTES_MAX = 107  # sockaddr_un holds 108 bytes with the closing zero (unix(7))
_MEMORY = Path("/dev/shm")  # noqa: S108 - folders in it are made 0700, their owner is checked
_LONGEST_SOCKET_NAME = "/gateway.sock.handover.new"  # engine/src/process.rs binds there, then renames


class StateFolderError(Exception):
    """The state folder can't be used."""


class FolderInUse(StateFolderError):
    """Another node holds the folder; ``pid`` is its process, or ``None`` if it could not be read."""

    def __init__(self, path: Path, pid: int | None) -> None:
        holder = f"the node with pid {pid}" if pid else "another node"
        super().__init__(
            f"the state folder {path} is in use by {holder}; "
            "stop it first, or give this node a folder of its own with --state"
        )
        self.pid = pid


def default_state_folder() -> Path:
    """``$UNISONO_STATE``, else ``$XDG_STATE_HOME/unisono``, else ``~/.local/state/unisono``."""
    if given := os.environ.get("UNISONO_STATE"):
        return Path(given).absolute()
    base = os.environ.get("XDG_STATE_HOME", "")
    # The XDG specification says that a relative path is to be ignored.
    home = Path(base) if base.startswith("/") else Path.home() / ".local" / "state"
    return home / "unisono"


@dataclass(frozen=True)
class StateFolder:
    """The places inside one state folder; naming them touches nothing on disk."""

    path: Path

    @property
    def lock_file(self) -> Path:
        """Held by the node that uses the folder; contains its pid."""
        return self.path / "node.lock"

    @property
    def format_file(self) -> Path:
        """The number of the folder's format."""
        return self.path / "format"

    @property
    def store_file(self) -> Path:
        """The embedded store."""
        return self.path / "store.db"

    @property
    def kept_store(self) -> Path:
        """The address of the store that was last asked for, if ever one was."""
        return self.path / "store"

    @property
    def gateway_table(self) -> Path:
        """The table that the gateway follows, kept by the gateway."""
        return self.path / "gateway.json"

    @property
    def access_log(self) -> Path:
        """A line for each request, where that is wished; older parts are ``.1`` to ``.4``."""
        return self.path / "access.log"

    @property
    def logs(self) -> Path:
        """``logs/APPLICATION/SERVICE/ID.log`` and its older parts ``.1`` and up."""
        return self.path / "logs"

    @property
    def pipes(self) -> Path:
        """``pipes/APPLICATION/SERVICE/ID.{out,err}``: what instances write and the logger reads."""
        return self.path / "pipes"

    @property
    def sockets(self) -> Path:
        """The folder itself, or a short one of the same owner when socket paths in it would be too long."""
        if len(os.fsencode(self.path)) + len(_LONGEST_SOCKET_NAME) <= _SOCKET_PATH_BYTES_MAX:
            return self.path
        digest = hashlib.sha256(os.fsencode(self.path)).hexdigest()[:16]
        runtime = os.environ.get("XDG_RUNTIME_DIR", "")
        if runtime.startswith("/") and len(os.fsencode(runtime)) <= 60:
            return Path(runtime) / f"unisono-{digest}"
        return Path("/tmp") / f"unisono-{os.getuid()}-{digest}"  # noqa: S108 - made 0700, owner is checked

    @property
    def api_socket(self) -> Path:
        """Where the node's API answers."""
        return self.sockets / "api.sock"

    @property
    def services_socket(self) -> Path:
        """Where services find what they share, each with its token."""
        return self.sockets / "services.sock"

    @property
    def node_id_file(self) -> Path:
        """The node's name, which stays: its instances bear it."""
        return self.path / "node-id"

    @property
    def identity_secret(self) -> Path:
        """What the tokens of instances are signed with."""
        return self.path / "identity.secret"

    @property
    def gateway_socket(self) -> Path:
        """Where the gateway's control answers."""
        return self.sockets / "gateway.sock"

    @property
    def shared_memory(self) -> Path:
        """``APPLICATION/DIGEST``: tables that instances read, in memory where the machine has files of it."""
        if not _MEMORY.is_dir() or not os.access(_MEMORY, os.W_OK | os.X_OK):
            return self.path / "shared"
        digest = hashlib.sha256(os.fsencode(self.path)).hexdigest()[:16]
        return _MEMORY / f"unisono-{os.getuid()}-{digest}"

    def shared_table(self, application: str, prefix: str) -> Path:
        """The table of an application's keys that begin with ``prefix``."""
        return self.shared_memory / application / hashlib.sha256(prefix.encode()).hexdigest()[:16]

    def make_shared_memory(self) -> Path:
        """
        Make the folder of tables, readable by its owner alone.

        Raises:
            StateFolderError: It can't be made, or belongs to someone else, or is a link.
        """
        folder = self.shared_memory
        if folder.is_symlink():  # all may write beside it, and might lead us elsewhere
            raise StateFolderError(f"{folder} is a symbolic link; remove it")
        _make_private(folder)
        return folder

    def prepare(self) -> None:
        """
        Make the folder, readable by its owner alone, and check that its format is one we know.

        Raises:
            StateFolderError: It can't be made or written, belongs to someone else, or is of a newer format.
        """
        _make_private(self.path)
        if self.sockets != self.path:
            _make_private(self.sockets)
            if self.sockets.is_symlink():  # someone else may have put it into /tmp to lead us elsewhere
                raise StateFolderError(f"{self.sockets} is a symbolic link; remove it")
        self._check_format()
        for folder in (self.logs, self.pipes):
            _make_private(folder)

    def is_copy_of(self, path: str, node_id: str) -> bool:
        """
        Whether the folder at ``path`` is another one whose node has the id of ours: ours was copied from it.

        One that was moved here is there no longer, and what its node started is ours.
        """
        try:
            kept = StateFolder(Path(path)).node_id_file.read_text().strip()
            return kept == node_id and not self.path.samefile(path)
        except (OSError, ValueError):
            return False

    def discard(self) -> None:
        """
        Remove the folder with all that is in it: it was made for a node that is not wanted after all.

        One that a node uses by now is left as it is.
        """
        try:
            with NodeLock(self):
                for folder in {self.path, self.sockets, self.shared_memory}:
                    shutil.rmtree(folder, ignore_errors=True)
        except StateFolderError:
            return

    def _check_format(self) -> None:
        try:
            text = self.format_file.read_text().strip()
        except FileNotFoundError:
            write_kept(self.format_file, f"{FORMAT}\n")
            return
        except (OSError, UnicodeDecodeError) as error:
            raise StateFolderError(f"can't read {self.format_file}: {error}") from error
        if not text.isdecimal():
            raise StateFolderError(f"{self.format_file} holds {text[:40]!r} where a number was expected")
        if int(text) > FORMAT:
            raise StateFolderError(
                f"the state folder {self.path} has format {text}, this unisono knows formats up to {FORMAT}; "
                "upgrade unisono, or give this node a folder of its own with --state"
            )


def _make_private(path: Path) -> None:
    try:
        make_folder(path, 0o700)
        found = path.stat()
        if found.st_uid != os.getuid():
            raise StateFolderError(
                f"the folder {path} belongs to uid {found.st_uid}, not to uid {os.getuid()} of this node"
            )
        if found.st_mode & 0o077:
            path.chmod(0o700)
    except OSError as error:
        raise StateFolderError(f"can't use {path} as a state folder: {error.strerror}") from error


class NodeLock:
    """
    The right to use a state folder, for as long as this object is open or the process lives.

    It is an flock, so the kernel lets go of it however the node ends.
    """

    def __init__(self, folder: StateFolder) -> None:
        """
        Take the lock without waiting.

        Raises:
            FolderInUse: Another node holds it.
            StateFolderError: The lock file can't be opened.
        """
        path = folder.lock_file
        try:
            self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise StateFolderError(f"can't open {path}: {error.strerror}") from error
        if not self._take():
            written = os.pread(self._fd, 32, 0).strip()
            os.close(self._fd)
            raise FolderInUse(folder.path, int(written) if written.isdigit() else None)
        os.ftruncate(self._fd, 0)
        os.pwrite(self._fd, f"{os.getpid()}\n".encode(), 0)

    def _take(self) -> bool:
        # The log process looks now and then whether a node lives, by holding this lock for a moment.
        for _ in range(5):
            try:
                fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                time.sleep(0.02)
            else:
                return True
        return False

    def release(self) -> None:
        """Let go; a second call does nothing."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __enter__(self) -> NodeLock:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()
