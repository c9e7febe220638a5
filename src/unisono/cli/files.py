"""
The file of services, loaded for a command: its warnings go to stderr, its errors end the command.

How a file is read is :mod:`unisono.spec.load`'s; it is imported only by commands that need a file.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from unisono.cli.exits import Code, CommandFailed
from unisono.cli.options import Target
from unisono.cli.output import complain

if TYPE_CHECKING:
    from unisono.spec.load import Loaded
    from unisono.spec.model import ApplicationSpec


def load(target: Target) -> Loaded:
    """
    The application in the file that the command line names, or in the folder's.

    Raises:
        CommandFailed: There is no such file, or it is wrong; the message names file, line and field.
    """
    from unisono.spec import load as spec  # noqa: PLC0415 - a third of a second, for who needs it

    try:
        loaded = spec.load(
            target.files, name=target.project, profiles=target.profiles, env_file=target.env_file
        )
    except spec.SpecError as error:
        raise CommandFailed(str(error), code=Code.USAGE, hint=error.hint) from error
    for warning in loaded.warnings:
        complain("warning", str(warning))
    return loaded


def body(application: ApplicationSpec) -> Mapping[str, Any]:
    """The application as the node's API takes it, its file by a path that means the same everywhere."""
    return {**dataclasses.asdict(application), "source": os.path.abspath(application.source)}
