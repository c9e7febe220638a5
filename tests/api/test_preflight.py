"""What is found out before anything is written."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest

from tests.api.specs import application, service
from tests.node.test_sharing import known, view
from tests.ports import taken_port
from unisono.api import preflight
from unisono.api.problems import Problem
from unisono.control.snapshot import Snapshot
from unisono.spec.model import PublishedPort, Route
from unisono.spec.shared import Table

FREE = "127.0.0.1:1"


@pytest.fixture
def taken() -> Iterator[int]:
    with taken_port() as port:
        yield port


async def faults(listen: str = FREE, **fields: Any) -> Problem:
    with pytest.raises(Problem) as refused:
        await preflight.check(application(service(**fields)), Snapshot(), listen)
    return refused.value


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"command": ("no-such-command",)}, "no such command: no-such-command"),
        ({"command": ("/no/such/file",)}, "no such file: /no/such/file"),
        ({"working_dir": "/no/such/folder"}, "no such folder: /no/such/folder"),
        ({"user": "nobody-of-this-name"}, "no such user"),
    ],
)
async def test_what_cannot_start(fields: dict[str, Any], words: str) -> None:
    """What would keep an instance from starting is a fault of the file, named with its service."""
    problem = await faults(**fields)

    assert problem.status == 422
    assert words in problem.detail
    assert problem.errors[0]["field"] == "services.orders"


async def test_the_command_of_a_container_is_not_looked_for() -> None:
    """Compose files give images no more than flags: that containers are not built is what there is to say."""
    spec = application(service(driver="container", command=("--default-flag",)))

    await preflight.check(spec, Snapshot(), FREE)


async def test_published_port_in_use(taken: int) -> None:
    """A port that a foreign program holds is a conflict that names the port and the program."""
    problem = await faults(ports=(PublishedPort(port=taken),))

    assert problem.status == 409
    assert f"port {taken} is in use by" in problem.detail
    assert f"(pid {os.getpid()})" in problem.detail


async def test_fixed_port_in_use(taken: int) -> None:
    """The port that a program insists on must be free, too."""
    assert f"port {taken}" in (await faults(port=taken)).detail


async def test_public_address_in_use(taken: int) -> None:
    """A route needs the public address; the remedy is another one."""
    problem = await faults(listen=f"127.0.0.1:{taken}", routes=(Route(path="/"),))

    assert problem.status == 409
    assert "--listen" in problem.detail


async def test_every_fault_is_named(taken: int) -> None:
    """Several faults are told together, and what is wrong with the file weighs more."""
    problem = await faults(command=("no-such-command",), ports=(PublishedPort(port=taken),))

    assert problem.status == 422
    assert len(problem.errors) == 2


async def test_overlapping_address() -> None:
    """A port published on all addresses can't be the public one at the same time."""
    problem = await faults(listen="127.0.0.1:8080", ports=(PublishedPort(port=8080, host_ip="0.0.0.0"),))

    assert "overlaps" in problem.detail


async def test_published_at_the_public_address() -> None:
    """A service may publish the public address itself."""
    spec = application(service(ports=(PublishedPort(port=1),)))

    await preflight.check(spec, Snapshot(), FREE)


async def test_nothing_wrong() -> None:
    """An application that can run passes."""
    await preflight.check(application(), Snapshot(), FREE)


async def test_shared_memory_of_all_applications_is_within_the_nodes() -> None:
    """What is left is said; what the application had before counts only once."""
    mebibyte = 1 << 20
    others = known(view("bank", "me", Table(prefix="a/", size=3 * mebibyte)))
    before = view("shop", "me", Table(prefix="a/", size=4 * mebibyte))
    own = known(view("bank", "me", Table(prefix="a/", size=mebibyte)), before)
    spec = application(service(shared=(Table(prefix="a/", size=2 * mebibyte),)))
    with pytest.raises(Problem) as refused:
        await preflight.check(spec, others, FREE, shared_memory=4 * mebibyte)
    await preflight.check(spec, own, FREE, shared_memory=4 * mebibyte)

    assert (409, "shared") == (refused.value.status, refused.value.errors[0]["field"])
    assert "wants 2m, 1m are left of 4m" in refused.value.detail
