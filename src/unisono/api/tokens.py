"""
The API's token: read from a file that only its owner can read, or made there.

Who asks for it is :mod:`unisono.api.guard`.
"""

from __future__ import annotations

import secrets
import stat
from pathlib import Path

from unisono.kept import write_kept


class BadToken(Exception):
    """The token can't be had from its file; the message says why."""


def read_token(path: Path) -> str:
    """
    The API's token in a file that only its owner can read.

    Raises:
        BadToken: It can't be read, others can read it, or it is empty.
    """
    try:
        mode = path.stat().st_mode
        token = path.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise BadToken(f"can't read the token in {path}: {error}") from error
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise BadToken(f"{path} holds the token and others may read it; chmod 600 {path}")
    if not token:
        raise BadToken(f"{path} is empty; it should hold the token")
    return token


def made_token(path: Path) -> str:
    """The token in the file at ``path``, which is made, with a token of chance, if it is not there."""
    if not path.exists():
        write_kept(path, secrets.token_urlsafe(32) + "\n")
    return read_token(path)
