"""
What has to be there for a program to start, found before it is tried: its user, its folder, its file.

So that what is missing is said by name, and not by the errno of a fork. What is started, when, and how it is
looked after is :mod:`unisono.node.drivers.process`'.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from unisono.node.cgroups import Group
from unisono.node.drivers import enter
from unisono.node.drivers.base import CannotStart
from unisono.node.drivers.surroundings import account_of
from unisono.spec.model import ServiceSpec

# Enters the control groups whose cgroup.procs come before "--", then becomes the command after it.
_ENTER_GROUPS = 'while [ "$1" != -- ]; do echo 0 >"$1" || exit 126; shift; done; shift; exec "$@"'


def check_startable(spec: ServiceSpec) -> None:
    """
    Look, without starting anything, for what would keep every instance of ``spec`` from starting here.

    Raises:
        CannotStart: The user, the folder or the command is missing; it says which.
    """
    account_of(spec.user)
    if not Path(spec.working_dir).is_dir():
        raise CannotStart(f"cannot start: no such folder: {spec.working_dir} (working_dir)")
    environment = {**spec.inherited, **spec.environment}
    for command in (spec.command, spec.update.release_command):
        if command and "{port}" not in command[0]:
            executable(command[0], spec.working_dir, environment)


def executable(name: str, cwd: str, environment: Mapping[str, str]) -> str:
    """
    The file that a command's first word means, in the folder ``cwd``.

    Raises:
        CannotStart: There is none, or it can't be executed.
    """
    if "/" in name:
        path = Path(cwd, name)
        if not path.exists():
            raise CannotStart(f"cannot start: no such file: {path}")
        if path.is_dir() or not os.access(path, os.X_OK):
            raise CannotStart(f"cannot start: {path} is not executable")
        return name
    search = environment.get("PATH", os.defpath)
    # Relative entries of PATH are meant from the working directory of the instance, not from ours.
    folders = os.pathsep.join(str(Path(cwd, entry)) for entry in search.split(os.pathsep))
    found = shutil.which(name, path=folders)
    if found is None:
        raise CannotStart(f"cannot start: no such command: {name} (PATH is {search})")
    return found


def entering(group: Group, account: Mapping[str, Any], argv: list[str]) -> list[str]:
    """The command that enters the control groups first, and becomes ``argv`` with the same pid."""
    procs = [str(path) for path in group.procs]
    if not account:
        return ["/bin/sh", "-c", _ENTER_GROUPS, "sh", *procs, "--", *argv]
    ids = [str(account["user"]), str(account["group"]), ",".join(map(str, account["extra_groups"]))]
    return [sys.executable, "-I", "-S", enter.__file__, *ids, ",".join(procs), *argv]


def reason(error: Exception, program: str, cwd: str) -> str:
    """Why a start failed that nothing had seemed to stand in the way of, in words for ``unisono ps``."""
    if isinstance(error, FileNotFoundError | NotADirectoryError) and not Path(cwd).is_dir():
        return f"cannot start: no such folder: {cwd} (working_dir)"
    if isinstance(error, OSError) and error.strerror:
        return f"cannot start {program}: {error.strerror}"
    return f"cannot start {program}: {error}"
