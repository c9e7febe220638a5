"""The schema for editors, and the pages written from it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jsonschema
import pytest

from unisono.spec import compose, reference
from unisono.spec.errors import Report, Source
from unisono.spec.load import json_schema
from unisono.spec.nodes import plain_data
from unisono.spec.schema import Service
from unisono.spec.source import parse

ROOT = Path(__file__).parents[2]
VALIDATOR = jsonschema.Draft202012Validator(json_schema())


def test_it_is_a_json_schema() -> None:
    """Of draft 2020-12."""
    jsonschema.Draft202012Validator.check_schema(json_schema())

    assert "https://json-schema.org/draft/2020-12/schema" == json_schema()["$schema"]


@pytest.mark.parametrize("name", ["blog", "queue"])
def test_a_compose_file_is_valid(name: str) -> None:
    """With keys that have no effect."""
    text = (Path(__file__).parent / "compose" / f"{name}.yaml").read_text()
    (tree,) = parse(text, Source(name, Path()), Report())

    assert [] == [error.message for error in VALIDATOR.iter_errors(plain_data(tree))]


EXAMPLE: dict[str, Any] = {
    "command": "uvicorn shop.orders:app --port {port}",
    "concurrency": "auto",
    "healthcheck": {"http": "/healthz", "interval": "500ms"},
    "scale": {"min": 1, "max": 8, "wait": {"p": 0.99, "below": "20ms"}},
    "depends_on": ["payments"],
    "routes": [{"path": "/orders"}],
    "retries": {"attempts": 3, "budget": "20%"},
    "timeout": "2s",
    "priority": "balanced",
    "deploy": {"replicas": "${N:-1}", "resources": {"limits": {"cpus": "0.5", "memory": "512m"}}},
}


def test_our_own_words_are_valid() -> None:
    """The example of the design."""
    assert [] == [error.message for error in VALIDATOR.iter_errors({"services": {"orders": EXAMPLE}})]


@pytest.mark.parametrize(
    "change",
    [
        {"comand": "x"},
        {"timeout": 10},
        {"scale": -1},
        {"healthcheck": {"http": "ready"}},
        {"priority": "high"},
        {"depends_on": {"a": {"condition": "ready"}}},
    ],
)
def test_what_the_loader_refuses_an_editor_marks(change: dict[str, Any]) -> None:
    """As far as a schema can say it."""
    assert [] != list(VALIDATOR.iter_errors({"services": {"orders": {**EXAMPLE, **change}}}))


def test_every_field_is_described() -> None:
    """An editor shows it."""
    definitions = json_schema()["$defs"]

    assert [] == [
        f"{name}.{key}"
        for name, definition in definitions.items()
        for key, field in definition.get("properties", {}).items()
        if not field.get("description")
    ]


def test_no_key_is_both_honoured_and_not() -> None:
    """The two tables do not overlap."""
    assert set() == set(Service.model_fields) & set(compose.SERVICE)


def test_the_reference_is_fresh() -> None:
    """Else: python -m unisono.spec.reference docs/reference"""
    page = (ROOT / "docs" / "reference" / "file.md").read_text(encoding="utf-8")

    assert page == reference.with_fields(page)


def test_the_schema_file_is_fresh() -> None:
    """Else: python -m unisono.spec.reference docs/reference"""
    assert reference.schema_text() == (ROOT / "docs" / "reference" / "unisono.schema.json").read_text(
        encoding="utf-8"
    )
