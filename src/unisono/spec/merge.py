"""
How two trees become one: several ``-f`` files, an override file, ``extends``.

Mappings are merged key by key, lists are joined without doubles, anything else is replaced; what has
no value leaves the other as it is. ``_RULES`` holds the exceptions. ``!reset`` takes a value away,
``!override`` replaces it whole.

Source: https://docs.docker.com/reference/compose-file/merge/
"""

from __future__ import annotations

from collections.abc import Callable, Hashable

from unisono.spec.errors import FieldPath, Problem, Report, field_path
from unisono.spec.nodes import ListNode, MapNode, Node, Scalar, describe

_Merger = Callable[[Node, Node, Report, FieldPath], Node]

_PROBES = ("test", "http", "tcp", "command", "disable")


def merge(base: Node, over: Node, report: Report, path: FieldPath = ()) -> Node:
    """
    ``base`` with ``over`` laid on it; of two kinds that don't go together one is noted in ``report``.

    ``path`` is where both stand; it chooses the rule.
    """
    if over.tag is not None or base.tag == "reset":
        return over
    return _rule(path)(base, over, report, path)


def without_tags(node: Node) -> Node:
    """The tree with everything that was reset taken out, once all files are merged."""
    if isinstance(node, Scalar):
        return node
    if isinstance(node, ListNode):
        return ListNode([without_tags(item) for item in node if item.tag != "reset"], node.mark)
    entries = [(key, without_tags(child)) for key, child in node.items() if child.tag != "reset"]
    return MapNode(entries, node.mark, node.keys_at)


def _rule(path: FieldPath) -> _Merger:
    if len(path) > 2 and path[0] == "services":
        for rule, merger in _RULES.items():
            if len(rule) == len(path) - 2 and all(r in ("*", p) for r, p in zip(rule, path[2:], strict=True)):
                return merger
    return _merge_plain


def _merge_plain(base: Node, over: Node, report: Report, path: FieldPath) -> Node:
    if _is_null(over):
        return base
    if _is_null(base):
        return over
    if isinstance(base, MapNode) and isinstance(over, MapNode):
        return _merge_maps(base, over, report, path)
    if isinstance(base, ListNode) and isinstance(over, ListNode):
        return ListNode(_unique([*base, *over]), over.mark)
    if isinstance(base, Scalar) and isinstance(over, Scalar):
        return over
    report.error(
        Problem(
            mark=over.mark,
            path=field_path(path),
            found=describe(over),
            wanted=f"{describe(base)}, as in {base.mark}",
            hint="write !override before the value to replace all of it",
        )
    )
    return over


def _merge_maps(base: MapNode, over: MapNode, report: Report, path: FieldPath) -> MapNode:
    entries = dict(base)
    for key, node in over.items():
        known = entries.get(key)
        if known is None or key.startswith("x-"):
            entries[key] = node
        else:
            entries[key] = merge(known, node, report, (*path, key))
    return MapNode(entries.items(), over.mark, {**base.keys_at, **over.keys_at})


def _is_null(node: Node) -> bool:
    return isinstance(node, Scalar) and node.is_null


def _unique(items: list[Node]) -> list[Node]:
    kept: dict[Hashable, Node] = {}
    for item in items:
        kept.setdefault(_identity(item), item)
    return list(kept.values())


def _identity(node: Node) -> Hashable:
    if isinstance(node, Scalar):
        return node.text
    if isinstance(node, MapNode):
        return frozenset((key, _identity(child)) for key, child in node.items())
    return tuple(_identity(item) for item in node)


def _replace(_base: Node, over: Node, _report: Report, _path: FieldPath) -> Node:
    return over


def _replace_unless_maps(base: Node, over: Node, report: Report, path: FieldPath) -> Node:
    both = isinstance(base, MapNode) and isinstance(over, MapNode)
    return _merge_plain(base, over, report, path) if both else over


def _as_lists(base: Node, over: Node, report: Report, path: FieldPath) -> Node:
    """For what may be one text or a list of them."""
    wrapped = [
        node if isinstance(node, ListNode) or _is_null(node) else ListNode([node], node.mark)
        for node in (base, over)
    ]
    return _merge_plain(wrapped[0], wrapped[1], report, path)


def _as_maps(base: Node, over: Node, report: Report, path: FieldPath) -> Node:
    """For what may be a mapping or a list of ``name=value``; a bare name has no value, and that counts."""
    first, second = _keyed(base), _keyed(over)
    if isinstance(first, MapNode) and isinstance(second, MapNode):
        entries = {**first, **second}
        return MapNode(entries.items(), second.mark, {**first.keys_at, **second.keys_at})
    return _merge_plain(first, second, report, path)


def _as_named(base: Node, over: Node, report: Report, path: FieldPath) -> Node:
    """For what may be a list of names or a mapping from them to settings."""
    return _merge_plain(_keyed(base), _keyed(over), report, path)


def _keyed(node: Node) -> Node:
    if not isinstance(node, ListNode) or not all(isinstance(item, Scalar) for item in node):
        return node
    entries: dict[str, Node] = {}
    keys_at = {}
    for item in node:
        name, equals, value = item.text.partition("=")
        entries[name] = Scalar(value, item.mark, plain=not equals, tag=item.tag)
        keys_at[name] = item.mark
    return MapNode(entries.items(), node.mark, keys_at)


def _as_build(base: Node, over: Node, report: Report, path: FieldPath) -> Node:
    def spelled_out(node: Node) -> Node:
        if not isinstance(node, Scalar) or node.is_null:
            return node
        return MapNode([("context", node)], node.mark, {"context": node.mark})

    return _merge_plain(spelled_out(base), spelled_out(over), report, path)


def _as_healthcheck(base: Node, over: Node, report: Report, path: FieldPath) -> Node:
    """Another kind of probe replaces the one below it; the timings are merged."""
    if isinstance(base, MapNode) and isinstance(over, MapNode) and any(kind in over for kind in _PROBES):
        kept = [(key, node) for key, node in base.items() if key not in _PROBES or key in over]
        base = MapNode(kept, base.mark, base.keys_at)
    return _merge_plain(base, over, report, path)


# What stands behind services.NAME
_RULES: dict[tuple[str, ...], _Merger] = {
    ("annotations",): _as_maps,
    ("build",): _as_build,
    ("build", "args"): _as_maps,
    ("build", "labels"): _as_maps,
    ("command",): _replace,
    ("concurrency",): _replace,
    ("depends_on",): _as_named,
    ("deploy", "labels"): _as_maps,
    ("deploy", "update_config", "release_command"): _replace,
    ("dns",): _as_lists,
    ("dns_search",): _as_lists,
    ("entrypoint",): _replace,
    ("env_file",): _as_lists,
    ("environment",): _as_maps,
    ("extra_hosts",): _as_maps,
    ("gpus",): _replace,
    ("healthcheck",): _as_healthcheck,
    ("healthcheck", "command"): _replace,
    ("healthcheck", "http"): _replace_unless_maps,
    ("healthcheck", "test"): _replace,
    ("label_file",): _as_lists,
    ("labels",): _as_maps,
    ("models",): _as_named,
    ("networks",): _as_named,
    ("scale",): _replace_unless_maps,
    ("sysctls",): _as_maps,
    ("tmpfs",): _as_lists,
    ("ulimits", "*"): _replace_unless_maps,
}
