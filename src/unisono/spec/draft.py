"""
A service between the file and the spec: what is written, where it is written, and where to complain.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from unisono.spec import schema
from unisono.spec.errors import Problem, Report, field_path
from unisono.spec.model import Condition
from unisono.spec.nodes import MapNode, Node, find
from unisono.spec.ports import Parsed

T = TypeVar("T")


@dataclass
class Draft:
    """A service on its way from the file: the model of what is written, and where it is written."""

    name: str
    written: schema.Service
    node: MapNode
    report: Report
    variables: Mapping[str, str]
    inherited: Mapping[str, str]
    needed: frozenset[Condition]  # what other services wait for in this one
    parsed_ports: list[Parsed] = field(default_factory=list)
    fixed_port: int | None = None  # at which its program listens, whatever it is told

    def at(self, *path: str | int) -> Node:
        """The node of a field, or the nearest one above it."""
        return find(self.node, path)

    def warn(self, message: str, *path: str | int) -> None:
        """A warning at a field."""
        node = self.at(*path)
        self.report.warn(message, mark=node.mark, path=field_path((*self.node.path, *path)))

    def error(self, message: str, *path: str | int, hint: str | None = None) -> None:
        """A problem at a field, in words."""
        node = self.at(*path)
        where = field_path((*self.node.path, *path))
        self.report.error(Problem(mark=node.mark, path=where, message=message, hint=hint))


def given_or(value: T | None, default: T) -> T:
    """What is written, or the default where nothing is."""
    return default if value is None else value
