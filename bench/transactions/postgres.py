"""A PostgreSQL of its own, with all that makes a commit durable left on, gone when its block ends."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import psycopg

from bench.harness import free_port, listens, wait_until

PREPARED = 300  # more than are prepared at a time
_USER = "bench"


class Postgres:
    """One server with some databases, each with the accounts of a bank."""

    def __init__(self, *databases: str) -> None:
        self._databases = databases
        self._port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Postgres:
        self._folder = Path(tempfile.mkdtemp(prefix="unisono-bench-postgres-"))
        try:
            self._start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGINT)  # a fast shutdown: it waits for nobody
            self._process.wait(30)
        shutil.rmtree(self._folder, ignore_errors=True)

    def url(self, database: str) -> str:
        """Where a database is."""
        return f"postgresql://{_USER}@127.0.0.1:{self._port}/{database}"

    def ask(self, database: str, sql: str) -> list[Any]:
        """The rows that a question has."""
        with psycopg.connect(self.url(database), autocommit=True) as connection:
            return connection.execute(sql).fetchall()

    def _start(self) -> None:
        data = self._folder / "data"
        account = _as_nobody()
        if account:
            os.chown(self._folder, account["user"], account["group"])
        initdb = [_program("initdb"), "-D", str(data), "-U", _USER, "-A", "trust"]
        subprocess.run(initdb, check=True, stdout=subprocess.DEVNULL, **account)
        settings = {
            "port": self._port,
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": self._folder,
            "max_prepared_transactions": PREPARED,
            "shared_buffers": "128MB",
        }
        command = [_program("postgres"), "-D", str(data)]
        for name, value in settings.items():
            command += ["-c", f"{name}={value}"]
        with (self._folder / "log").open("wb") as log:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, **account
            )
        wait_until(lambda: listens(self._port) and self._answers(), "PostgreSQL answers")
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            for database in self._databases:
                connection.execute(f"CREATE DATABASE {database}")

    def _answers(self) -> bool:
        try:
            psycopg.connect(self.url("postgres")).close()
        except psycopg.OperationalError:
            return False
        return True


def _program(name: str) -> str:
    """Where a program of the newest PostgreSQL is; Debian keeps them off the path."""
    found = shutil.which(name)
    kept = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), key=lambda p: int(p.parts[-3]))
    if found is None and not kept:
        raise RuntimeError(f"{name} is missing (Debian and Ubuntu: apt install postgresql)")
    return found or str(kept[-1])


def _as_nobody() -> dict[str, Any]:
    """PostgreSQL refuses to be root."""
    if os.geteuid() != 0:
        return {}
    nobody = pwd.getpwnam("nobody")
    return {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": [], "cwd": "/"}
