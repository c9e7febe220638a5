"""
Whether one service can run on this machine, and what in it will not do what one might expect.

How its fields become a spec is :mod:`unisono.spec.convert`'s.
"""

from __future__ import annotations

import os

from unisono.spec import programs, schema
from unisono.spec.draft import Draft
from unisono.spec.errors import Problem, field_path
from unisono.spec.interpolate import PORT
from unisono.spec.kinds import shell_operator
from unisono.spec.model import ServiceSpec
from unisono.spec.nodes import Scalar, problem, quoted
from unisono.spec.ports import names_port

_LATER = "is not yet honoured: this version accepts the word and goes by "


def check_program(draft: Draft, spec: ServiceSpec) -> None:
    """Note a command that can't run on this machine, whoever would start it."""
    written = draft.written
    if not spec.command or not spec.command[0]:
        draft.error("found no program to run, want a command (or the image of a container)", "command")
        return
    if spec.user is not None and programs.unknown_user(spec.user):
        draft.report.error(problem(draft.at("user"), "a user of this machine"))
    key = "entrypoint" if written.entrypoint else "command"
    _check_command(draft, spec, spec.command, key)
    _check_command(draft, spec, spec.update.release_command, "deploy", "update_config", "release_command")
    _check_command(
        draft, spec, spec.healthcheck.command, "healthcheck", "test" if _has_test(written) else "command"
    )
    for key in ("entrypoint", "command"):
        _warn_of_shell(draft, key)
    _warn_of_shell(draft, "deploy", "update_config", "release_command")


def _has_test(written: schema.Service) -> bool:
    return written.healthcheck is not None and written.healthcheck.test is not None


def _check_command(draft: Draft, spec: ServiceSpec, command: tuple[str, ...], *path: str) -> None:
    if not command or (PORT in command[0]):
        return
    search_path = spec.environment.get("PATH", spec.inherited.get("PATH", os.defpath))
    missing = programs.search(command[0], search_path, spec.working_dir)
    if missing is not None and not programs.missing_folder(spec.working_dir):
        node = draft.at(*path)
        shown_program = f"the program {quoted(command[0])}"
        hint = programs.remedy(command[0], command, spec.working_dir)
        draft.report.error(
            Problem(
                mark=node.mark,
                path=field_path((*draft.node.path, *path)),
                found=shown_program,
                wanted=f"one that can be run: {missing}",
                hint=hint,
            )
        )


def _warn_of_shell(draft: Draft, *path: str) -> None:
    node = draft.at(*path)
    is_there = isinstance(node, Scalar) and node.path == (*draft.node.path, *path)
    operator = shell_operator(node.text) if isinstance(node, Scalar) and is_there else None
    if operator:
        draft.warn(
            f"no shell runs, so {operator} is an argument like any other: for one write [sh, -c, ...]", *path
        )


def check_ports(draft: Draft, spec: ServiceSpec) -> None:
    """Note what an own port forbids, and warn of a program that would take the gateway's."""
    numbers = {port.port for port in spec.ports}
    if spec.port is not None:
        if spec.replicas > 1 or (spec.max_replicas or 1) > 1:
            draft.error(
                "only one instance can have a fixed port, want scale 1",
                "port",
                hint="or tell the port by {port}",
            )
        if spec.port in numbers:
            message = f"the program listens at {spec.port} itself, so the gateway can't"
            draft.error(
                message, "ports", hint=f"publish another one, such as {spec.port % 65535 + 1}:{spec.port}"
            )
        return
    if any(PORT in word for word in spec.command):
        return
    named = " ".join(spec.command)
    for parsed in draft.parsed_ports:
        for target in parsed.targets:
            if target in numbers and names_port(named, target):
                draft.warn(
                    f"names the port {target}, at which the gateway listens: write {PORT} in its place",
                    "command",
                )


def warn_of_later(draft: Draft) -> None:
    """Words that later versions honour."""
    written = draft.written
    if written.scale is not None and written.scale.wait is not None:
        draft.warn(_LATER + "the number of instances", "scale", "wait")
    if written.deploy is not None and written.deploy.mode not in (None, "replicated"):
        draft.warn("has no effect: services are replicated", "deploy", "mode")
    for name, entry in (written.depends_on or {}).items():
        if entry.restart:
            draft.warn(
                "restart has no effect: the gateway follows a service that restarts", "depends_on", name
            )
