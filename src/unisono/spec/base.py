"""
The base of all models of the file: a mapping whose keys are known, with a clear word for each that is not.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, ValidationInfo, model_validator

from unisono.spec.errors import Problem, Report, field_path
from unisono.spec.fields import unfit
from unisono.spec.nodes import MapNode, Node, Scalar, key_mark, quoted

# What people write who come from elsewhere, where the spelling alone leads nowhere.
_SYNONYMS = {
    "args": "command",
    "cmd": "command",
    "cwd": "working_dir",
    "directory": "working_dir",
    "env": "environment",
    "health": "healthcheck",
    "instances": "scale",
    "needs": "depends_on",
    "rate_limit": "concurrency",
    "rate_limits": "concurrency",
    "replicas": "scale",
    "run": "command",
    "tls": "ports",
}


def _extras(schema: dict[str, Any], model: type[Any]) -> None:
    """What the validator below also accepts, for editors."""
    for key, reason in model.not_honoured.items():
        schema.setdefault("properties", {})[key] = {"description": f"Compose's; {reason}."}
    schema["patternProperties"] = {"^x-": {}}
    for entry in schema.get("properties", {}).values():
        entry.pop("title", None)
        entry.pop("default", None)


class Model(BaseModel):
    """A mapping in the file; a key without a value counts as not given."""

    model_config = ConfigDict(extra="forbid", json_schema_extra=_extras)
    not_honoured: ClassVar[Mapping[str, str]] = {}

    @model_validator(mode="before")
    @classmethod
    def _known(cls, data: Any, info: ValidationInfo) -> Any:
        if not isinstance(data, MapNode):
            raise unfit(data, "a mapping with keys such as " + ", ".join(list(cls.model_fields)[:3]))
        context: Any = info.context
        report: Report = context["report"]
        known, fields = {}, cls.model_fields
        for key, node in data.items():
            if key in fields:
                if not (isinstance(node, Scalar) and node.is_null):
                    known[key] = node
            elif key in cls.not_honoured:
                path = field_path((*data.path, key))
                report.warn(cls.not_honoured[key], mark=key_mark(data, key), path=path)
            elif not key.startswith("x-"):
                report.error(cls._unknown(data, key))
        return known

    @classmethod
    def _unknown(cls, data: MapNode, key: str) -> Problem:
        names = [*cls.model_fields, *cls.not_honoured]
        if _SYNONYMS.get(key) in names:
            near = [_SYNONYMS[key]]
        else:
            near = difflib.get_close_matches(key.lower(), names, 1)
        wanted = near[0] if near else "one of " + ", ".join(sorted(cls.model_fields))
        return Problem(
            mark=key_mark(data, key),
            path=field_path(data.path),
            found=f"the unknown key {quoted(key)}",
            wanted=wanted,
            hint=cls._remedy(key, data[key]),
        )

    @classmethod
    def _remedy(cls, _key: str, _value: Node) -> str | None:
        return None


def text_as(key: str) -> Callable[[Node], Node]:
    """For :class:`Also`: a text in place of a mapping is the value of its key ``key``."""

    def normalise(node: Node) -> Node:
        if isinstance(node, Scalar) and not node.is_null:
            return MapNode([(key, node)], node.mark, {key: node.mark}, path=node.path)
        return node

    return normalise
