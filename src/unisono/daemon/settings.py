"""How a node is to run, as its arguments say it, and why it can't."""

from __future__ import annotations

import argparse
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NoReturn

from unisono.api.addresses import BadAddress, parse_address
from unisono.api.tokens import BadToken, read_token
from unisono.node.paths import StateFolder, default_state_folder
from unisono.spec.shared import DEFAULT_NODE_BYTES
from unisono.spec.units import parse_size
from unisono.store.addresses import BadStoreAddress, parse_store

DEFAULT_LISTEN = "127.0.0.1:8080"

EXIT_FAULT, EXIT_USAGE, EXIT_REFUSED = 1, 2, 4  # as in docs/reference/exit-codes.md


class CannotRun(Exception):
    """The node can't start; the message says why, ``code`` is the program's exit code."""

    def __init__(self, message: str, code: int, *, hint: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.hint = hint


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How a node is to run."""

    folder: StateFolder
    listen: str = DEFAULT_LISTEN
    insists_on_listen: bool = False  # the address was asked for, not just the default
    api: str | None = None
    token: str | None = field(default=None, repr=False)
    store: str | None = None  # its address, where one was given
    store_password_file: Path | None = None
    store_password: str | None = field(default=None, repr=False)
    access_log: Literal["json", "combined"] | None = None
    shared_memory: int = DEFAULT_NODE_BYTES
    ends_when_empty: bool = False
    notify_socket: str | None = None


class _Parser(argparse.ArgumentParser):
    """Says what is wrong as all else does: one error, without the list of all options."""

    def error(self, message: str) -> NoReturn:
        raise CannotRun(message, EXIT_USAGE)


def settings_of(arguments: list[str] | None) -> tuple[Settings, bool]:
    """
    What the command's arguments and the environment say, and whether to log into the state folder.

    Raises:
        CannotRun: One of them is wrong; SystemExit: help was asked for.
    """
    parser = _Parser(prog="unisono node", description="Runs a node.")
    parser.add_argument("--state", type=Path, default=default_state_folder())
    parser.add_argument("--listen", metavar="HOST:PORT")
    parser.add_argument("--api", metavar="HOST:PORT")
    parser.add_argument("--api-token-file", type=Path, metavar="FILE")
    parser.add_argument("--store", metavar="ADDRESS")
    parser.add_argument("--store-password-file", type=Path, metavar="FILE")
    parser.add_argument("--access-log", choices=("json", "combined"))
    parser.add_argument("--shared-memory", metavar="SIZE")
    parser.add_argument("--ends-when-empty", action="store_true")
    parser.add_argument("--log-to-folder", action="store_true")
    given = parser.parse_args(arguments)
    # None of these is for those whom this node starts.
    store_password = os.environ.pop("UNISONO_STORE_PASSWORD", None)
    token = os.environ.pop("UNISONO_API_TOKEN", None)
    notify_socket = os.environ.pop("NOTIFY_SOCKET", None)
    listen = given.listen or DEFAULT_LISTEN
    try:
        if given.api_token_file is not None:
            token = read_token(given.api_token_file)
        for address in filter(None, (listen, given.api)):
            parse_address(address)
        if given.store is not None:
            parse_store(given.store)
        shared_memory = _shared_memory(given.shared_memory)
    except (BadToken, BadAddress, BadStoreAddress) as error:
        raise CannotRun(str(error), EXIT_USAGE) from error
    settings = Settings(
        folder=StateFolder(given.state.absolute()),
        listen=listen,
        insists_on_listen=given.listen is not None,
        api=given.api,
        token=token,
        store=given.store,
        store_password_file=given.store_password_file,
        store_password=store_password,
        access_log=given.access_log,
        shared_memory=shared_memory,
        ends_when_empty=given.ends_when_empty,
        notify_socket=notify_socket,
    )
    return settings, given.log_to_folder


def _shared_memory(size: str | None) -> int:
    if size is None:
        return DEFAULT_NODE_BYTES
    try:
        return parse_size(size)
    except ValueError as error:
        raise CannotRun(f"--shared-memory {size!r}: want {error}", EXIT_USAGE) from error
