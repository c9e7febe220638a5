"""
What can go wrong between the node and the gateway, sorted by what the caller does next::

    GatewayError
    ├── Unreachable   no answer: try again when a gateway is there; ``may_have_happened`` tells whether it did
    ├── Outdated      it follows a newer table: go on from ``version``
    ├── Unbound       it could not listen at some addresses: leave them out; nothing was changed
    └── Refused       it did not understand: a fault in unisono; nothing was changed
"""

from __future__ import annotations

from collections.abc import Mapping


class GatewayError(Exception):
    """Root of all errors of the link to the gateway."""


class Unreachable(GatewayError):
    """The gateway did not answer. ``may_have_happened``: it had the request when it went silent."""

    def __init__(self, message: str, *, may_have_happened: bool = True) -> None:
        super().__init__(message)
        self.may_have_happened = may_have_happened


class Outdated(GatewayError):
    """A table was older than the one in force, whose version is ``version``."""

    def __init__(self, version: int) -> None:
        super().__init__(f"the gateway follows version {version} of the table already")
        self.version = version


class Unbound(GatewayError):
    """Listeners could not be bound; ``addresses`` tells the reason for each."""

    def __init__(self, addresses: Mapping[str, str]) -> None:
        listed = "; ".join(f"{address}: {reason}" for address, reason in sorted(addresses.items()))
        super().__init__(f"the gateway can't listen at {listed}")
        self.addresses = dict(addresses)


class Refused(GatewayError):
    """The gateway refused the request as malformed."""
