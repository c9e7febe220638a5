"""What the endpoints of the state have in common on the wire: whose state, values in JSON, ids of leases."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

_DIGITS_MAX = 20  # of 64 bits

Namespace = Annotated[str | None, Field(description="Whose state; a service's own is known by its token.")]


@dataclass(frozen=True, kw_only=True)
class NamespaceQuery:
    """Whose state."""

    namespace: Namespace = None


def value_text(value: bytes) -> str:
    """A value as it stands in JSON: base64."""
    return base64.b64encode(value).decode()


def value_of(text: str) -> bytes:
    """
    The value that stands in JSON so.

    Raises:
        ValueError: It is not base64.
    """
    try:
        return base64.b64decode(text, validate=True)
    except ValueError as error:
        raise ValueError("a value is not base64") from error


def lease_of(text: str) -> int:
    """
    The lease that is named so; whether there is one, the store knows.

    Raises:
        ValueError: It is no id of a lease.
    """
    if not text.isascii() or not text.isdecimal() or len(text) > _DIGITS_MAX:
        raise ValueError(f"lease: found {text[:40]!r}; the id of a lease is right, a whole number as text")
    return int(text)
