"""``unisono config``: what a file means once it is merged, interpolated and resolved. Needs no node."""

from __future__ import annotations

import json
from enum import StrEnum
from typing import Annotated

import typer

from unisono.cli import files
from unisono.cli.options import EnvFileOption, FileOption, ProfileOption, ProjectOption, Target


class Format(StrEnum):
    """How the resolved file is printed."""

    YAML = "yaml"
    JSON = "json"


def config(
    ctx: typer.Context,
    format: Annotated[Format, typer.Option("--format", help="How to print it.")] = Format.YAML,
    as_json: Annotated[bool, typer.Option("--json", help="The same as --format json.")] = False,
    services: Annotated[bool, typer.Option("--services", help="Print the services' names only.")] = False,
    schema: Annotated[
        bool, typer.Option("--schema", help="Print the JSON Schema of files, for editors.")
    ] = False,
    file: FileOption = None,
    project: ProjectOption = None,
    profile: ProfileOption = None,
    env_file: EnvFileOption = None,
) -> None:
    """Check a file and print what it means: merged, interpolated, all defaults filled in."""
    if schema:
        from unisono.spec.load import json_schema  # noqa: PLC0415 - see unisono.cli.files

        print(json.dumps(json_schema(), indent=2))
        return
    target = Target.of(ctx, file=file, project=project, profile=profile, env_file=env_file)
    loaded = files.load(target)
    if services:
        names = list(loaded.application.services)
        print(json.dumps(names) if as_json or format is Format.JSON else "\n".join(names))
    else:
        from unisono.spec.load import render  # noqa: PLC0415

        print(render(loaded.resolved, "json" if as_json else format.value).rstrip("\n"))
