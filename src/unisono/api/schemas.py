"""
What requests may say: schemas that refuse unknown fields, converted at once to what is inside.

The schema of an application is derived from the dataclasses of :mod:`unisono.spec.model`, field by
field, so that there is one truth; only strictness is added. Nothing behind the API sees these types.
"""

from __future__ import annotations

import collections.abc
import dataclasses
import types
from functools import cache
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, create_model

from unisono.spec.model import ApplicationSpec

_STRICT = ConfigDict(extra="forbid")

MAX_REPLICAS = 1000


class ScaleRequest(BaseModel):
    """How many instances a service should have."""

    model_config = _STRICT
    replicas: int = Field(ge=0, le=MAX_REPLICAS)


class RestartRequest(BaseModel):
    """Which services to restart; none named means all."""

    model_config = _STRICT
    services: list[str] = Field(default_factory=list)


@cache
def strict(kind: type[Any]) -> type[BaseModel]:
    """A schema with the fields of the dataclass ``kind`` that refuses all others, at every depth."""
    hints = get_type_hints(kind)
    fields: dict[str, Any] = {}
    for field in dataclasses.fields(kind):
        default: Any = ...
        if field.default is not dataclasses.MISSING:
            default = field.default
        elif field.default_factory is not dataclasses.MISSING:
            default = Field(default_factory=field.default_factory)
        fields[field.name] = (_edge(hints[field.name]), default)
    return create_model(kind.__name__, __config__=_STRICT, __doc__=kind.__doc__, **fields)


def application_of(body: BaseModel) -> ApplicationSpec:
    """
    The application that a checked body speaks of.

    Raises:
        pydantic.ValidationError: The fields fit each by itself, but not together.
    """
    return _SPEC.validate_python(body.model_dump())


def _edge(hint: Any) -> Any:
    """``hint`` with every dataclass in it replaced by its strict schema."""
    if dataclasses.is_dataclass(hint):
        return strict(hint)  # type: ignore[arg-type]
    origin = get_origin(hint)
    if origin is None or origin is Literal:
        return hint
    arguments = tuple(_edge(argument) for argument in get_args(hint))
    if origin in (Union, types.UnionType):
        return Union[arguments]  # noqa: UP007 - made at run time
    return (dict if origin is collections.abc.Mapping else origin)[arguments]


ApplicationBody = strict(ApplicationSpec)
_SPEC = TypeAdapter(ApplicationSpec)
