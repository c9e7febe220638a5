"""
From files of services to an application: the public face of this room.

The way is: find and read the files (:mod:`unisono.spec.layers`), hold them against the schema
(:mod:`unisono.spec.schema`), fill in what they leave out (:mod:`unisono.spec.convert`) and look at them
together (:mod:`unisono.spec.application`). Loading changes nothing.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unisono.spec import programs
from unisono.spec.application import application, application_name, select
from unisono.spec.convert import build_data
from unisono.spec.errors import Problem, Report, SpecError, SpecWarning, in_reading_order
from unisono.spec.layers import Layers, default_files, variables_for
from unisono.spec.model import ApplicationSpec
from unisono.spec.nodes import MapNode, located
from unisono.spec.printing import render, resolved
from unisono.spec.schema import json_schema, validate

__all__ = ["Loaded", "SpecError", "SpecWarning", "json_schema", "load", "render"]


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """
    An application, what of its files has no effect, and the same as one file.

    ``resolved`` is plain data in the words of a file, for :func:`render`; loading it gives the same
    application again.
    """

    application: ApplicationSpec
    warnings: tuple[SpecWarning, ...]
    resolved: dict[str, Any]


def load(
    files: Sequence[Path] = (),
    *,
    name: str | None = None,
    profiles: Sequence[str] = (),
    environ: Mapping[str, str] | None = None,
    env_file: Path | None = None,
    services: Sequence[str] = (),
) -> Loaded:
    """
    The application that ``files`` describe, later ones laid on earlier ones.

    Args:
        files: Empty: unisono.yaml, or a Compose file, in the working directory or the nearest one above.
        name: The application's name, in place of the file's own; ``None``: ``COMPOSE_PROJECT_NAME``, if set.
        profiles: Services with one of these take part too; ``*`` means all of them. Empty: those in
            ``COMPOSE_PROFILES``.
        environ: Variables of the caller; ``None``: those of this process.
        env_file: A file of variables in place of the ``.env`` beside the first file.
        services: Only these take part, with all that they depend on; empty: all.

    Raises:
        SpecError: Anything is wrong; it names all that was found. No other error is raised.
    """
    report = Report()
    here = _here(report)  # relative paths need one, wherever they turn up
    caller = _readable(os.environ if environ is None else environ)
    paths = [Path(file) for file in files] or list(default_files(here, report))
    folder = paths[0].parent
    variables = variables_for(folder, caller, [env_file] if env_file else [], report)
    name = name or variables.get("COMPOSE_PROJECT_NAME") or None
    profiles = profiles or [one for one in variables.get("COMPOSE_PROFILES", "").split(",") if one]
    tree = located(Layers(caller, report).read(paths, folder, variables))
    file = validate(tree, report)
    assert isinstance(tree, MapNode)  # noqa: S101 - reading gives nothing else
    chosen_name = application_name(name, file, tree, folder, report)
    written = file.services or {}
    chosen = select(written, tree, profiles, services, report)
    found = application(
        file,
        tree,
        chosen,
        name=chosen_name,
        source=os.path.abspath(paths[0]),
        variables=variables,
        inherited=programs.inherited(caller),
        report=report,
    )
    builds = {other: build_data(written[other]) for other in found.services}
    return Loaded(
        application=found,
        warnings=tuple(sorted(report.warnings, key=in_reading_order)),
        resolved=resolved(found, builds),
    )


def _here(report: Report) -> Path:
    try:
        return Path.cwd()
    except OSError as error:
        raise report.fail(
            Problem(message=f"the working directory can't be read: {error.strerror}")
        ) from error


def _readable(environ: Mapping[str, str]) -> dict[str, str]:
    """Without variables whose bytes are no text: they can't be written down, so they count as not set."""
    return {
        name: value
        for name, value in environ.items()
        if not any("\ud800" <= c <= "\udfff" for c in name + value) and "\0" not in value
    }
