"""
How a command ends: its exit codes, and the one error that commands raise for a user to read.

``docs/reference/exit-codes.md`` explains the codes; a test compares it with :class:`Code`.
"""

from __future__ import annotations

from enum import IntEnum
from http import HTTPStatus

from unisono.client import MaybeDone, NodeError, NotRunning, Refused


class Code(IntEnum):
    """What a command's exit code means."""

    OK = 0
    FAILED = 1
    USAGE = 2
    NOT_RUNNING = 3
    REFUSED = 4
    INTERRUPTED = 130


MEANINGS: dict[Code, str] = {
    Code.OK: "done",
    Code.FAILED: "the operation failed: a service did not get ready, a rollout rolled back, the disk is full",
    Code.USAGE: "wrong usage, or a file that is wrong; nothing was changed",
    Code.NOT_RUNNING: "no node answers; nothing was changed",
    Code.REFUSED: "refused, because of what is already there or is not; nothing was changed",
    Code.INTERRUPTED: "interrupted by Ctrl-C or SIGTERM",
}


class CommandFailed(Exception):
    """What a user gets to read: ``message`` after "error:", then ``hint`` if there is a remedy."""

    def __init__(self, message: str, *, code: Code = Code.FAILED, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        self.hint = hint


def failure_of(error: NodeError) -> CommandFailed:
    """The words and the exit code for an error of the client."""
    if isinstance(error, NotRunning):
        return CommandFailed(
            str(error),
            code=Code.NOT_RUNNING,
            hint="`unisono up` starts a node, `unisono node` runs one in the foreground",
        )
    if isinstance(error, MaybeDone):
        return CommandFailed(f"{error}; it may have been done", hint="look with `unisono ps`")
    if isinstance(error, Refused):
        return CommandFailed(_every(error), code=_code(error.status), hint=error.problem.get("hint"))
    return CommandFailed(str(error))


def _code(status: int) -> Code:
    if status in (HTTPStatus.UNPROCESSABLE_ENTITY, HTTPStatus.REQUEST_ENTITY_TOO_LARGE):
        return Code.USAGE
    return Code.FAILED if status >= HTTPStatus.INTERNAL_SERVER_ERROR else Code.REFUSED


def _every(error: Refused) -> str:
    """The detail, or where there are several faults, all of them, a line each."""
    faults = error.problem.get("errors") or []
    if len(faults) < 2:
        return str(error)
    return "\n".join(f"{fault['field']}: {fault['detail']}".removeprefix(": ") for fault in faults)
