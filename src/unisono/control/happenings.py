"""
The kinds of Happening, as one table: ``docs/reference/events.md`` is generated from it.

Whoever tells of something uses a kind from here; a test compares the page with :func:`page`. Writing
happenings down is not here: whoever changes a record puts its happening into the same transaction.
"""

from __future__ import annotations

from typing import Any

from unisono.control.records import Happening

KINDS: dict[str, tuple[str, str]] = {
    # kind: (who tells it, what it means)
    "application-applied": ("command", "A file was applied; the message says what changes."),
    "application-removing": ("command", "An application is to stop and go, its dependants first."),
    "application-removed": ("controller", "The last record of an application is gone."),
    "service-scaled": ("command", "The number of instances wanted was changed by hand."),
    "service-readdressed": (
        "node",
        "Somebody else has a service's internal port: it gets another, what depends on it new instances.",
    ),
    "service-ready": ("controller", "A first deployment has all its instances ready."),
    "service-removing": ("command", "A service is to stop and go."),
    "service-removed": ("controller", "All instances of a service have stopped; its records are gone."),
    "rollout-started": ("command", "A change to another revision begins."),
    "rollout-released": ("controller", "The release command ended with 0."),
    "rollout-canary": ("controller", "The new revision gets a share of the requests, and is judged by it."),
    "rollout-canary-passed": ("controller", "It did as it should; the message has the figures."),
    "rollout-monitoring": ("controller", "All instances are replaced; a failure still counts for a while."),
    "rollout-done": ("controller", "The new revision is the stable one now."),
    "rollout-failed": ("controller", "Too many failures, or no progress; the message says which."),
    "rollout-rolling-back": ("controller", "The revision before comes back."),
    "rollout-rolled-back": ("controller", "The revision before is back; the new one is given up."),
    "rollout-paused": ("controller", "The rollout failed and is left as it is: apply again, or undo."),
    "brake": ("controller", "Most instances turned unhealthy at once: they are replaced one by one."),
    "brake-released": ("controller", "No instance is unhealthy any more."),
    "instance-replaced": ("controller", "An unhealthy instance is killed and another one takes its place."),
    "instance-stopping": ("controller", "An instance is told to stop; the message says why."),
    "instance-started": ("agent", "A process of an instance was started."),
    "instance-ready": ("agent", "An instance gets requests from now on."),
    "instance-unhealthy": ("agent", "A ready instance fails its health check."),
    "instance-exited": ("agent", "A process ended by itself; the message says how, and what comes next."),
    "instance-completed": ("agent", "A process ended with 0 and is not started again."),
    "instance-failed": ("agent", "A process ended otherwise and is not started again."),
    "instance-stopped": ("agent", "An instance has ended because it should."),
    "instance-unstartable": ("agent", "A process could not be started; the message says why."),
    "instance-limited": ("agent", "A limit of an instance can't be applied on this machine."),
    "instance-drain-timeout": ("agent", "Requests were still running when the time to finish them ended."),
    "instance-killed": ("agent", "An instance did not obey its stop signal in time."),
    "instance-suspect": ("agent", "The gateway can't connect to an instance; it is probed at once."),
    "instance-ejected": (
        "agent",
        "The gateway sends an instance no requests for a while, as it fails them; it is probed at once.",
    ),
    "instance-returned": ("agent", "An instance that was ejected gets requests again."),
    "service-unserved": ("agent", "A request waits for a service that has no ready instance."),
    "listener-unbound": ("agent", "The gateway can't listen at an address; all others work."),
    "logger-restarted": ("agent", "The process that writes the logs had ended and was started again."),
    "instance-adopted": ("agent", "A restarted node found an instance running and took it over."),
    "gateway-started": ("node", "The gateway process was started, or started again."),
    "gateway-failed": ("node", "No gateway process can be started; the message says why. It is tried on."),
    "gateway-exited": ("node", "The gateway process ended by itself."),
    "transaction-in-doubt": (
        "node",
        "A branch may come to another end than its transaction; an operator should look (`unisono txn`).",
    ),
    "shared-memory-full": (
        "node",
        "A table in shared memory has no room for all it mirrors; the node is asked for what is missing.",
    ),
    "shared-memory-failed": ("node", "A table in shared memory can't be kept; the node is asked instead."),
    "node-started": ("node", "A node began to serve."),
    "leader-elected": ("controller", "A node's controller decides from now on."),
}


def happening(
    kind: str,
    *,
    at: float,
    application: str = "",
    service: str = "",
    instance: str = "",
    message: str = "",
    data: dict[str, Any] | None = None,
) -> Happening:
    """
    A Happening whose kind is in the table.

    Raises:
        ValueError: ``kind`` is not.
    """
    if kind not in KINDS:
        raise ValueError(f"unknown kind of happening {kind!r}; known are {', '.join(sorted(KINDS))}")
    return Happening(
        at=at,
        kind=kind,
        application=application,
        service=service,
        instance=instance,
        message=message,
        data=data or {},
    )


def page() -> str:
    """The reference page, in Markdown."""
    rows = "\n".join(f"| `{kind}` | {teller} | {meaning} |" for kind, (teller, meaning) in KINDS.items())
    return f"""# Events

What `unisono events` prints, one line each. Generated from `src/unisono/control/happenings.py` by
`python -m unisono.control.happenings`; do not edit.

An event has `at` (seconds since the epoch), `kind`, `application`, `service`, `instance` (empty where
it has none), `message` (words for people) and `data` (plain values for programs). The store keeps
about the last 2000.

| kind | told by | meaning |
|---|---|---|
{rows}
"""


if __name__ == "__main__":
    print(page(), end="")
