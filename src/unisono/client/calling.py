"""
Calls one participant over HTTP as a coordinator does: the protocol as seen from outside, and nothing else.

For :mod:`unisono.client.conformance`, which says what to call and what would be right. The node's own calls
are :mod:`unisono.transactions.calls`'.
"""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import SplitResult, urlsplit

Mode = Literal["saga", "tcc", "xa"]

OPS: dict[str, tuple[str, str | None, str]] = {  # forward, finish, undo
    "saga": ("action", None, "compensate"),
    "tcc": ("try", "confirm", "cancel"),
    "xa": ("prepare", "commit", "rollback"),
}
PATIENCE = 30.0  # seconds for a participant that answers "still working"
DONE = (200, 204)
_WORKING = (202, 425)
_PAUSE = 0.05
_ANSWER_MAX = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Answered:
    """One answer; status 0 means none, and ``body`` says why."""

    status: int
    body: bytes


class _Final(http.client.HTTPResponse):
    """An answer behind its interim ones: the library passes over 100 alone, and takes 103 for an answer."""

    def _read_status(self) -> tuple[str, int, str]:
        while True:
            version, status, reason = super()._read_status()  # type: ignore[misc] # not in the library's stubs
            if not http.HTTPStatus.CONTINUE < status < http.HTTPStatus.OK:
                return version, status, reason
            http.client.parse_headers(self.fp)


class Wrong(Exception):
    """The case failed; the message says what was asked, what came, and what would be right."""


class Participant:
    """Calls one participant as a coordinator does, and never follows a redirect."""

    def __init__(self, url: str, mode: Mode, payload: Any, timeout: float) -> None:
        self.forward, self.finish, self.undo = OPS[mode]
        self._mode = mode
        self._url = http_url(url)
        self._payload = payload
        self._timeout = timeout

    def call(
        self,
        op: str,
        gid: str,
        *,
        branch: str = "b1",
        epoch: int = 1,
        body: bytes | None = None,
        without: str = "",
    ) -> Answered:
        """One call, as it is answered; ``without`` leaves a header out, ``body`` replaces the payload."""
        headers = {
            "Content-Type": "application/json",
            "Transaction-Id": gid,
            "Transaction-Branch": branch,
            "Transaction-Op": op,
            "Transaction-Mode": self._mode,
            "Transaction-Epoch": str(epoch),
            "Transaction-Began": str(int(time.time() * 1000)),
            "Idempotency-Key": f"{gid}/{branch}/{op}",
            "Deadline-Ms": str(int(self._timeout * 1000)),
            "unisono-clock": f"{int(time.time() * 1000) << 16:016x}",
        }
        headers.pop(without, None)
        content = json.dumps(self._payload).encode() if body is None else body
        path = f"{self._url.path.rstrip('/')}/{op}"
        return request(self._url, path, timeout=self._timeout, body=content, headers=headers)

    def settled(self, op: str, gid: str, **more: Any) -> Answered:
        """
        A call that is asked again while it answers "still working".

        Raises:
            Wrong: It still did after :data:`PATIENCE`.
        """
        end = time.monotonic() + PATIENCE
        while (answer := self.call(op, gid, **more)).status in _WORKING:
            if time.monotonic() > end:
                raise Wrong(f"{op} was still working after {PATIENCE:g} s")
            time.sleep(_PAUSE)
        return answer


def http_url(url: str) -> SplitResult:
    """
    A URL in parts.

    Raises:
        ValueError: It is none of HTTP.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"a URL begins with http:// or https:// and names a host, not {url!r}")
    return parts


def request(
    url: SplitResult,
    path: str,
    *,
    timeout: float,
    body: bytes | None = None,
    headers: Mapping[str, str] | None = None,
) -> Answered:
    """GET, or POST where there is a body. What is over 1 MiB of the answer is left out."""
    kind = http.client.HTTPSConnection if url.scheme == "https" else http.client.HTTPConnection
    connection = kind(url.hostname or "", url.port, timeout=timeout)
    connection.response_class = _Final
    try:
        connection.request("GET" if body is None else "POST", path, body, dict(headers or {}))
        response = connection.getresponse()
        content = response.read(_ANSWER_MAX)
        if response.length and len(content) < _ANSWER_MAX:
            return Answered(status=0, body=b"half a body")
        if response.status in DONE and content and _is_no_json(response, content):
            return Answered(status=0, body=b"a body that says it is JSON and is not")
        return Answered(status=response.status, body=content)
    except TimeoutError:
        return Answered(status=0, body=f"nothing within {timeout:g} s".encode())
    except (OSError, http.client.HTTPException) as error:
        return Answered(status=0, body=(str(error) or type(error).__name__).encode())
    finally:
        connection.close()


def _is_no_json(response: http.client.HTTPResponse, content: bytes) -> bool:
    """Whether a body that says it is JSON is something else, which a coordinator takes for half an answer."""
    kind = response.headers.get_content_type()
    if kind != "application/json" and not kind.endswith("+json"):
        return False
    try:
        json.loads(content, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        return True
    return False


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


def in_words(answer: Answered) -> str:
    """An answer for people, with the beginning of its body."""
    body = answer.body[:200].decode(errors="replace").strip()
    if answer.status == 0:
        return f"nothing ({body})"
    return f"{answer.status} {body}".rstrip()


def must_be_done(answer: Answered, what: str, *, gone_is_fine: bool = False) -> None:
    """Raise Wrong unless it was answered with success."""
    fine = (*DONE, 410) if gone_is_fine else DONE
    if answer.status not in fine:
        raise Wrong(f"{what} answered {in_words(answer)}; right is 200 or 204")


def must_be_no(answer: Answered, what: str) -> None:
    """Raise Wrong unless it was answered with a no for good."""
    if answer.status != 409:
        raise Wrong(f"{what} answered {in_words(answer)}; right is 409, a no for good")


def must_not_be_done(answer: Answered, what: str) -> None:
    """Raise Wrong unless it was answered with a refusal."""
    if answer.status == 0 or not 400 <= answer.status < 500 or answer.status == 410:
        raise Wrong(f"{what} answered {in_words(answer)}; right is an error such as 409 or 400")
