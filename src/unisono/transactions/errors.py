"""
What a coordinator refuses, sorted by what the caller does next; ``code`` is what the HTTP API calls it::

    TransactionError
    ├── Invalid        the request can't be understood: mend it
    ├── UrlNotAllowed  the address is no service of the application
    ├── Unknown        no such transaction is remembered
    ├── Reused         the gid, or branch id, belongs to something else: take a new one
    ├── NotActive      too late: it takes no more branches
    ├── Decided        the other decision was made, for good
    ├── NotInDoubt     there is nothing for an operator to resolve
    ├── Expired        the gid is older than what is remembered: take a new one
    ├── Elsewhere      another node coordinates it
    └── TooMany        this node coordinates as many as it may: try later

None of these has changed anything. What the store raises passes through (:mod:`unisono.store.base`).
"""

from __future__ import annotations


class TransactionError(Exception):
    """Root of what a coordinator refuses; nothing has changed."""

    code = "refused"


class Invalid(TransactionError):
    """The request breaks a rule; ``field`` names where."""

    code = "invalid"

    def __init__(self, field: str, detail: str) -> None:
        super().__init__(f"{field}: {detail}" if field else detail)
        self.field = field
        self.detail = detail


class UrlNotAllowed(TransactionError):
    """A branch leads to something that is no service of the application."""

    code = "url-not-allowed"


class Unknown(TransactionError):
    """No such transaction is remembered."""

    code = "unknown-transaction"


class Reused(TransactionError):
    """The id is taken by something with another content."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class NotActive(TransactionError):
    """The transaction takes no more branches."""

    code = "not-active"


class Decided(TransactionError):
    """The other decision was made; ``code`` is the end that it has: committed or aborted."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class NotInDoubt(TransactionError):
    """None of the branches named waits for an operator."""

    code = "not-in-doubt"


class Expired(TransactionError):
    """The gid was made before the oldest transaction that is still remembered."""

    code = "expired-gid"


class Elsewhere(TransactionError):
    """Another node coordinates the transaction; ``node`` is its id."""

    code = "elsewhere"

    def __init__(self, node: str) -> None:
        super().__init__(
            f"the node {node} coordinates this transaction: ask there, or at any once it has taken over"
        )
        self.node = node


class TooMany(TransactionError):
    """This node coordinates as many transactions as it may."""

    code = "too-many"
