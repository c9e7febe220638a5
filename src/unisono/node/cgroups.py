"""
Limits of CPU and memory for an instance, by the means that this machine has.

Control groups of version 2 or 1, whichever has the controller; else a resource limit for memory; what
can't be granted at all is said in words. A group is made beside the node's own, so that a limit set on
all of unisono covers its instances too.

Sources: cgroups(7), Documentation/admin-guide/cgroup-v2.rst and cgroup-v1/ of Linux, prlimit(2).
"""

from __future__ import annotations

import resource
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from unisono.spec.model import Resources

_PERIOD_US = 100_000  # over which a share of CPU is counted; the kernel's own default
_QUOTA_US_MIN = 1_000


@dataclass(frozen=True)
class Group:
    """
    What was set up for one instance.

    A process comes under the limits by being written into each of ``procs``; where there are none,
    ``data_limit`` (bytes) is to be set on it.
    """

    folders: tuple[Path, ...] = ()
    data_limit: int | None = None
    warning: str = ""

    @property
    def procs(self) -> list[Path]:
        """The files that take a pid."""
        return [folder / "cgroup.procs" for folder in self.folders]

    def oom_killed(self) -> bool:
        """Whether the kernel has killed in this group for want of memory."""
        return _oom_kills(self.folders) > 0

    def limit_data(self, pid: int) -> None:
        """Set the resource limit that takes the place of a group, if one does."""
        if self.data_limit is not None:
            with suppress(OSError):  # it has ended already
                resource.prlimit(pid, resource.RLIMIT_DATA, (self.data_limit, self.data_limit))

    def remove(self) -> bool:
        """Remove the groups; ``False`` while processes are still in them."""
        gone = True
        for folder in self.folders:
            try:
                folder.rmdir()
            except FileNotFoundError:
                continue
            except OSError:
                gone = False
        return gone


@dataclass(frozen=True)
class Cgroups:
    """Where this process may make control groups, by controller, likeliest place first."""

    version: dict[str, int] = field(default_factory=dict)
    parents: dict[str, tuple[Path, ...]] = field(default_factory=dict)

    @classmethod
    def of_this_process(cls, mounts: str | None = None, own: str | None = None) -> Cgroups:
        """
        What the machine has; the two texts are those of /proc/self/mounts and /proc/self/cgroup.

        A controller belongs to one version at a time, so whichever offers it is the one to use.
        """
        mounts = _read(Path("/proc/self/mounts")) if mounts is None else mounts
        own = _read(Path("/proc/self/cgroup")) if own is None else own
        version: dict[str, int] = {}
        parents: dict[str, tuple[Path, ...]] = {}
        for line in mounts.splitlines():
            _, folder, kind, options, *_ = line.split(" ")
            mount = Path(folder.replace("\\040", " "))
            for controller in ("cpu", "memory"):
                if kind == "cgroup" and controller in options.split(","):
                    path = _own_path(own, controller)
                    found: tuple[Path, ...] = (mount / path, mount)
                    version[controller] = 1
                elif kind == "cgroup2" and controller in _read(mount / "cgroup.controllers").split():
                    path = _own_path(own, "")
                    found = (mount / path, *(p for p in (mount / path).parents if p.is_relative_to(mount)))
                    version[controller] = 2
                else:
                    continue
                parents[controller] = tuple(dict.fromkeys(p for p in found if p.is_dir()))
        return cls(version, parents)

    def set_up(self, name: str, limits: Resources) -> Group:
        """
        Make groups called ``name`` that hold an instance to its limits.

        Never fails: what can't be granted is in the group's ``warning``.
        """
        folders: list[Path] = []
        warnings: list[str] = []
        data_limit = None
        if limits.memory is not None:
            folder = self._group("memory", name)
            if folder and self._limit_memory(folder, limits.memory):
                folders.append(folder)
            else:
                data_limit = limits.memory
        if limits.cpus is not None:
            folder = self._group("cpu", name)
            if folder and self._limit_cpu(folder, limits.cpus):
                folders.append(folder)
            else:
                warnings.append(
                    f"the limit of {limits.cpus:g} CPUs is not applied: "
                    "this machine lets the node make no cpu control group"
                )
        chosen = tuple(dict.fromkeys(folders))
        return Group(chosen, data_limit, "; ".join(warnings))

    def find(self, name: str) -> Group:
        """The groups of this name that are there already, for an instance that was found running."""
        found = (parent / name for parents in self.parents.values() for parent in parents)
        folders = tuple(dict.fromkeys(folder for folder in found if folder.is_dir()))
        return Group(folders)

    def remove_empty(self, prefix: str) -> None:
        """Remove all groups whose names begin so and that hold no process."""
        for parent in {parent for parents in self.parents.values() for parent in parents}:
            for folder in parent.glob(f"{prefix}*"):
                with suppress(OSError):  # it holds processes
                    folder.rmdir()

    def _group(self, controller: str, name: str) -> Path | None:
        for parent in self.parents.get(controller, ()):
            folder = parent / name
            try:
                if self.version[controller] == 2 and controller not in _enabled(parent):
                    (parent / "cgroup.subtree_control").write_text(f"+{controller}")
                folder.mkdir(exist_ok=True)
            except OSError:
                continue  # not ours to change, or it holds processes itself (version 2): try further up
            return folder
        return None

    def _limit_memory(self, folder: Path, limit: int) -> bool:
        if self.version["memory"] == 1:
            return _write(folder / "memory.limit_in_bytes", str(limit))
        # When one process of an instance is killed for want of memory, what is left of it is of no use.
        _write(folder / "memory.oom.group", "1")
        return _write(folder / "memory.max", str(limit))

    def _limit_cpu(self, folder: Path, cpus: float) -> bool:
        quota = max(_QUOTA_US_MIN, int(cpus * _PERIOD_US))
        if self.version["cpu"] == 1:
            return _write(folder / "cpu.cfs_period_us", str(_PERIOD_US)) and _write(
                folder / "cpu.cfs_quota_us", str(quota)
            )
        return _write(folder / "cpu.max", f"{quota} {_PERIOD_US}")


def _own_path(own: str, controller: str) -> str:
    """Our group's path in the hierarchy of a controller ("" for version 2), relative to its mount."""
    for line in own.splitlines():
        _, controllers, path = line.split(":", 2)
        if controller in controllers.split(","):
            return path.lstrip("/")
    return ""


def _enabled(parent: Path) -> list[str]:
    return _read(parent / "cgroup.subtree_control").split()


def _oom_kills(folders: Sequence[Path]) -> int:
    total = 0
    for folder in folders:
        text = _read(folder / "memory.events") or _read(folder / "memory.oom_control")
        for line in text.splitlines():
            name, _, value = line.partition(" ")
            if name == "oom_kill" and value.isdecimal():
                total += int(value)
    return total


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


def _write(path: Path, text: str) -> bool:
    try:
        path.write_text(text)
    except OSError:
        return False
    return True
