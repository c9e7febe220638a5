"""
The API's description for programs: OpenAPI 3.1, made of the operations' signatures when it is asked for.

The schemas are pydantic's; here they are only put where OpenAPI wants them.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Iterable
from typing import Any

from pydantic import TypeAdapter

from unisono import __version__
from unisono.api import problems, schemas
from unisono.api.operations import Operation, adapter

_PROBLEM = {
    "description": "A problem (RFC 9457); nothing was changed unless it says so.",
    "content": {problems.MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
}


def document(operations: Iterable[Operation]) -> dict[str, Any]:
    """The whole description."""
    listed = list(operations)
    kinds: dict[tuple[str, str], TypeAdapter[Any]] = {}
    for operation in listed:
        if "body" in operation.types:
            kinds[_name(operation, "body"), "validation"] = TypeAdapter(
                schemas.strict(operation.types["body"])
            )
        if _has_view(operation):
            kinds[_name(operation, "return"), "serialization"] = adapter(operation.types["return"])
    made, defined = TypeAdapter.json_schemas(
        [(name, mode, kind) for (name, mode), kind in kinds.items()],  # type: ignore[misc]
        ref_template="#/components/schemas/{model}",
    )
    paths: dict[str, dict[str, Any]] = {}
    for operation in listed:
        parts = {name: schema for (name, _), schema in made.items()}
        paths.setdefault(operation.path.replace(":path}", "}"), {})[operation.method.lower()] = _described(
            operation, parts
        )
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "unisono",
            "summary": "The API of a node: what should run, what does, and what happened.",
            "version": __version__,
        },
        "paths": paths,
        "components": {"schemas": {**defined.get("$defs", {}), "Problem": problems.SCHEMA}},
    }


def _described(operation: Operation, parts: dict[str, Any]) -> dict[str, Any]:
    text = inspect.cleandoc(operation.handler.__doc__ or "")
    content: dict[str, Any] = {}
    if _has_view(operation):
        content = {"schema": parts[_name(operation, "return")]}
    described: dict[str, Any] = {
        "operationId": _identity(operation),
        "summary": text.partition("\n")[0],
        "description": text,
        "tags": [operation.handler.__module__.rpartition(".")[2]],
        "parameters": [*_path_parameters(operation), *_query_parameters(operation)],
        "responses": {
            str(int(operation.status)): {
                "description": operation.status.phrase,
                "content": {operation.media_type: content},
            },
            "4XX": _PROBLEM,
            "5XX": _PROBLEM,
        },
    }
    if "body" in operation.types:
        described["requestBody"] = {
            "required": True,
            "content": {"application/json": {"schema": parts[_name(operation, "body")]}},
        }
    return described


def _path_parameters(operation: Operation) -> list[dict[str, Any]]:
    names = re.findall(r"{(\w+)", operation.path)
    return [{"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in names]


def _query_parameters(operation: Operation) -> list[dict[str, Any]]:
    kind = operation.types.get("query")
    if kind is None:
        return []
    properties = schemas.strict(kind).model_json_schema()["properties"]
    required = {field.name for field in dataclasses.fields(kind) if field.default is dataclasses.MISSING}
    return [
        {
            "name": name,
            "in": "query",
            "required": name in required,
            "description": schema.get("description", ""),
            "schema": {key: value for key, value in schema.items() if key not in ("description", "title")},
        }
        for name, schema in properties.items()
    ]


def _has_view(operation: Operation) -> bool:
    return dataclasses.is_dataclass(operation.types["return"])


def _identity(operation: Operation) -> str:
    return operation.handler.__name__


def _name(operation: Operation, part: str) -> str:
    return f"{_identity(operation)}.{part}"
