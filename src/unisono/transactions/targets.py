"""
Where a branch is called: its address, if the application may call it.

A coordinator calls whatever address it is given, from inside; so addresses are checked before they are
accepted and again before each call (server-side request forgery, CWE-918). A transaction of a service may
call services of its own application: by name (``http://payments/…``), or at the address that the node
gave them (``$PAYMENTS_URL``). Those are reached through the gateway. It may call what the application's
file allows besides (:mod:`unisono.spec.outside`); a name among that may not lead to this machine or to the
link's neighbours, whoever answers for it (:func:`is_outside`). An operator's transaction may call any.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol
from urllib.parse import urlsplit

from unisono.transactions.errors import UrlNotAllowed

_LOOPBACK = frozenset({"127.0.0.1", "localhost", "[::1]", "::1"})


class Directory(Protocol):
    """Which services an application has, and at which port of loopback the gateway answers for them."""

    def port_of(self, application: str, service: str) -> int | None:
        """The port of a service, or ``None`` if there is none of this name."""

    def has_port(self, application: str, port: int) -> bool:
        """Whether one of its services is reached at this port."""

    def allows(self, application: str, url: str) -> bool:
        """Whether its file allows to call this address besides."""


@dataclass(frozen=True, slots=True)
class Address:
    """
    Where to connect to, and how to ask there: host, port, TLS, the Host header, the path.

    ``outside``: what the host's name leads to must be outside this machine.
    """

    host: str
    port: int
    tls: bool
    authority: str
    path: str
    outside: bool = False

    @property
    def participant(self) -> tuple[str, int, bool, bool]:
        """What shares a limit and its connections."""
        return self.host, self.port, self.tls, self.outside

    def below(self, op: str) -> Address:
        """Where an operation of it is called."""
        return _address(
            self.host, self.port, self.tls, self.authority, f"{self.path}/{op}", outside=self.outside
        )


def locate(directory: Directory, application: str, url: str, *, trusted: bool) -> Address:
    """
    The address behind a URL that :func:`unisono.transactions.submission.check_url` has passed.

    Raises:
        UrlNotAllowed: It is no service of the application, nor allowed besides, and the transaction is not
            an operator's.
    """
    tls, host, port, authority, path = _parts(url)
    by_name = directory.port_of(application, host) if port is None and not tls else None
    if by_name is not None:
        return _address("127.0.0.1", by_name, False, authority, path)
    number = port or (443 if tls else 80)
    if trusted or (not tls and host in _LOOPBACK and directory.has_port(application, number)):
        return _address(host, number, tls, authority, path)
    if not directory.allows(application, url):
        raise UrlNotAllowed(
            f"{url} is no service of {application}: http://SERVICE/PATH with one of its services is right, or"
            " an address that its file names under transactions: allow"
        )
    return Address(host, number, tls, authority, path, outside=not _is_literal(host))


def is_outside(address: str) -> bool:
    """
    Whether an IP address, as a name was resolved to it, is neither of this machine nor of the link.

    Addresses of private networks are outside: services of one's own live there.
    """
    found = ipaddress.ip_address(address.partition("%")[0])
    inner = getattr(found, "ipv4_mapped", None) or getattr(found, "sixtofour", None) or found
    return not (inner.is_loopback or inner.is_link_local or inner.is_unspecified or inner.is_multicast)


def _is_literal(host: str) -> bool:
    """Whether it is an IP address: who allowed that has meant just that."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


_address = lru_cache(maxsize=4096)(Address)  # to make one takes longer than to find it


@lru_cache(maxsize=4096)
def _parts(url: str) -> tuple[bool, str, int | None, str, str]:
    parts = urlsplit(url)
    return parts.scheme == "https", parts.hostname or "", parts.port, parts.netloc, parts.path
