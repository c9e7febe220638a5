"""
How shared state is named, and under which keys of the store it is kept.

Everything of a namespace lies under ``state/NAMESPACE/``. A user's key or name may hold any character but
control characters, so NUL ends it in the store's key: a scan for one key finds that key alone, and the
order of keys stays theirs.

Pure: nothing here talks to a store.
"""

from __future__ import annotations

import re
import unicodedata

ROOT = "state/"
END = "\0"  # of a user's key or name, inside a key of the store

MAX_NAMESPACE_CHARACTERS = 64
MAX_KEY_BYTES = 512
MAX_NAME_BYTES = 256
MAX_REQUEST_ID_BYTES = 128

_NAMESPACE = re.compile(r"[a-z0-9][a-z0-9._-]*", re.ASCII)
_SHOWN_CHARACTERS = 40


def namespace_prefix(namespace: str) -> str:
    """
    Where a namespace's state lies.

    Raises:
        ValueError: It is no namespace.
    """
    if (
        not isinstance(namespace, str)
        or len(namespace) > MAX_NAMESPACE_CHARACTERS
        or _NAMESPACE.fullmatch(namespace) is None
    ):
        raise ValueError(
            f"namespace {_shown(namespace)}: use 1 to {MAX_NAMESPACE_CHARACTERS} of a-z, 0-9, '.', '_', '-', "
            "beginning with a letter or a digit"
        )
    return f"{ROOT}{namespace}/"


def check_key(key: str) -> str:
    """A user's key, if it is one; else ValueError."""
    return _check("key", key, MAX_KEY_BYTES)


def check_prefix(prefix: str) -> str:
    """The beginning of a user's key, possibly empty; else ValueError."""
    return prefix if prefix == "" else _check("prefix", prefix, MAX_KEY_BYTES)


def check_name(name: str) -> str:
    """The name of a lock, quota or the like, if it is one; else ValueError."""
    return _check("name", name, MAX_NAME_BYTES)


def check_request_id(id: str) -> str:
    """A request id, if it is one; else ValueError."""
    return _check("request id", id, MAX_REQUEST_ID_BYTES)


def _check(what: str, text: str, bytes_max: int) -> str:
    if not isinstance(text, str):
        raise ValueError(f"a {what} must be text, found {type(text).__name__}")
    if not text:
        raise ValueError(f"a {what} is empty; it needs at least one character")
    for character in text if not text.isprintable() else "":
        if unicodedata.category(character) in ("Cc", "Cs"):
            raise ValueError(
                f"{what} {_shown(text)} holds U+{ord(character):04X}; control characters and halves of "
                "surrogate pairs are not allowed"
            )
    size = len(text.encode())
    if size > bytes_max:
        raise ValueError(f"{what} {_shown(text)} has {size} bytes; at most {bytes_max} are allowed")
    return text


def _shown(text: object) -> str:
    shown = ascii(text)
    return shown if len(shown) <= _SHOWN_CHARACTERS else shown[:_SHOWN_CHARACTERS] + "…"
