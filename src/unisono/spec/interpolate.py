"""
``$VARIABLE`` in the values of a file, by Compose's rules.

========================  =====================================================
``$V`` ``${V}``           the value; not set: empty, with a warning
``${V:-x}`` ``${V-x}``    ``x`` if V is not set (``:`` also if it is empty)
``${V:?x}`` ``${V?x}``    an error that says ``x`` if V is not set (or empty)
``${V:+x}`` ``${V+x}``    ``x`` if V is set (and not empty), else nothing
``$$``                    one ``$``
========================  =====================================================

``x`` may hold variables itself; it is looked at only when it is used. Where the variables come from is
not here (:mod:`unisono.spec.dotenv`, :mod:`unisono.spec.layers`).

One variable is ours: where a program is told its port (command, entrypoint, environment and
healthcheck of a service) ``PORT`` is not the caller's but the instance's own, written ``{port}``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from unisono.spec.errors import FieldPath, Problem, Report, field_path
from unisono.spec.nodes import ListNode, MapNode, Node, Scalar, quoted

PORT = "{port}"
MAX_NESTING = 20
MAX_LENGTH = 64 * 1024  # characters of one value; a text of many variables grows by each of them

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_OPERATOR = re.compile(r":[-?+]|[-?+]")
_TOLD_ITS_PORT = frozenset({"command", "entrypoint", "environment", "healthcheck"})


class TemplateError(ValueError):
    """A text can't be interpolated; ``hint`` is the remedy."""

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint


def interpolate(
    text: str, variables: Mapping[str, str], missing: Callable[[str], None] = lambda _: None
) -> str:
    """
    ``text`` with its variables replaced; ``missing`` is called with the name of each that is not set.

    Raises:
        TemplateError: A ``$`` begins no variable, a brace is not closed, or a required variable is missing.
    """
    result, end = _Template(text, variables, missing).read(0, closed_by_brace=False, depth=0)
    assert end == len(text)  # noqa: S101 - only a closing brace ends earlier, and none was asked for
    return result


class _Template:
    """A text being read; positions are offsets in it."""

    def __init__(self, text: str, variables: Mapping[str, str], missing: Callable[[str], None]) -> None:
        self._text, self._variables, self._missing = text, variables, missing

    def read(self, at: int, *, closed_by_brace: bool, depth: int, used: bool = True) -> tuple[str, int]:
        """The text from ``at`` to the end, or to the brace that closes it; unused text is only skipped."""
        if depth > MAX_NESTING:
            raise TemplateError(f"variables are nested too deep, want at most {MAX_NESTING} levels")
        text, parts, length = self._text, [], 0
        while at < len(text):
            if closed_by_brace and text.startswith(PORT, at):
                part, at = PORT, at + len(PORT)  # ours, and no end of a default
            elif closed_by_brace and text[at] == "}":
                break
            elif text[at] == "$":
                part, at = self._variable(at + 1, depth, used=used)
            else:
                part, at = text[at], at + 1
            parts.append(part)
            length += len(part)
            if length > MAX_LENGTH:
                raise TemplateError(
                    f"is longer than {MAX_LENGTH:,} characters once its variables are replaced"
                )
        return "".join(parts), at

    def _variable(self, at: int, depth: int, *, used: bool) -> tuple[str, int]:
        text = self._text
        if text.startswith("$", at):
            return "$", at + 1
        braced = text.startswith("{", at)
        name = _NAME.match(text, at + 1 if braced else at)
        if name is None:
            shown = quoted(text[at - 1 : at + 12])
            raise TemplateError(
                f"found {shown}, want a variable behind the $", "a plain dollar sign is written $$"
            )
        if not braced:
            return self._plain(name[0], used=used), name.end()
        if text.startswith("}", name.end()):
            return self._plain(name[0], used=used), name.end() + 1
        operator = _OPERATOR.match(text, name.end())
        if operator is None:
            rest = quoted(text[name.end() : name.end() + 12])
            raise TemplateError(f"found {rest} behind ${{{name[0]}, want }} or one of :- - :? ? :+ +")
        return self._operate(name[0], operator[0], operator.end(), depth, used=used)

    def _plain(self, name: str, *, used: bool) -> str:
        if used and name not in self._variables:
            self._missing(name)
        return self._variables.get(name, "")

    def _operate(self, name: str, operator: str, at: int, depth: int, *, used: bool) -> tuple[str, int]:
        value = self._variables.get(name)
        is_set = bool(value) if operator.startswith(":") else value is not None
        kind = operator[-1]
        word_used = used and (is_set if kind == "+" else not is_set)
        word, end = self.read(at, closed_by_brace=True, depth=depth + 1, used=word_used)
        if end >= len(self._text):
            raise TemplateError(f"found no }} that closes ${{{name}{operator}")
        if kind == "?" and word_used:
            reason = word or ("is empty or not set" if operator == ":?" else "is not set")
            raise TemplateError(
                f"the variable {name} is required: {reason}", f"set {name}, or write it into .env"
            )
        if kind == "+":
            return (word if is_set else ""), end + 1
        return (value or "" if is_set else word), end + 1


def interpolated(root: Node, variables: Mapping[str, str], report: Report) -> Node:
    """
    The tree with the variables in all its values replaced; keys and ``x-`` parts stay as they are.

    What can't be replaced is noted in ``report``.
    """
    told = {**variables, "PORT": PORT}

    def walk(node: Node, path: FieldPath) -> Node:
        if isinstance(node, Scalar):
            return replaced(node, path) if "$" in node.text else node
        if isinstance(node, ListNode):
            items = [walk(item, (*path, index)) for index, item in enumerate(node)]
            return ListNode(items, node.mark, tag=node.tag)
        entries = [
            (key, child if key.startswith("x-") and len(path) in (0, 2) else walk(child, (*path, key)))
            for key, child in node.items()
        ]
        return MapNode(entries, node.mark, node.keys_at, tag=node.tag)

    def replaced(node: Scalar, path: FieldPath) -> Scalar:
        def missing(name: str) -> None:
            report.warn(
                f"the variable {name} is not set, so it is empty here", mark=node.mark, path=field_path(path)
            )

        of_program = len(path) > 2 and path[0] == "services" and path[2] in _TOLD_ITS_PORT
        try:
            text = interpolate(node.text, told if of_program else variables, missing)
        except TemplateError as error:
            report.error(Problem(mark=node.mark, path=field_path(path), message=str(error), hint=error.hint))
            return node
        # A replaced value is text: what is empty now must not turn into "no value".
        return Scalar(text, node.mark, False, node.tag)

    return walk(root, ())
