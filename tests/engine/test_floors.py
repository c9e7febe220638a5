"""Who knows whom in the engine's source: one way only, as the import contracts have it for Python."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

SOURCE = Path(__file__).parent.parent.parent / "engine" / "src"

PAIR = {"proxy::backend", "proxy::place"}
"""What is given back, and who gave it."""


@cache
def modules() -> dict[str, str]:
    """Each module's text by its path, without its tests and comments; the crate's own is ""."""
    found = {}
    for file in SOURCE.rglob("*.rs"):
        if file.stem.endswith(("tests", "properties", "words")):
            continue
        parts = [*file.relative_to(SOURCE).parts[:-1], file.stem]
        text = re.sub(r"//.*", "", file.read_text()).partition("#[cfg(test)]\nmod tests")[0]
        found["::".join(part for part in parts if part not in ("mod", "lib"))] = text
    return found


def expanded(use: str) -> Iterator[str]:
    """The paths of a ``use``, its braces resolved."""
    before, brace, inside = use.partition("{")
    if not brace:
        yield use
        return
    for part in re.findall(r"(?:[^,{}]|\{[^{}]*\})+", inside.rpartition("}")[0]):
        yield from expanded(before + part.strip())


def known_to(module: str) -> set[str]:
    """The other modules that ``module`` names."""
    text = re.sub(r"\s+", " ", modules()[module])
    paths = [path for use in re.findall(r"\buse ([^;]+);", text) for path in expanded(use)]
    paths += re.findall(r"\b(?:crate|super)(?:::\w+)+", re.sub(r"\buse [^;]+;", "", text))
    found = set()
    for path in paths:
        first, *rest = path.split(" as ")[0].split("::")
        if first not in ("crate", "super"):
            continue
        words = rest if first == "crate" else [*module.split("::")[:-1], *rest]
        for length in range(len(words), 0, -1):
            if (name := "::".join(words[:length])) in modules():
                found.add(name)
                break
    return found - {module}


def circle(graph: dict[str, set[str]]) -> list[str]:
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def test_no_two_modules_know_each_other() -> None:
    """Directly or by way of others; a request's place and the service that gave it do."""
    graph = {module: known_to(module) for module in modules()}
    assert graph["proxy::place"] & PAIR == {"proxy::backend"}
    graph["proxy::place"] -= PAIR

    assert circle(graph) == []


def test_no_two_rooms_know_each_other() -> None:
    """A room is a folder, or a file beside them."""
    graph: dict[str, set[str]] = {}
    for module in modules():
        room = module.split("::")[0]
        graph.setdefault(room, set()).update({name.split("::")[0] for name in known_to(module)} - {room})

    assert circle(graph) == []


def test_a_part_of_the_proxy_knows_its_own_floor_and_those_below() -> None:
    """The floors are those of proxy/mod.rs, the uppermost first."""
    text = (SOURCE / "proxy" / "mod.rs").read_text()
    floors = [re.findall(r"pub mod (\w+);", block) for block in text.split("\n// ")[1:]]
    floor_of = {f"proxy::{part}": number for number, parts in enumerate(floors) for part in parts}

    upwards = [
        (part, other)
        for part, number in floor_of.items()
        for other in known_to(part)
        if floor_of.get(other, number) < number
    ]

    assert len(floor_of) == sum(module.startswith("proxy::") for module in modules())
    assert upwards == []
