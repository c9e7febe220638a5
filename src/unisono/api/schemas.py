"""
What requests may say: schemas that refuse unknown fields, converted at once to what is inside.

A schema is derived from a dataclass, field by field, so that there is one truth; only strictness is added.
Nothing behind the API sees these types.
"""

from __future__ import annotations

import collections.abc
import dataclasses
import types
from collections.abc import Mapping
from functools import cache
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, create_model

T = TypeVar("T")

MAX_REPLICAS = 1000


@dataclasses.dataclass(frozen=True, kw_only=True)
class ScaleRequest:
    """How many instances a service should have."""

    replicas: Annotated[int, Field(ge=0, le=MAX_REPLICAS)]


@dataclasses.dataclass(frozen=True, kw_only=True)
class RestartRequest:
    """Which services to restart; none named means all."""

    services: tuple[str, ...] = ()


def read(kind: type[T], given: bytes | Mapping[str, Any]) -> T:
    """
    A dataclass of ``kind`` as a request gives it: as JSON, taken at its word, or as texts by name.

    Raises:
        pydantic.ValidationError: A field is unknown, missing or wrong, or they do not fit together.
    """
    key: Any = kind
    schema = strict(key)
    if isinstance(given, bytes):
        checked = schema.model_validate_json(given, strict=True)  # true is no number, and "3" neither
    else:
        checked = schema.model_validate(given)
    made: T = _inside(key).validate_python(checked.model_dump())
    return made


@cache
def strict(kind: Any) -> type[BaseModel]:
    """A schema with the fields of the dataclass ``kind`` that refuses all others, at every depth."""
    hints = get_type_hints(kind, include_extras=True)
    fields: dict[str, Any] = {}
    for field in dataclasses.fields(kind):
        default: Any = ...
        if field.default is not dataclasses.MISSING:
            default = field.default
        elif field.default_factory is not dataclasses.MISSING:
            default = Field(default_factory=field.default_factory)
        fields[field.name] = (_edge(hints[field.name]), default)
    return create_model(kind.__name__, __config__=ConfigDict(extra="forbid"), __doc__=kind.__doc__, **fields)


@cache
def _inside(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


def _edge(hint: Any) -> Any:
    """``hint`` with every dataclass in it replaced by its strict schema."""
    if dataclasses.is_dataclass(hint):
        return strict(hint)  # type: ignore[arg-type]
    origin = get_origin(hint)
    if origin is None or origin in (Literal, Annotated):
        return hint
    arguments = tuple(_edge(argument) for argument in get_args(hint))
    if origin in (Union, types.UnionType):
        return Union[arguments]  # noqa: UP007 - made at run time
    return (dict if origin is collections.abc.Mapping else origin)[arguments]
