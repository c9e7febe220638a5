"""
What may be taken on: whether a transaction may begin or a branch be enrolled, and the record it begins with.

Pure: nothing here waits, writes or calls. Whether the JSON is a transaction at all is :mod:`.submission`'s;
that it becomes durable before anybody is called is :mod:`.coordinator`'s.
"""

from __future__ import annotations

from unisono.transactions.errors import Invalid, Reused, TooMany
from unisono.transactions.records import Record
from unisono.transactions.running import Running
from unisono.transactions.states import Status
from unisono.transactions.submission import MAX_BRANCHES, BranchSpec, Submission, check_graph, check_size
from unisono.transactions.targets import Directory, locate

MAX_OPEN = 20_000  # transactions of one node


def check_addresses(directory: Directory, namespace: str, submission: Submission, *, trusted: bool) -> None:
    """Raise UrlNotAllowed if one of its addresses may not be called."""
    for branch in submission.branches:
        locate(directory, namespace, branch.url, trusted=trusted)
    if submission.query_prepared is not None:
        locate(directory, namespace, submission.query_prepared, trusted=trusted)


def check_room(taken: int) -> None:
    """Raise TooMany if a node with this many open transactions takes no more."""
    if taken >= MAX_OPEN:
        raise TooMany(f"{MAX_OPEN} transactions are open on this node, the most that it takes: try later")


def check_same(known: Record, digest: str) -> None:
    """Raise Reused if what is known by this gid has another content."""
    if known.digest != digest:
        raise Reused(
            "gid-reused", f"the gid {known.gid} belongs to a transaction with another content; take a new one"
        )


def check_branch(directory: Directory, running: Running, spec: BranchSpec) -> None:
    """
    Refuse a branch that is new to its transaction and can't be enrolled.

    Raises:
        NotActive: The transaction takes no more.
        Invalid: It is a message, has as many branches as it may, or ``spec`` does not go with them.
        UrlNotAllowed: The address may not be called.
    """
    machine, record = running.machine, running.record
    machine.check_active()
    if machine.question is not None:
        raise Invalid("", "a msg enrols no branches: they come with its begin")
    if len(machine.branches) >= MAX_BRANCHES:
        raise Invalid("", f"the transaction has {MAX_BRANCHES} branches, the most that are allowed")
    check_graph([spec], machine.branches)
    check_size([*record.specs, spec])
    locate(directory, record.namespace, spec.url, trusted=record.trusted)


def new_record(
    namespace: str,
    submission: Submission,
    digest: str,
    *,
    owner: str,
    now: float,
    trusted: bool,
    traceparent: str | None,
) -> Record:
    """What is written down of it first; ``now`` in seconds since the epoch, its deadline counts from then."""
    # Branches that are all known are called at once; a message waits for its initiator's word.
    waits = not submission.branches or submission.query_prepared is not None
    return Record(
        namespace=namespace,
        gid=submission.gid,
        mode=submission.mode,
        owner=owner,
        digest=digest,
        began=now,
        deadline=now + submission.timeout_ms / 1000,
        status=Status.ACTIVE if waits else Status.PREPARING,
        trusted=trusted,
        question=submission.query_prepared,
        traceparent=traceparent,
        specs=list(submission.branches),
    )
