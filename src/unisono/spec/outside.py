"""
Which addresses beyond its own services the transactions of an application may call.

It goes by scheme, host, port and the beginning of the path; asking before each call is
:mod:`unisono.transactions.targets`'. Pure, and immutable as all of :mod:`unisono.spec.model`, of which it is
a part.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from urllib.parse import SplitResult, unquote, urlsplit

MAX_ADDRESSES = 100
MAX_CHARACTERS = 500

_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, kw_only=True)
class Outside:
    """The beginnings of the addresses: ``https://pay.example.com`` or ``http://10.0.0.7:8080/ledger``."""

    allow: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if len(self.allow) > MAX_ADDRESSES:
            raise ValueError(f"transactions has {len(self.allow)} addresses, want at most {MAX_ADDRESSES}")
        for address in self.allow:
            try:
                check_address(address)
            except ValueError as error:
                raise ValueError(f"transactions allows {address!r}, want {error}") from error

    def permits(self, url: str) -> bool:
        """Whether a URL is one of them, or lies below one."""
        return any(_is_below(url, address) for address in self.allow)


def check_address(address: str) -> str:
    """An address that can be allowed; else ValueError, which says what would be right."""
    right = "an address such as https://pay.example.com or http://10.0.0.7:8080/ledger"
    if len(address) > MAX_CHARACTERS:
        raise ValueError(f"an address of at most {MAX_CHARACTERS} characters")
    if not address.isascii() or not address.isprintable() or any(one in address for one in ' ?#@\\*"<>'):
        raise ValueError(f"{right}, without user, query, fragment and wildcards")
    try:
        parts = _parts(address)
        _ = parts.port
    except ValueError:
        raise ValueError(right) from None
    if parts.scheme not in _PORTS or not parts.hostname:
        raise ValueError(right)
    if _climbs(parts.path):
        raise ValueError(f"{right}, without . and .. in its path")
    return address


@lru_cache(maxsize=4096)
def _is_below(url: str, address: str) -> bool:
    given, allowed = _parts(url), _parts(address)
    same = _place(given) == _place(allowed) and given.username is None
    beginning = allowed.path.rstrip("/")
    if not beginning:
        return same
    return same and not _climbs(given.path) and f"{given.path}/".startswith(f"{beginning}/")


@lru_cache(maxsize=4096)
def _parts(address: str) -> SplitResult:
    return urlsplit(address)


def _place(parts: SplitResult) -> tuple[str, str | None, int | None]:
    return parts.scheme, parts.hostname, parts.port or _PORTS.get(parts.scheme)


def _climbs(path: str) -> bool:
    """Whether a server may take a path for one that lies elsewhere, however it reads it."""
    read = unquote(unquote(path)).replace("\\", "/")
    return any(part in (".", "..") for part in read.split("/"))
