"""
Where a store is: the text that users give, read and checked.

``sqlite:PATH``, or ``etcd://[USER@]HOST[:PORT][,HOST[:PORT]…][/PREFIX][?ca=FILE&cert=FILE&key=FILE]``. Pure:
nothing is opened, and no engine is imported; :mod:`unisono.store.opening` does that.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import parse_qsl, unquote

ETCD_PORT = 2379
DEFAULT_PREFIX = "unisono"
_PREFIX_MAX = 256  # bytes

FORMS = "sqlite:PATH or etcd://[USER@]HOST[:PORT][,HOST[:PORT]...][/PREFIX][?ca=FILE&cert=FILE&key=FILE]"


class BadStoreAddress(ValueError):
    """This text names no store; the message says what was found and what would be right."""


@dataclass(frozen=True, kw_only=True)
class SqliteAddress:
    """A file."""

    path: Path

    def __str__(self) -> str:
        return f"sqlite:{self.path}"


@dataclass(frozen=True, kw_only=True)
class EtcdAddress:
    """
    Members of an etcd, and the beginning of the keys that are ours there.

    With ``ca`` (or a certificate of our own, ``cert`` and ``key``) connections are TLS. All are PEM files.
    ``password`` is never part of the text, and is not shown.
    """

    endpoints: tuple[str, ...]  # HOST:PORT
    prefix: str = DEFAULT_PREFIX
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None

    @property
    def tls(self) -> bool:
        """Whether connections are encrypted."""
        return self.ca is not None or self.cert is not None

    def __str__(self) -> str:
        user = f"{self.user}@" if self.user else ""
        return f"etcd://{user}{','.join(self.endpoints)}/{self.prefix}"


def parse_store(text: str) -> SqliteAddress | EtcdAddress:
    """
    Read a store's address.

    Raises:
        BadStoreAddress: It is not one.
    """
    if text.startswith("sqlite:"):
        path = text.removeprefix("sqlite:")
        if not path or path.startswith("//"):
            raise BadStoreAddress(f"{text!r} names no file; write sqlite:PATH")
        return SqliteAddress(path=Path(path).absolute())
    if text.startswith("etcd://"):
        return _parse_etcd(text)
    raise BadStoreAddress(f"{_hidden(text)!r} is no address of a store; write {FORMS}")


def _parse_etcd(text: str) -> EtcdAddress:
    rest, _, query = text.removeprefix("etcd://").partition("?")
    authority, _, prefix = rest.partition("/")
    user, at, hosts = authority.rpartition("@")
    if ":" in user:
        raise BadStoreAddress(
            "a store's address holds a password, which every process list would show: leave it out, and give "
            "it in UNISONO_STORE_PASSWORD or with --store-password-file"
        )
    if at and not user:
        raise BadStoreAddress(f"{text!r} has an @ without a user before it")
    files = _files(text, query)
    return EtcdAddress(
        endpoints=tuple(_endpoint(host) for host in hosts.split(",")),
        prefix=_prefix(unquote(prefix)),
        user=unquote(user) or None,
        ca=files.get("ca"),
        cert=files.get("cert"),
        key=files.get("key"),
    )


def _files(text: str, query: str) -> dict[str, Path]:
    files: dict[str, Path] = {}
    for name, value in parse_qsl(query, keep_blank_values=True):
        if name not in {"ca", "cert", "key"}:
            raise BadStoreAddress(f"{text!r}: {name!r} is not known; ca, cert and key are")
        if not value or name in files:
            raise BadStoreAddress(f"{text!r}: {name} needs one file")
        files[name] = Path(value).absolute()
    if ("cert" in files) != ("key" in files):
        raise BadStoreAddress(f"{text!r}: cert and key go together, one of them is missing")
    return files


def _endpoint(text: str) -> str:
    host, colon, port = text.rpartition(":")
    if not colon or text.endswith("]"):  # an IPv6 address has colons of its own, and stands in brackets
        host, port = text, str(ETCD_PORT)
    if not host or (":" in host and not (host.startswith("[") and host.endswith("]"))):
        raise BadStoreAddress(f"{text!r} is no member of an etcd; write HOST or HOST:PORT, IPv6 in brackets")
    if not (re.fullmatch("[0-9]{1,5}", port) and 0 < int(port) < 65536):
        raise BadStoreAddress(f"{text!r}: the port must be a number from 1 to 65535")
    return f"{host}:{int(port)}"


def _prefix(text: str) -> str:
    prefix = text.strip("/") or DEFAULT_PREFIX
    if not prefix.isprintable() or len(prefix.encode()) > _PREFIX_MAX:
        raise BadStoreAddress(
            f"{prefix[:60]!r} can't be a store's prefix: at most {_PREFIX_MAX} bytes of printable text"
        )
    return prefix


def _hidden(text: str) -> str:
    """The text without what may be a password."""
    scheme, separator, rest = text.partition("://")
    if not separator or "@" not in rest:
        return text
    return f"{scheme}://...@{rest.rpartition('@')[2]}"
