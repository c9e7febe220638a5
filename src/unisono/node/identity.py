"""
Who a service's request comes from: a token that names application, service and instance.

Each instance is given one in its environment. It is signed with a secret of the node's, so that it is
checked without looking anything up, and nobody can make one up; an application sees its own state alone.
What a caller may do with it is the API's to say.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import secrets
from dataclasses import dataclass
from pathlib import Path

from unisono.kept import write_kept

_VERSION = "u1"
_SECRET_BYTES = 32
_SIGNATURE_BYTES = 16
_MAX_CHARACTERS = 1024


@dataclass(frozen=True)
class Identity:
    """Who calls: an instance of a service of an application."""

    application: str
    service: str
    instance: str


class Identities:
    """Makes and reads tokens; all who share a secret can read each other's."""

    def __init__(self, secret: bytes) -> None:
        self._secret = secret

    @classmethod
    def kept_in(cls, path: Path) -> Identities:
        """
        With the secret in a file that its owner alone can read; it is made if it is not there.

        Raises:
            OSError: It can't be read or made, or what it holds is no secret.
        """
        if not path.exists():
            write_kept(path, secrets.token_bytes(_SECRET_BYTES))
        secret = path.read_bytes()
        # BLAKE2 takes an empty key for none at all: anyone could sign.
        if len(secret) != _SECRET_BYTES:
            raise OSError(
                f"{path} has {len(secret)} bytes; the secret has {_SECRET_BYTES}; remove it for a new one"
            )
        return cls(secret)

    def make(self, identity: Identity) -> str:
        """The token of ``identity``; it bears no secret but the right to be taken for it."""
        name = "/".join((identity.application, identity.service, identity.instance)).encode()
        return ".".join((_VERSION, _encoded(name), _encoded(self._sign(name))))

    def read(self, token: str) -> Identity | None:
        """Whom a token names; ``None`` if this node's secret did not sign it."""
        version, _, rest = token.partition(".")
        body, _, signature = rest.partition(".")
        if version != _VERSION or len(token) > _MAX_CHARACTERS:
            return None
        name = _decoded(body)
        # Compared in constant time: the time it takes tells nothing of how much was right.
        if not hmac.compare_digest(_decoded(signature), self._sign(name)):
            return None
        parts = name.decode().split("/")
        return Identity(*parts) if len(parts) == 3 else None

    def _sign(self, name: bytes) -> bytes:
        return hashlib.blake2b(name, key=self._secret, digest_size=_SIGNATURE_BYTES).digest()


def _encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def _decoded(text: str) -> bytes:
    try:
        return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except (binascii.Error, ValueError):
        return b""
