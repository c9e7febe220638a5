"""
From files to one tree: finding them, their variables, ``extends``, ``include``, and laying them on
each other.

The order is Compose's: in each file variables are replaced, then ``extends`` is followed; then the files
are merged; then ``include`` adds what other files bring. What the tree means is not here.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from unisono.spec.dotenv import EnvFileError, parse_env
from unisono.spec.errors import Mark, Problem, Report, Source
from unisono.spec.interpolate import interpolated
from unisono.spec.merge import merge, without_tags
from unisono.spec.nodes import ListNode, MapNode, Node, Scalar, describe, located, problem, quoted
from unisono.spec.source import parse, read_text

MAX_FILES = 100
MAX_EXTENDS = 30

OWN_FILES = ("unisono.yaml", "unisono.yml")
COMPOSE_FILES = ("compose.yaml", "compose.yml", "docker-compose.yaml", "docker-compose.yml")
_OVERRIDES = (
    "compose.override.yaml",
    "compose.override.yml",
    "docker-compose.override.yaml",
    "docker-compose.override.yml",
)


def default_files(folder: Path, report: Report) -> tuple[Path, ...]:
    """
    The file of services in ``folder`` or the nearest one above, with Compose's override file.

    Raises:
        SpecError: There is none.
    """
    for place in (folder, *folder.parents):
        found = [place / name for name in (*OWN_FILES, *COMPOSE_FILES) if _is_there(place / name)]
        if not found:
            continue
        if len(found) > 1:
            others = ", ".join(path.name for path in found[1:])
            report.warn(f"{found[0].name} is used; {others} beside it is not")
        overrides = [place / name for name in _OVERRIDES if _is_there(place / name)]
        return (found[0], *overrides[:1]) if found[0].name in COMPOSE_FILES else (found[0],)
    raise report.fail(
        Problem(
            message=f"found no file of services in {folder} or above it, want {OWN_FILES[0]}",
            hint="write one, or name one with -f",
        )
    )


def _is_there(path: Path) -> bool:
    try:
        return path.exists() or path.is_symlink()
    except OSError:
        return False


def variables_for(
    folder: Path, environ: Mapping[str, str], env_files: Sequence[Path], report: Report
) -> dict[str, str]:
    """
    What ``$VARIABLE`` means: the environment wins over the files, later files over earlier ones.

    Without ``env_files`` it is the ``.env`` in ``folder``, if there is one.

    Raises:
        SpecError: A file that was named is missing, or a file is wrong.
    """
    if not env_files:
        env_files = [folder / ".env"] if _is_there(folder / ".env") else []
    found: dict[str, str] = {}
    for path in env_files:
        found.update(read_env(path, shown(path), {**found, **environ}, report))
    return {**found, **environ}


def read_env(
    path: Path,
    name: str,
    environ: Mapping[str, str],
    report: Report,
    *,
    raw: bool = False,
    at: Problem | None = None,
) -> dict[str, str]:
    """
    The variables in a file.

    Raises:
        SpecError: It can't be read, or a line is wrong.
    """
    text = read_text(path, name, report, at=at)
    try:
        return parse_env(text, environ, raw=raw)
    except EnvFileError as error:
        mark = Mark(Source(name, path.parent), error.line, 1)
        raise report.fail(Problem(mark=mark, message=str(error))) from error


def shown(path: Path) -> str:
    """A path as it is called in messages: short when it lies below the working directory."""
    try:
        return str(path.relative_to(Path.cwd())) if path.is_absolute() else str(path)
    except (ValueError, OSError):
        return str(path)


class Layers:
    """Reads files into one tree; remembers the chain of files it is in, so that no circle is endless."""

    def __init__(self, environ: Mapping[str, str], report: Report) -> None:
        self._environ = environ
        self._report = report
        self._trees: dict[tuple[str, Path, int], tuple[MapNode, Mapping[str, str]]] = {}
        self._services: dict[tuple[int, str], tuple[Node, MapNode]] = {}

    def read(
        self,
        files: Sequence[Path],
        folder: Path,
        variables: Mapping[str, str],
        *,
        at: Problem | None = None,
        chain: tuple[str, ...] = (),
    ) -> MapNode:
        """
        The tree of ``files`` laid on each other, with all that they include.

        ``folder`` is where their relative paths are meant from, ``at`` the place that asked for them and
        ``chain`` the files that led to that place.

        Raises:
            SpecError: A file can't be read or does not fit the others.
        """
        tree: Node | None = None
        for path in files:
            layer = self._read_file(path, folder, variables, at)
            layer = self._extended(layer, path, variables, ())
            tree = layer if tree is None else merge(tree, layer, self._report)
        if tree is None:
            raise self._report.fail(Problem(message="found no file, want at least one"))
        self._report.check()
        tree = without_tags(tree)
        assert isinstance(tree, MapNode)  # noqa: S101 - made of mappings, and a document has no tag
        return self._with_included(tree, (*chain, *(_identity(path) for path in files)))

    def _read_file(
        self, path: Path, folder: Path, variables: Mapping[str, str], at: Problem | None = None
    ) -> MapNode:
        """One file with its variables replaced; of several documents in it, later ones lie on top."""
        # The variables are kept beside the tree, so that their id is not given away again.
        known = (_identity(path), folder, id(variables))
        if known in self._trees:
            return self._trees[known][0]
        if len(self._trees) >= MAX_FILES:
            raise self._report.fail(Problem(message=f"more than {MAX_FILES} files belong together"))
        name = shown(path)
        source = Source(name, folder)
        documents = parse(read_text(path, name, self._report, at=at), source, self._report)
        tree: Node | None = None
        for document in documents:
            if isinstance(document, Scalar) and document.is_null:
                continue
            if not isinstance(document, MapNode):
                wanted = "a mapping with the key services"
                raise self._report.fail(Problem(mark=document.mark, found=describe(document), wanted=wanted))
            layer = interpolated(document, variables, self._report)
            tree = layer if tree is None else merge(tree, layer, self._report)
        self._report.check()
        if not isinstance(tree, MapNode):
            raise self._report.fail(
                Problem(
                    mark=Mark(source, 1, 1), found="an empty file", wanted="a mapping with the key services"
                )
            )
        self._trees[known] = (tree, variables)
        return tree

    def _extended(
        self, tree: MapNode, path: Path, variables: Mapping[str, str], chain: tuple[tuple[str, str], ...]
    ) -> MapNode:
        """The tree with each service laid on the one that it extends."""
        services = tree.get("services")
        if not isinstance(services, MapNode):
            return tree
        entries = [(name, self._resolved(services, name, path, variables, chain)) for name in services]
        changed = MapNode(entries, services.mark, services.keys_at, tag=services.tag)
        return MapNode({**tree, "services": changed}.items(), tree.mark, tree.keys_at, tag=tree.tag)

    def _resolved(
        self,
        services: MapNode,
        name: str,
        path: Path,
        variables: Mapping[str, str],
        chain: tuple[tuple[str, str], ...],
    ) -> Node:
        """One service of the file ``path``, laid on what it extends; ``chain`` is what led here."""
        service: Node = services[name]
        if not isinstance(service, MapNode) or "extends" not in service:
            return service
        if (id(services), name) in self._services:
            return self._services[id(services), name][0]
        link = (_identity(path), name)
        node = located(service["extends"], ("services", name, "extends"))
        if link in chain:
            circle = " → ".join(part for _, part in (*chain[chain.index(link) :], link))
            raise self._report.fail(problem(node, "no circle", found=f"{circle}, which extends itself"))
        if len(chain) >= MAX_EXTENDS:
            raise self._report.fail(
                problem(node, f"at most {MAX_EXTENDS}", found="a longer chain of extends")
            )
        wanted, file = self._wanted(node)
        base_services, base_path = services, path
        if file is not None:
            base_path = file.mark.source.folder / file.text
            base = self._read_file(base_path, base_path.parent, variables, at=problem(file, ""))
            found = base.get("services")
            base_services = found if isinstance(found, MapNode) else MapNode([], base.mark, {})
        if wanted.text not in base_services:
            known = ", ".join(base_services) or "none"
            raise self._report.fail(problem(wanted, f"one of the services of {shown(base_path)}: {known}"))
        below = self._resolved(base_services, wanted.text, base_path, variables, (*chain, link))
        own = MapNode(
            [(key, child) for key, child in service.items() if key != "extends"],
            service.mark,
            service.keys_at,
            tag=service.tag,
        )
        merged = merge(below, own, self._report, ("services", name))
        self._services[id(services), name] = (merged, services)
        return merged

    def _wanted(self, node: Node) -> tuple[Scalar, Scalar | None]:
        """The service that ``extends`` names, and its file if it is another one."""
        if isinstance(node, Scalar) and not node.is_null:
            return node, None
        if not isinstance(node, MapNode) or not isinstance(node.get("service"), Scalar):
            raise self._report.fail(problem(node, "the name of a service, or {service: NAME, file: PATH}"))
        unknown = next((key for key in node if key not in ("service", "file")), None)
        if unknown is not None:
            found = f"the unknown key {quoted(unknown)}"
            raise self._report.fail(problem(node, "service and file alone", found=found))
        file = node.get("file")
        if file is not None and (not isinstance(file, Scalar) or file.is_null or "\0" in file.text):
            raise self._report.fail(problem(file, "the path of a file"))
        return node["service"], file

    def _with_included(self, tree: MapNode, chain: tuple[str, ...]) -> MapNode:
        """The tree with the services of all files that it includes; a name may be taken only once."""
        node = tree.get("include")
        services = tree.get("services")
        if node is None or (isinstance(node, Scalar) and node.is_null):
            return tree
        if not isinstance(services, MapNode):
            services = MapNode([], tree.mark, {})
        entries, marks = dict(services), dict(services.keys_at)
        listed = located(node, ("include",))
        if not isinstance(listed, ListNode):
            raise self._report.fail(problem(listed, "a list of files"))
        for item in listed:
            included: Any = self._included(item, chain).get("services")
            for name, service in included.items() if isinstance(included, MapNode) else ():
                if name in entries and entries[name] != service:
                    message = f"the service {quoted(name)} of this file is also in {marks[name]}"
                    self._report.error(Problem(mark=item.mark, path="include", message=message))
                entries.setdefault(name, service)
                marks.setdefault(name, included.keys_at[name])
        self._report.check()
        rest = {key: child for key, child in tree.items() if key != "include"}
        rest["services"] = MapNode(entries.items(), services.mark, marks)
        return MapNode(rest.items(), tree.mark, tree.keys_at)

    def _included(self, item: Node, chain: tuple[str, ...]) -> MapNode:
        entry = (
            item if isinstance(item, MapNode) else MapNode([("path", item)], item.mark, {}, path=item.path)
        )
        unknown = next((key for key in entry if key not in ("path", "env_file", "project_directory")), None)
        if unknown is not None or "path" not in entry:
            found = f"the unknown key {quoted(unknown)}" if unknown is not None else None
            raise self._report.fail(problem(item, "path, env_file and project_directory", found=found))
        paths = self._paths(entry["path"])
        env_files = self._paths(entry["env_file"]) if "env_file" in entry else []
        for path in paths:
            if _identity(path) in chain:
                raise self._report.fail(
                    problem(item, "no circle", found=f"{shown(path)}, which includes itself")
                )
        folders = (
            self._paths(entry["project_directory"]) if "project_directory" in entry else [paths[0].parent]
        )
        variables = variables_for(folders[0], self._environ, env_files, self._report)
        return self.read(paths, folders[0], variables, at=problem(item, ""), chain=chain)

    def _paths(self, node: Node) -> list[Path]:
        paths = []
        for item in node if isinstance(node, ListNode) and node else [node]:
            if not isinstance(item, Scalar) or item.is_null:
                raise self._report.fail(problem(item, "a path, or a list of paths"))
            paths.append(item.mark.source.folder / item.text)
        return paths


def _identity(path: Path) -> str:
    try:
        return os.path.realpath(path)
    except (OSError, ValueError):
        return str(path)
