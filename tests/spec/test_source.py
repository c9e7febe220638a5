"""From YAML to nodes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from unisono.spec.errors import Report, Source, SpecError
from unisono.spec.nodes import MapNode, Node, key_mark, plain_data
from unisono.spec.source import parse

SOURCE = Source("f.yaml", Path())


def tree(text: str) -> Node:
    return parse(text, SOURCE, Report())[0]


def error(text: str) -> str:
    with pytest.raises(SpecError) as caught:
        parse(text, SOURCE, Report())
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("22:22", "22:22"),
        ("on", "on"),
        ("no", "no"),
        ("yes", "yes"),
        ("true", True),
        ("~", None),
        ("'true'", "true"),
        ("8000", 8000),
        ("0o14", 12),
        ("0x1F", 31),
        ("1.5", 1.5),
        ("1e3", 1000.0),
        ("1_000", "1_000"),
        ("2024-01-01", "2024-01-01"),
        ("!!str 8000", "8000"),
        ("=", "="),
    ],
)
def test_values_are_those_of_yaml_1_2(text: str, value: Any) -> None:
    """What YAML 1.1 makes numbers and truth of stays text."""
    assert {"key": value} == plain_data(tree(f"key: {text}"))


def test_every_key_and_value_knows_its_place() -> None:
    """Lines and columns count from 1."""
    root = tree("services:\n  web:\n    scale: 3\n")
    assert isinstance(root, MapNode)
    web = root["services"]["web"]

    assert ("f.yaml:2:3", "f.yaml:3:12") == (str(key_mark(root["services"], "web")), str(web["scale"].mark))


def test_a_key_that_stands_twice_is_an_error_with_both_lines() -> None:
    """The last one does not win in silence."""
    message = 'f.yaml:3:1: the key "a" stands here and in line 1'

    assert message == error("a: 1\nb: 2\na: 3\n")


def test_a_merge_key_fills_in_what_the_mapping_lacks() -> None:
    """Own keys win, then earlier mappings over later ones."""
    text = "a: &a {x: 1, y: 1}\nb: &b {y: 2, z: 2}\nc:\n  <<: [*a, *b]\n  x: 3\n"

    assert {"x": 3, "y": 1, "z": 2} == plain_data(tree(text)["c"])  # type: ignore[index, call-overload]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: &x [*x]", "f.yaml:1:8: the alias *x stands inside what it stands for"),
        ("b: *x", "f.yaml:1:4: found the alias *x, want one of the anchors above: none"),
        ("a: !!python/name:os.system x", "found the tag !!python/name:os.system, want none"),
        ("a: !thing x", "found the tag !thing, want none"),
        ("? [a]\n: b", "found a list or a mapping as a key, want a name"),
        ("a: 1\n<<: 2", "f.yaml:2:1: found no mapping behind <<"),
        ('a: "\\0"', "found a NUL"),
        ("a: 'x\nb: y", "f.yaml:2:5: is no YAML: found unexpected end of stream"),
        ("a: b: c", "f.yaml:1:5: is no YAML: mapping values are not allowed"),
        ("a: \x07", "f.yaml:1:4: found the character U+0007"),
    ],
)
def test_what_is_no_yaml_here_is_an_error_with_its_place(text: str, message: str) -> None:
    """One clear line for each."""
    assert message in error(text)


def test_nesting_has_a_limit() -> None:
    """A file of brackets is refused at the limit, not at the end of the stack."""
    assert "f.yaml:1:51: is nested too deep" in error("[" * 100_000)


def test_aliases_can_not_multiply_without_limit() -> None:
    """Parts are counted each time they are used, without making them."""
    text = "a0: &a0 [x, x]\n" + "".join(f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]\n" for i in range(1, 40))

    assert "more than 100,000 parts once aliases are followed" in error(text)


def test_aliases_can_not_nest_without_limit() -> None:
    """Depth counts through aliases."""
    text = "a0: &a0 [x]\n" + "".join(f"a{i}: &a{i} [*a{i - 1}]\n" for i in range(1, 200))

    assert "nested too deep once aliases are followed" in error(text)


def test_several_documents_are_several_trees() -> None:
    """Anchors do not reach from one into the next."""
    documents = parse("a: &x 1\n---\nb: 2\n", SOURCE, Report())

    assert [{"a": 1}, {"b": 2}] == [plain_data(document) for document in documents]
