"""
A node's HTTP API as methods: one connection per call, over the node's Unix socket or TCP.

Only the standard library is used, so that importing this costs next to nothing; the shapes of the
answers are in :mod:`unisono.client.views`. Nothing is tried again here: the errors
(:mod:`unisono.client.errors`) say whether that would be safe.
"""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Iterator, Mapping, Sequence
from os import PathLike, fspath
from typing import Any, cast
from urllib.parse import quote, urlencode

from unisono.client.errors import MaybeDone, NodeError, NotRunning, Refused
from unisono.client.views import (
    ApplicationSummary,
    ApplicationView,
    EventView,
    InstanceView,
    LogLine,
    NodeView,
    PlanView,
    RolloutHistory,
    ServiceView,
)

DEFAULT_TIMEOUT = 30.0


class NodeClient:
    """
    Talks to one node.

    Args:
        socket_path: The node's ``api.sock``. The file's permissions guard it, so no token is needed.
        address: ``HOST:PORT`` of a node started with ``--api``, instead of ``socket_path``.
        token: The secret that such a node asks for.
        timeout: Seconds that an answer may take; streams wait for ever.
    """

    def __init__(
        self,
        socket_path: str | PathLike[str] | None = None,
        *,
        address: str | None = None,
        token: str | None = None,
        timeout: float = DEFAULT_TIMEOUT,
    ) -> None:
        if (socket_path is None) == (address is None):
            raise ValueError("give either socket_path or address")
        self._socket_path = None if socket_path is None else fspath(socket_path)
        self._address = address
        self._token = token
        self._timeout = timeout

    # -- the node ------------------------------------------------------------------------------

    def node(self) -> NodeView:
        """The node itself: who it is, where it answers, how its gateway does."""
        return cast(NodeView, self._call("GET", "/v1/node"))

    def stop_node(self) -> None:
        """Ask the node to end; instances and gateway run on."""
        self._call("POST", "/v1/node/stop")

    # -- applications --------------------------------------------------------------------------

    def applications(self) -> list[ApplicationSummary]:
        """All applications, in the order of their names."""
        return cast(list[ApplicationSummary], self._call("GET", "/v1/applications")["applications"])

    def application(self, name: str) -> ApplicationView:
        """One application with its services and instances. Raises Refused (404) if it is not there."""
        return cast(ApplicationView, self._call("GET", _application(name)))

    def plan(self, name: str, spec: Mapping[str, Any]) -> PlanView:
        """What :meth:`apply` would do; changes nothing."""
        return cast(PlanView, self._call("PUT", _application(name) + "?dry_run=true", spec))

    def apply(self, name: str, spec: Mapping[str, Any]) -> PlanView:
        """Make ``spec`` (a resolved application) what should run; returns once it is recorded durably."""
        return cast(PlanView, self._call("PUT", _application(name), spec))

    def remove(self, name: str) -> None:
        """Begin to remove an application; :meth:`watch` shows its instances go."""
        self._call("DELETE", _application(name))

    def watch(self, name: str) -> Iterator[ApplicationView]:
        """
        The application now, and again whenever it changed; changes close together are merged.

        Ends when the application is gone. Raises NotRunning when the node goes away.
        """
        for _, kind, data in self._events(_application(name) + "/watch"):
            if kind == "removed":
                return
            yield cast(ApplicationView, data)

    # -- services ------------------------------------------------------------------------------

    def service(self, application: str, service: str) -> ServiceView:
        """One service with its instances."""
        return cast(ServiceView, self._call("GET", _service(application, service)))

    def instances(self, application: str) -> list[InstanceView]:
        """All instances of an application."""
        return cast(
            list[InstanceView], self._call("GET", _application(application) + "/instances")["instances"]
        )

    def scale(self, application: str, service: str, replicas: int) -> None:
        """Change how many instances a service should have."""
        self._call("POST", _service(application, service) + "/scale", {"replicas": replicas})

    def restart(self, application: str, services: Sequence[str] = ()) -> None:
        """Replace all instances of these services (of all when empty) as an update would."""
        self._call("POST", _application(application) + "/restart", {"services": list(services)})

    def rollout(self, application: str, service: str) -> RolloutHistory:
        """The rollout in force or the last one, and the revisions kept."""
        return cast(RolloutHistory, self._call("GET", _service(application, service) + "/rollout"))

    def undo(self, application: str, service: str) -> None:
        """Return a service to the revision before the present one."""
        self._call("POST", _service(application, service) + "/rollout/undo")

    # -- streams -------------------------------------------------------------------------------

    def logs(
        self,
        application: str,
        *,
        services: Sequence[str] = (),
        instance: str | None = None,
        tail: int | None = None,
        since: float | None = None,
        follow: bool = False,
    ) -> Iterator[LogLine]:
        """
        What instances wrote, oldest first.

        Args:
            application: Whose logs.
            services: Only these; all when empty.
            instance: Only this one.
            tail: At most so many lines of each instance; ``None``: all that is kept.
            since: Only lines written at or after this time, in seconds since the epoch.
            follow: Do not end, but yield what is written from now on, new instances included.
        """
        query: list[tuple[str, str]] = [("service", service) for service in services]
        optional = {"instance": instance, "tail": tail, "since": since}
        query += [(key, str(value)) for key, value in optional.items() if value is not None]
        query.append(("follow", "true" if follow else "false"))
        path = f"{_application(application)}/logs?{urlencode(query)}"
        for line in self._lines(path, "application/x-ndjson", follow=follow):
            if line:
                yield cast(LogLine, json.loads(line))

    def events(
        self, *, after: int = 0, follow: bool = False, application: str | None = None
    ) -> Iterator[EventView]:
        """What happened after store revision ``after``, oldest first; with ``follow`` it does not end."""
        query = {"after": str(after), "follow": "true" if follow else "false"}
        if application is not None:
            query["application"] = application
        for _, _, data in self._events("/v1/events?" + urlencode(query), follow=follow):
            yield cast(EventView, data)

    # -- transactions --------------------------------------------------------------------------

    def transactions(
        self, application: str | None, *, status: str = "", limit: int = 100
    ) -> list[dict[str, Any]]:
        """Transactions of an application, or of all, the newest first; docs/reference/transactions-api.md."""
        query = {"namespace": application or "", "status": status, "limit": str(limit)}
        found = self._call("GET", "/v1/transactions?" + urlencode(query))
        return cast(list[dict[str, Any]], found["transactions"])

    def transaction(self, application: str, gid: str) -> dict[str, Any]:
        """One transaction with its timeline. Raises Refused (404) if it is not known."""
        return cast(dict[str, Any], self._call("GET", _transaction(application, gid)))

    def retry_transaction(self, application: str, gid: str) -> int:
        """Call at once what waits for its next try; how many calls that are."""
        return int(self._call("POST", _transaction(application, gid, ":retry"), {})["called"])

    def resolve_transaction(self, application: str, gid: str, word: Mapping[str, Any]) -> dict[str, Any]:
        """Note what was done by hand: ``branches``, ``outcome``, ``reason``, ``operator``."""
        return cast(dict[str, Any], self._call("POST", _transaction(application, gid, ":resolve"), word))

    # -- the wire ------------------------------------------------------------------------------

    def _call(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        connection = self._connect(self._timeout)
        try:
            response = self._request(connection, method, path, body, accept="application/json")
            try:
                content = response.read()
            except (OSError, http.client.HTTPException) as error:
                raise _broken(method, error) from error
            return json.loads(content) if content else None
        finally:
            connection.close()

    def _request(
        self,
        connection: http.client.HTTPConnection,
        method: str,
        path: str,
        body: Mapping[str, Any] | None,
        *,
        accept: str,
    ) -> http.client.HTTPResponse:
        headers = {"Accept": accept}
        if self._token is not None:
            headers["Authorization"] = f"Bearer {self._token}"
        content = None
        if body is not None:
            content = json.dumps(body, separators=(",", ":")).encode()
            headers["Content-Type"] = "application/json"
        try:
            connection.request(method, path, content, headers)
            response = connection.getresponse()
            if response.status >= http.client.BAD_REQUEST:
                raise Refused(response.status, _problem(response))
        except (OSError, http.client.HTTPException) as error:
            raise _broken(method, error) from error
        return response

    def _connect(self, timeout: float | None) -> http.client.HTTPConnection:
        connection: http.client.HTTPConnection
        if self._socket_path is not None:
            connection = _UnixConnection(self._socket_path, timeout)
        else:
            connection = http.client.HTTPConnection(cast(str, self._address), timeout=timeout)
        try:
            connection.connect()
        except OSError as error:
            where = self._socket_path or self._address
            raise NotRunning(f"no node answers at {where}: {error.strerror or error}") from error
        return connection

    def _lines(self, path: str, accept: str, *, follow: bool) -> Iterator[str]:
        connection = self._connect(None if follow else self._timeout)
        try:
            response = self._request(connection, "GET", path, None, accept=accept)
            while line := response.readline():
                yield line.decode().rstrip("\n")
        except (OSError, http.client.HTTPException) as error:
            raise _broken("GET", error) from error
        finally:
            connection.close()

    def _events(self, path: str, *, follow: bool = True) -> Iterator[tuple[str, str, Any]]:
        """Server-sent events as (id, kind, decoded data); comments are skipped."""
        fields: dict[str, str] = {}
        for line in self._lines(path, "text/event-stream", follow=follow):
            if line.startswith(":"):
                continue
            if line:
                name, _, value = line.partition(":")
                fields[name] = value.removeprefix(" ")
            elif "data" in fields:
                yield fields.get("id", ""), fields.get("event", "message"), json.loads(fields["data"])
                fields = {}
        if follow:
            raise NotRunning("the node ended the stream: it is stopping")


class _UnixConnection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: str, timeout: float | None) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def _application(name: str) -> str:
    return f"/v1/applications/{quote(name, safe='')}"


def _transaction(application: str, gid: str, verb: str = "") -> str:
    return f"/v1/transactions/{quote(gid, safe='')}{verb}?{urlencode({'namespace': application})}"


def _service(application: str, service: str) -> str:
    return f"{_application(application)}/services/{quote(service, safe='')}"


def _problem(response: http.client.HTTPResponse) -> dict[str, Any]:
    content = response.read()
    try:
        problem = json.loads(content)
    except ValueError:
        problem = None
    if isinstance(problem, dict):
        return problem
    return {"title": response.reason, "status": response.status, "detail": content.decode(errors="replace")}


def _broken(method: str, error: Exception) -> NodeError:
    """Which error a broken connection is: reading twice does no harm, doing twice may."""
    if method == "GET":
        return NotRunning(f"the node went away while it answered: {error or type(error).__name__}")
    return MaybeDone(f"the connection to the node broke before it answered: {error or type(error).__name__}")
