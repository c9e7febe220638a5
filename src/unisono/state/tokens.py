"""
What a reader carries from call to call, and from service to service, so that it never looks back.

A consistency token says: "I have seen revision r of namespace n". It is opaque and signed with a key that
lies in the store itself, so every node on this store can read it, nobody can make one up, and a token from
another store is refused instead of being misunderstood.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import secrets

from unisono.state.names import namespace_prefix
from unisono.store.base import Compare, Field, NotDone, Put, Store

SIGNING_KEY = "state-secret"

_SECRET_BYTES = 32
_VERSION = b"\x01"
_REVISION_BYTES = 8
_SIGNATURE_BYTES = 16
_LENGTH = len(_VERSION) + _REVISION_BYTES + _SIGNATURE_BYTES


class Tokens:
    """Makes and reads tokens; made by :meth:`load`, or of a secret that all who share tokens have."""

    def __init__(self, secret: bytes) -> None:
        self._secret = secret

    @classmethod
    async def load(cls, store: Store) -> Tokens:
        """
        With the store's own secret, which is made if there is none.

        Raises:
            StoreError: The store failed.
        """
        entry = await store.get(SIGNING_KEY)
        if entry is None:
            await store.transact(
                compares=[Compare(key=SIGNING_KEY, field=Field.CREATED, target=0)],
                success=[Put(key=SIGNING_KEY, value=secrets.token_bytes(_SECRET_BYTES))],
            )
            entry = await store.get(SIGNING_KEY)
        if entry is None:
            raise NotDone(f"{SIGNING_KEY} was removed while it was made: try again")
        return cls(entry.value)

    @property
    def secret(self) -> bytes:
        """For who makes and reads tokens elsewhere; 1 to 64 bytes."""
        return self._secret

    def make(self, namespace: str, revision: int) -> str:
        """The token of a reader that has seen ``revision``."""
        body = _VERSION + revision.to_bytes(_REVISION_BYTES, "big")
        return base64.urlsafe_b64encode(body + self._sign(namespace, body)).decode()

    def read(self, namespace: str, token: str) -> int:
        """
        The revision that the token's bearer has seen.

        Raises:
            ValueError: It is malformed, or of another namespace or store.
        """
        try:
            packed = base64.b64decode(token.encode("ascii"), altchars=b"-_", validate=True)
        except (UnicodeEncodeError, binascii.Error):
            packed = b""
        body, signature = packed[:-_SIGNATURE_BYTES], packed[-_SIGNATURE_BYTES:]
        if len(packed) != _LENGTH or body[: len(_VERSION)] != _VERSION:
            raise ValueError(
                "consistency token is malformed: give it back just as it came, or leave it out to start anew"
            )
        if not hmac.compare_digest(signature, self._sign(namespace, body)):
            raise ValueError(
                f"consistency token is not of namespace {namespace!r} of this store: "
                "leave it out to start anew"
            )
        return int.from_bytes(body[len(_VERSION) :], "big")

    def _sign(self, namespace: str, body: bytes) -> bytes:
        message = namespace_prefix(namespace).encode() + body
        return hashlib.blake2b(message, key=self._secret, digest_size=_SIGNATURE_BYTES).digest()
