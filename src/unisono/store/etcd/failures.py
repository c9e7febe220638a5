"""
What etcd's answers mean: its status codes and messages, sorted by what to do next. Pure.

etcd says much in the text of a status only; the texts are those of its ``api/v3rpc/rpctypes/error.go`` and
have been the same since 3.4.
"""

from __future__ import annotations

from enum import Enum, auto

import grpc

from unisono.store.base import Broken, NotDone, StoreError


class Failure(Enum):
    """What a failed call means."""

    UNKNOWN = auto()  # no answer, or none that tells: a write may have happened. Another member may know more
    UNSENT = auto()  # nothing happened, for no connection could be made
    TOKEN = auto()  # nothing happened: log in again
    COMPACTED = auto()
    FUTURE = auto()  # a revision that has not been
    LEASE_GONE = auto()
    LEASE_EXISTS = auto()
    ANSWER_TOO_LARGE = auto()
    REFUSED = auto()  # nothing happened, and asking again as it is would not help: see :func:`refusal`


_TEXTS = (
    ("invalid auth token", Failure.TOKEN),
    ("revision of auth store is old", Failure.TOKEN),
    ("auth: revision in header is old", Failure.TOKEN),
    ("mvcc: required revision has been compacted", Failure.COMPACTED),
    ("mvcc: required revision is a future revision", Failure.FUTURE),
    ("requested lease not found", Failure.LEASE_GONE),
    ("lease already exists", Failure.LEASE_EXISTS),
    ("Received message larger than max", Failure.ANSWER_TOO_LARGE),  # gRPC's words, of this side
)

_DEFINITE = {
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.PERMISSION_DENIED,
    grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.UNAUTHENTICATED,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
    grpc.StatusCode.OUT_OF_RANGE,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.UNIMPLEMENTED,
}


def judge(code: grpc.StatusCode, text: str) -> Failure:
    """What a status means."""
    if code is grpc.StatusCode.UNAVAILABLE and "failed to connect to all addresses" in text:
        return Failure.UNSENT
    if code not in _DEFINITE:
        return Failure.UNKNOWN
    for part, failure in _TEXTS:
        if part in text:
            return failure
    return Failure.REFUSED


_LARGE = "takes no transaction as large as this: start its members with --max-request-bytes=9437184"
_REFUSALS: tuple[tuple[str, type[StoreError] | type[ValueError], str], ...] = (
    # what etcd says, what that is, what we say
    ("request is too large", ValueError, _LARGE),
    ("received message larger than max", ValueError, _LARGE),
    (
        "too many operations",
        ValueError,
        "takes no transaction of as many operations: start its members with --max-txn-ops=2048",
    ),
    ("database space exceeded", Broken, "is full: compact and defragment it, then disarm its alarm"),
    ("too many requests", NotDone, "has too much to do: try again later"),
    ("user name is empty", Broken, "wants a user: write etcd://USER@HOST"),
    ("authentication failed", Broken, "does not know this user with this password"),
    ("authentication is not enabled", Broken, "knows no users: leave USER@ out of the address"),
    ("permission denied", Broken, "does not let this user read and write all keys under that prefix"),
)


def refusal(text: str, store: str) -> StoreError | ValueError:
    """The error for what etcd refused; nothing was changed."""
    for part, error, says in _REFUSALS:
        if part in text:
            return error(f"the etcd at {store} {says}")
    return Broken(f"the etcd at {store} refused: {text}")
