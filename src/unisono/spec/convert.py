"""
From one service as it is written to what should run: defaults, defaults that follow from other fields,
and what fields must not say together.

What services must not say together is :mod:`unisono.spec.application`'s.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any, Literal, cast

from unisono.spec import compose, programs, schema, sections
from unisono.spec.access import Access
from unisono.spec.checks import check_ports, check_program, warn_of_later
from unisono.spec.draft import Draft, given_or
from unisono.spec.interpolate import PORT
from unisono.spec.layers import read_env, shown
from unisono.spec.model import (
    Condition,
    Dependency,
    HealthCheck,
    Resources,
    Restart,
    Route,
    ServiceSpec,
    UpdateConfig,
)
from unisono.spec.nodes import ListNode, MapNode, Node, Scalar, plain_data, problem, quoted
from unisono.spec.ports import insisted_port, parse_port
from unisono.spec.treatment import canaries, treatment

_RESTARTS = {"no": "no", "none": "no", "always": "always", "any": "always", "unless-stopped": "always"}

Probe = Literal["http", "tcp", "command", "listen", "none"]


def service_spec(draft: Draft) -> ServiceSpec:
    """
    The resolved service; problems and warnings go to the draft's report.

    Raises:
        SpecError: A file of variables can't be read.
    """
    written = draft.written
    container = written.image is not None or written.build is not None
    working_dir = _working_dir(draft, container=container)
    command = (*(written.entrypoint or ()), *(written.command or ()))
    environment, asks_for_port = _environment(draft)
    draft.parsed_ports = [
        parse_port(port, draft.at("ports", index), draft.report)
        for index, port in enumerate(written.ports or ())
    ]
    ports = tuple(dict.fromkeys(port for parsed in draft.parsed_ports for port in parsed.published))
    serves = _serves(draft, command, environment, asks_for_port=asks_for_port)
    replicas, maximum = _scale(draft)
    draft.fixed_port = _fixed_port(draft, command, replicas=maximum or replicas, told=asks_for_port)
    spec = ServiceSpec(
        name=draft.name,
        driver="container" if container else "process",
        image=written.image,
        command=command,
        working_dir=working_dir,
        environment=environment,
        inherited=draft.inherited,
        user=written.user,
        port=draft.fixed_port,
        serves=serves,
        replicas=replicas,
        max_replicas=maximum,
        depends_on=_depends_on(written),
        healthcheck=_healthcheck(draft, serves=serves),
        restart=_restart(draft),
        stop_signal=written.stop_signal or ServiceSpec.stop_signal,
        stop_grace_period=given_or(written.stop_grace_period, ServiceSpec.stop_grace_period),
        drain_period=given_or(written.drain_period, ServiceSpec.drain_period),
        resources=_resources(draft),
        update=_update(draft),
        routes=tuple(
            dict.fromkeys(
                Route(path=route.path, host=route.host, priority=cast(Any, route.priority))
                for route in written.routes or ()
            )
        ),
        ports=ports,
        access=None if written.access is None else Access(**dict(written.access)),
        **treatment(draft),
    )
    if container:
        remedy = compose.COMMAND_ONLY if command else compose.NO_COMMAND
        draft.warn(compose.CONTAINERS + remedy, "image" if written.image is not None else "build")
    else:
        check_program(draft, spec)
        check_ports(draft, spec)
    warn_of_later(draft)
    return spec


def _working_dir(draft: Draft, *, container: bool) -> str:
    """Absolute; of a container it is a path inside, which is left as it is."""
    node = draft.written.working_dir
    if node is not None and not isinstance(node, Scalar):
        draft.report.error(problem(node, "the path of a folder"))
        return "/"
    if container:
        return node.text if node is not None else "/"
    mark = (node or draft.node).mark
    path = os.path.abspath(mark.source.folder / os.path.expanduser(node.text if node is not None else "."))
    if node is not None and programs.missing_folder(path):
        draft.report.error(problem(node, "a folder that is there", hint=f"it was looked for at {path}"))
    return path


def _environment(draft: Draft) -> tuple[dict[str, str], bool]:
    """
    Variables from the files, then those in the service itself, by Compose's precedence; and whether PORT,
    which is never among them, was one of them.
    """
    merged: dict[str, str | None] = {}
    for index, entry in enumerate(draft.written.env_file or ()):
        merged.update(_from_file(draft, entry, index))
    merged.update(draft.written.environment or {})
    found = {}
    asks_for_port = False
    for name, value in merged.items():
        text = draft.variables.get(name) if value is None else value
        if name == "PORT":
            asks_for_port = True
            if text is not None and text != PORT:
                draft.warn(
                    f"PORT {quoted(text)} is overridden: each instance gets a port of its own in PORT; "
                    "for a program that insists on one write port: beside environment",
                    "environment",
                    "PORT",
                )
        elif text is None:
            draft.warn(f"the variable {name} is not set, so it is left out", "environment", name)
        else:
            found[name] = text
    return found, asks_for_port


def _from_file(draft: Draft, entry: sections.EnvFile, index: int) -> dict[str, str]:
    node = entry.path
    if not isinstance(node, Scalar) or node.is_null:
        draft.report.error(problem(node, "the path of a file"))
        return {}
    path = node.mark.source.folder / os.path.expanduser(node.text)
    if not entry.required and not path.exists():
        return {}
    at = problem(node, "a file of variables")
    return read_env(path, shown(path), draft.variables, draft.report, raw=entry.format == "raw", at=at)


def _fixed_port(draft: Draft, command: tuple[str, ...], *, replicas: int, told: bool) -> int | None:
    """
    The port of ``port``, else the one that Compose's ``ports`` tell of: in ``"80:8000"`` it is 8000.

    That is believed where the command names it and nothing else tells the program its port.
    """
    written = draft.written
    if written.port is not None or told or any(PORT in word for word in command):
        return written.port
    insisted = insisted_port(draft.parsed_ports, " ".join(command))
    if insisted is None:
        return None
    update = written.deploy.update_config if written.deploy else None
    if replicas > 1 or (update is not None and (update.order == "start-first" or update.canary)):
        draft.warn(
            f"names the port {insisted}, which only one instance at a time can have: "
            f"write {PORT} in its place",
            "command",
        )
        return None
    return insisted


def _serves(
    draft: Draft, command: tuple[str, ...], environment: Mapping[str, str], *, asks_for_port: bool
) -> bool:
    """Whether someone is to call it: it says so, asks for its port, has a route, or others depend on it."""
    written, probe = draft.written, draft.written.healthcheck
    reachable = next(
        (
            key
            for key in ("routes", "ports", "port", "expose", "protocol", "mode")
            if getattr(written, key) not in (None, [], ())
        ),
        None,
    )
    if written.serves is not None:
        if reachable and not written.serves:
            draft.error(
                f"says that it does not serve, but it has {reachable}",
                "serves",
                hint="take one of the two out",
            )
        return written.serves
    mentions = (*command, *environment.values(), *_probe_words(probe))
    told = asks_for_port or any(PORT in text or re.search(r"\$(PORT\b|\{PORT\b)", text) for text in mentions)
    probed = probe is not None and (probe.http is not None or bool(probe.tcp))
    awaited = bool(draft.needed - {Condition.COMPLETED})
    return bool(reachable or told or probed or awaited)


def _probe_words(written: sections.HealthCheck | None) -> tuple[str, ...]:
    if written is None:
        return ()
    test = written.test if isinstance(written.test, ListNode) else [written.test]
    return (*(written.command or ()), *(item.text for item in test if isinstance(item, Scalar)))


def _scale(draft: Draft) -> tuple[int, int | None]:
    """The number of instances, and the most of them if a range was given."""
    scale, deploy = draft.written.scale, draft.written.deploy
    replicas = deploy.replicas if deploy else None
    if scale is None:
        return given_or(replicas, ServiceSpec.replicas), None
    if replicas is not None and (scale.min, scale.max) != (replicas, replicas):
        line = draft.at("deploy", "replicas").mark.line
        draft.error(
            f"differs from deploy.replicas, which is {replicas} in line {line}",
            "scale",
            hint="write one of the two",
        )
    if scale.max is not None and scale.max < scale.min:
        draft.error(f"found max {scale.max} below min {scale.min}, want at least that", "scale")
    if not isinstance(draft.at("scale"), MapNode):
        return scale.min, None
    if scale.max is not None and scale.max > scale.min:
        draft.warn(
            "nothing scales by itself in this version: `unisono scale` moves between min and max",
            "scale",
            "max",
        )
    return scale.min, scale.max


def _depends_on(written: schema.Service) -> tuple[Dependency, ...]:
    return tuple(
        Dependency(service=name, condition=Condition(entry.condition), required=entry.required)
        for name, entry in (written.depends_on or {}).items()
    )


def _healthcheck(draft: Draft, *, serves: bool) -> HealthCheck:
    written = draft.written.healthcheck
    if written is None:
        return HealthCheck(kind="listen" if serves else "none")
    kind, path, command = _probe(draft, written, serves=serves)
    port = written.http.port if kind == "http" and written.http else None
    if kind in ("http", "tcp") and not serves:
        draft.error(
            "asks at a port, but the service does not serve", "healthcheck", hint="take serves: false out"
        )
    return HealthCheck(
        kind=kind,
        path=path,
        port=port,
        command=command,
        interval=given_or(written.interval, HealthCheck.interval),
        timeout=given_or(written.timeout, HealthCheck.timeout),
        retries=given_or(written.retries, HealthCheck.retries),
        start_period=given_or(written.start_period, HealthCheck.start_period),
        start_interval=given_or(written.start_interval, HealthCheck.start_interval),
    )


def _probe(
    draft: Draft, written: sections.HealthCheck, *, serves: bool
) -> tuple[Probe, str, tuple[str, ...]]:
    """Kind, path and command of the probe."""
    if written.disable:
        return "none", "/", ()
    given = [key for key in ("http", "tcp", "command", "test") if getattr(written, key) not in (None, False)]
    if len(given) > 1:
        draft.error(f"found {' and '.join(given)}, want one of them", "healthcheck")
    if written.http is not None:
        return "http", written.http.path, ()
    if written.tcp:
        return "tcp", "/", ()
    command = written.command or ()
    if written.command is not None and not command:
        draft.error("found nothing to run, want a command", "healthcheck", "command")
    if written.test is not None:
        command = _tested(draft, written.test)
        if not command:
            return "none", "/", ()
    if command:
        return "command", "/", command
    return ("listen" if serves else "none"), "/", ()


def _tested(draft: Draft, node: Node) -> tuple[str, ...]:
    """The command of Compose's ``test``; empty for NONE."""
    wanted = "a text, or a list that begins with CMD, CMD-SHELL or NONE"
    if isinstance(node, Scalar) and not node.is_null:
        return ("/bin/sh", "-c", node.text)
    if not isinstance(node, ListNode) or not node or not all(isinstance(item, Scalar) for item in node):
        draft.report.error(problem(node, wanted))
        return ()
    first, rest = node[0].text, tuple(item.text for item in node[1:])
    if first == "NONE":
        return ()
    if first == "CMD" and rest:
        return rest
    if first == "CMD-SHELL" and len(rest) == 1:
        return ("/bin/sh", "-c", rest[0])
    draft.report.error(
        problem(node, wanted, found=f"a list that begins with {quoted(first)}", hint=_test_hint(first))
    )
    return ()


def _test_hint(first: str) -> str:
    if first in ("CMD", "CMD-SHELL"):
        return "CMD is followed by a program and its arguments, CMD-SHELL by one text"
    return "put CMD before it"


def _restart(draft: Draft) -> Restart:
    written, deploy = draft.written.restart, draft.written.deploy
    policy = deploy.restart_policy if deploy else None
    if policy is not None:
        name, attempts = policy.condition, policy.max_attempts
    elif written is not None:
        name, _, count = written.partition(":")
        attempts = int(count) if int(count or 0) else None
    else:
        return Restart(policy="on-failure" if Condition.COMPLETED in draft.needed else "always")
    chosen = _RESTARTS.get(name, "on-failure")
    if chosen == "always" and Condition.COMPLETED in draft.needed:
        draft.warn(
            "others wait for it to complete, but it is always started again: want on-failure", "restart"
        )
    return Restart(policy=cast(Any, chosen), max_attempts=None if chosen == "no" else attempts)


def _resources(draft: Draft) -> Resources:
    deploy = draft.written.deploy
    limits = deploy.resources.limits if deploy and deploy.resources else None
    found = []
    for short, long in (("cpus", "cpus"), ("mem_limit", "memory")):
        one, other = getattr(draft.written, short), getattr(limits, long, None)
        if one is not None and other is not None and one != other:
            line = draft.at("deploy", "resources", "limits", long).mark.line
            draft.error(
                f"differs from deploy.resources.limits.{long} in line {line}",
                short,
                hint="write one of the two",
            )
        found.append(given_or(one, other))
    return Resources(cpus=found[0], memory=found[1])


def _update(draft: Draft) -> UpdateConfig:
    deploy = draft.written.deploy
    written = deploy.update_config if deploy else None
    order = written.order if written else None
    if draft.fixed_port is not None:
        if order == "start-first":
            message = "two instances can't have the fixed port at once, want stop-first"
            draft.error(message, "deploy", "update_config", "order")
        order = "stop-first"
    if written is not None and any(PORT in word for word in written.release_command or ()):
        message = (
            f"found {PORT}, want a command without it: nothing calls a release command, so it has no port"
        )
        draft.error(message, "deploy", "update_config", "release_command")
    if written is not None and written.canary and draft.fixed_port is not None:
        message = "two instances can't have the fixed port at once, so that there is no room for a canary"
        draft.error(message, "deploy", "update_config", "canary", hint="take one of the two out")
    given = {} if written is None else {k: v for k, v in dict(written).items() if v is not None}
    steps = canaries(written.canary if written else None)
    return UpdateConfig(**{**given, "order": order or UpdateConfig.order, "canary": steps})


def build_data(written: schema.Service) -> Any:
    """``build`` as plain data, for printing it again."""
    return None if written.build is None else plain_data(written.build)
