"""Limits by control groups: which are found, and what they do to real processes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from unisono.node.cgroups import Cgroups
from unisono.spec.model import Resources

HERE = Cgroups.of_this_process()


def can_limit(controller: str) -> bool:
    """Whether this machine lets us make groups of a controller."""
    group = HERE.set_up(
        "unisono-test-probe", Resources(**{controller: 1 << 26 if controller == "memory" else 1})
    )
    group.remove()
    return bool(group.folders)


needs_memory = pytest.mark.skipif(not can_limit("memory"), reason="no memory control group can be made here")
needs_cpu = pytest.mark.skipif(not can_limit("cpus"), reason="no cpu control group can be made here")


@needs_memory
def test_a_process_over_its_memory_limit_is_killed_and_the_group_knows() -> None:
    """64 MiB of memory, 200 MiB wanted."""
    group = HERE.set_up("unisono-test-memory", Resources(memory=64 << 20))
    code = f"open({str(group.procs[0])!r}, 'w').write('0'); x = bytearray(200 << 20); print('lived')"
    try:
        result = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)

        assert (result.returncode, result.stdout) == (-9, b"")
        assert group.oom_killed()
    finally:
        assert group.remove()


@needs_cpu
def test_a_share_of_cpu_is_set_as_quota_of_its_period() -> None:
    """Half a CPU is 50 ms in each 100 ms."""
    group = HERE.set_up("unisono-test-cpu", Resources(cpus=0.5))
    try:
        (folder,) = group.folders
        if HERE.version["cpu"] == 1:
            found = (folder / "cpu.cfs_quota_us").read_text(), (folder / "cpu.cfs_period_us").read_text()
        else:
            quota, period = (folder / "cpu.max").read_text().split()
            found = f"{quota}\n", f"{period}\n"

        assert found == ("50000\n", "100000\n")
    finally:
        assert group.remove()


def test_without_control_groups_memory_falls_back_to_a_resource_limit() -> None:
    """RLIMIT_DATA bounds what a process can allocate; CPU can't be had, and that is said."""
    group = Cgroups().set_up("unisono-test", Resources(memory=64 << 20, cpus=2.0))
    process = subprocess.Popen(
        [sys.executable, "-c", "input(); x = bytearray(200 << 20)"], stdin=-1, stderr=-1
    )

    group.limit_data(process.pid)
    _, errors = process.communicate(b"\n")

    assert b"MemoryError" in errors
    assert group.warning.startswith("the limit of 2 CPUs is not applied")
    assert group.folders == ()


def test_version_2_is_found_where_its_controllers_are(tmp_path: Path) -> None:
    """The node's own group first, then those above it, as far as the mount."""
    own = tmp_path / "user.slice" / "node.service"
    own.mkdir(parents=True)
    (tmp_path / "cgroup.controllers").write_text("cpu memory pids\n")

    found = Cgroups.of_this_process(
        f"cgroup2 {tmp_path} cgroup2 rw,nosuid 0 0\n", "0::/user.slice/node.service\n"
    )

    assert found.version == {"cpu": 2, "memory": 2}
    assert found.parents["memory"] == (own, own.parent, tmp_path)


def test_version_2_controllers_are_switched_on_for_the_groups_below(tmp_path: Path) -> None:
    """A plain folder stands in for the kernel's: what is written is what the kernel would get."""
    (tmp_path / "cgroup.subtree_control").write_text("\n")
    cgroups = Cgroups({"memory": 2, "cpu": 2}, {"memory": (tmp_path,), "cpu": (tmp_path,)})

    group = cgroups.set_up("unisono-x", Resources(memory=1 << 26, cpus=1.5))

    assert group.folders == (tmp_path / "unisono-x",)
    assert (tmp_path / "unisono-x" / "memory.max").read_text() == str(1 << 26)
    assert (tmp_path / "unisono-x" / "cpu.max").read_text() == "150000 100000"
    assert (tmp_path / "cgroup.subtree_control").read_text() in {"+memory", "+cpu"}
