"""How files are laid on each other."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unisono.spec.errors import Report, Source
from unisono.spec.merge import merge, without_tags
from unisono.spec.nodes import Node, plain_data
from unisono.spec.source import parse


def node(text: str) -> Node:
    return parse(text, Source("f.yaml", Path()), Report())[0]


def web(*bodies: str) -> Any:
    """The service that such bodies give, laid on each other."""
    report = Report()
    tree = node(f"services: {{web: {bodies[0]}}}")
    for body in bodies[1:]:
        tree = merge(tree, node(f"services: {{web: {body}}}"), report)
    report.check()
    return plain_data(without_tags(tree))["services"]["web"]


@pytest.mark.parametrize(
    ("base", "over", "merged"),
    [
        ("{user: a}", "{user: b}", {"user": "b"}),
        ("{user: a}", "{user: }", {"user": "a"}),
        ("{deploy: {replicas: 1}}", "{deploy: {mode: x}}", {"deploy": {"replicas": 1, "mode": "x"}}),
        ("{expose: [1]}", "{expose: [2, 1]}", {"expose": [1, 2]}),
        ("{command: [a, b]}", "{command: [c]}", {"command": ["c"]}),
        ("{command: [a, b]}", "{command: c d}", {"command": "c d"}),
        ("{environment: [A=1, B=2]}", "{environment: {B: 3}}", {"environment": {"A": "1", "B": 3}}),
        ("{environment: {A: 1}}", "{environment: [A]}", {"environment": {"A": None}}),
        ("{env_file: a}", "{env_file: [b]}", {"env_file": ["a", "b"]}),
        (
            "{depends_on: [a]}",
            "{depends_on: {b: {required: false}}}",
            {"depends_on": {"a": None, "b": {"required": False}}},
        ),
        ("{build: .}", "{build: {target: x}}", {"build": {"context": ".", "target": "x"}}),
        ("{scale: 2}", "{scale: {max: 3}}", {"scale": {"max": 3}}),
        (
            "{healthcheck: {test: x, interval: 1s}}",
            "{healthcheck: {http: /y}}",
            {"healthcheck": {"interval": "1s", "http": "/y"}},
        ),
        ("{ports: [a], user: x}", "{ports: !reset []}", {"user": "x"}),
        ("{ports: [a]}", "{ports: !override [b]}", {"ports": ["b"]}),
        ("{environment: {A: 1, B: 2}}", "{environment: {A: !reset null}}", {"environment": {"B": 2}}),
    ],
)
def test_two_services_become_one_by_composes_rules(base: str, over: str, merged: Any) -> None:
    """Each rule of the reference."""
    assert merged == web(base, over)


def test_what_does_not_go_together_is_an_error_with_both_places() -> None:
    """A list can't be laid on a mapping."""
    report = Report()
    merge(node("services: {web: {deploy: {}}}"), node("services: {web: {deploy: [x]}}"), report)
    (problem,) = report.problems

    assert "f.yaml:1:26 services.web.deploy: found a list, want an empty mapping, as in f.yaml:1:26" == str(
        problem
    )


SCALARS = st.integers(0, 3).map(str)
BODIES = st.fixed_dictionaries(
    {},
    optional={
        "user": SCALARS,
        "command": st.lists(SCALARS, max_size=2),
        "expose": st.lists(SCALARS, max_size=3, unique=True),
        "environment": st.dictionaries(st.sampled_from("ABC"), SCALARS)
        | st.lists(SCALARS.map(lambda v: f"A={v}")),
        "env_file": SCALARS | st.lists(SCALARS, max_size=3, unique=True),
        "depends_on": st.lists(st.sampled_from("abc"), max_size=2),
        "deploy": st.dictionaries(st.sampled_from(["replicas", "mode"]), SCALARS),
    },
)


SPELLED = {"environment", "depends_on", "env_file"}


@given(BODIES, BODIES, BODIES)
def test_it_does_not_matter_which_files_are_merged_first(a: Any, b: Any, c: Any) -> None:
    """Merging is associative, so a stack of files has one meaning."""
    trees = [node(json.dumps({"services": {"web": body}})) for body in (a, b, c)]
    report = Report()
    left = merge(merge(trees[0], trees[1], report), trees[2], report)
    right = merge(trees[0], merge(trees[1], trees[2], report), report)

    assert plain_data(left) == plain_data(right)


@given(BODIES, BODIES)
def test_a_file_laid_on_twice_changes_nothing_more(a: Any, b: Any) -> None:
    """Merging is idempotent; what has two spellings begins in the longer one here."""
    report = Report()
    a = {
        "environment": {},
        "depends_on": {},
        "env_file": [],
        **{k: v for k, v in a.items() if k not in SPELLED},
    }
    base, over = (node(json.dumps({"services": {"web": body}})) for body in (a, b))
    once = merge(base, over, report)

    assert plain_data(once) == plain_data(merge(once, over, report))
