"""
Real database servers for tests, each with a folder and an address of its own, gone when their block ends.

Servers that refuse to run as root are started as nobody. Where one is missing, whoever asks is skipped with
one line that names the package; in continuous integration (``CI`` is set) that is a failure instead.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.ports import free_port

LIMIT = 60.0  # seconds, generous


def need(program: str, package: str, *folders: str) -> str:
    """Where a server's program is."""
    found = shutil.which(program) or shutil.which(program, path=os.pathsep.join(folders))
    if found is None:
        message = f"{program} is missing (Debian and Ubuntu: apt install {package})"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    return found


def need_postgres(program: str) -> str:
    """Where a program of the newest PostgreSQL is; Debian keeps them off the path."""
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: -int(path.parent.name))
    return need(program, "postgresql", *map(str, folders))


class Server:
    """One server process that can be killed and started again on the same data."""

    user = "unisono"

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start and wait until it answers."""
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                self.command(), stdout=log, stderr=log, stdin=subprocess.DEVNULL, **_as_nobody()
            )
        wait_for(self.answers, f"{type(self).__name__} to answer", self._log)

    def kill(self) -> None:
        """``kill -9`` of the server; all it has not written down is gone."""
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait(LIMIT)
            self._process = None

    def stop(self) -> None:
        """End it in good order."""
        if self._process is None:
            return
        self._process.send_signal(self.stop_signal)
        try:
            self._process.wait(LIMIT)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(LIMIT)
        self._process = None

    stop_signal = signal.SIGTERM

    def command(self) -> Sequence[str]:
        raise NotImplementedError

    def answers(self) -> bool:
        raise NotImplementedError

    def _log(self) -> str:
        return (self.folder / "log").read_text(errors="replace")[-2000:]


class Postgres(Server):
    """PostgreSQL with prepared transactions switched on."""

    stop_signal = signal.SIGINT  # fast shutdown: does not wait for clients

    def __init__(self, folder: Path, *, prepared: int = 50) -> None:
        super().__init__(folder)
        self._prepared = prepared
        self._data = folder / "data"
        _run([need_postgres("initdb"), "-D", str(self._data), "-U", self.user, "-A", "trust", "--no-sync"])

    def command(self) -> Sequence[str]:
        settings = {
            "port": self.port,
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": self.folder,
            "max_prepared_transactions": self._prepared,
            "max_connections": 200,
            "shared_buffers": "16MB",
            "fsync": "off",  # a killed server loses nothing by it, and no test pulls the plug
        }
        return [
            need_postgres("postgres"),
            "-D",
            str(self._data),
            *(word for name, value in settings.items() for word in ("-c", f"{name}={value}")),
        ]

    def url(self, database: str = "postgres") -> str:
        return f"postgresql://{self.user}@127.0.0.1:{self.port}/{database}"

    def answers(self) -> bool:
        import psycopg

        try:
            psycopg.connect(self.url(), connect_timeout=5).close()
        except psycopg.OperationalError:
            return False
        return True

    def execute(self, sql: str, database: str = "postgres") -> list[Any]:
        """Run statements in autocommit; the last one's rows."""
        import psycopg

        with psycopg.connect(self.url(database), autocommit=True) as connection:
            cursor = connection.execute(sql)  # type: ignore[arg-type]
            return cursor.fetchall() if cursor.description else []

    def kill(self) -> None:
        """Kill the postmaster, and wait until its children have seen that."""
        super().kill()
        pid = self._data / "postmaster.pid"
        socket = self.folder / f".s.PGSQL.{self.port}"
        wait_for(lambda: not _in_use(self._data), "the killed server's children to end", lambda: "")
        for path in (pid, socket, socket.with_name(socket.name + ".lock")):
            path.unlink(missing_ok=True)


class PgBouncer(Server):
    """PgBouncer before a PostgreSQL: two connections of it, lent for a transaction or a statement."""

    stop_signal = signal.SIGINT

    def __init__(self, folder: Path, *, behind: Postgres, pool_mode: str) -> None:
        super().__init__(folder)
        settings = f"""[databases]
* = host=127.0.0.1 port={behind.port} user={behind.user}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {self.port}
unix_socket_dir =
auth_type = any
pool_mode = {pool_mode}
default_pool_size = 2
ignore_startup_parameters = extra_float_digits
"""
        (folder / "ini").write_text(settings)

    def command(self) -> Sequence[str]:
        return [need("pgbouncer", "pgbouncer", "/usr/sbin"), str(self.folder / "ini")]

    def url(self, database: str) -> str:
        return f"postgresql://{self.user}@127.0.0.1:{self.port}/{database}"

    def answers(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0


class MariaDB(Server):
    """MariaDB."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._data = folder / "data"
        install = need("mariadb-install-db", "mariadb-server")
        _run(
            [install, "--no-defaults", f"--datadir={self._data}", "--auth-root-authentication-method=normal"]
        )

    def command(self) -> Sequence[str]:
        return [
            need("mariadbd", "mariadb-server", "/usr/sbin"),
            "--no-defaults",
            f"--datadir={self._data}",
            f"--socket={self.folder}/socket",
            f"--port={self.port}",
            "--bind-address=127.0.0.1",
            f"--pid-file={self.folder}/pid",
            "--innodb-flush-log-at-trx-commit=2",
            "--innodb-buffer-pool-size=16M",
        ]

    def connect(self, database: str | None = "test") -> Any:
        import pymysql

        return pymysql.connect(
            host="127.0.0.1", port=self.port, user="root", database=database, connect_timeout=5
        )

    def answers(self) -> bool:
        import pymysql

        try:
            with self.connect(None) as connection:
                connection.cursor().execute("CREATE DATABASE IF NOT EXISTS test")
        except pymysql.err.OperationalError:
            return False
        return True


@contextmanager
def running(make: Callable[[Path], Server]) -> Iterator[Any]:
    """A server for the block."""
    folder = Path(tempfile.mkdtemp(prefix="unisono-db-", dir="/tmp"))
    try:
        if os.geteuid() == 0:
            nobody = pwd.getpwnam("nobody")
            os.chown(folder, nobody.pw_uid, nobody.pw_gid)
        server = make(folder)
        try:
            server.start()
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def wait_for(is_so: Callable[[], bool], what: str, why: Callable[[], str]) -> None:
    """Wait until something is so; fails with ``why()`` after LIMIT."""
    end = time.monotonic() + LIMIT
    while not is_so():
        if time.monotonic() > end:
            pytest.fail(f"waited {LIMIT:g} s in vain for {what}: {why()}")
        time.sleep(0.05)


def _run(command: Sequence[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT, check=False, **_as_nobody())
    assert done.returncode == 0, done.stdout + done.stderr


def _as_nobody() -> dict[str, Any]:
    if os.geteuid() != 0:
        return {}
    nobody = pwd.getpwnam("nobody")
    return {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": [], "cwd": "/"}


def _in_use(data: Path) -> bool:
    """Whether a process works in the data folder."""
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if os.readlink(process / "cwd") == str(data):
                return True
        except OSError:
            continue
    return False
