"""Which tables of shared memory a node keeps."""

from __future__ import annotations

from pathlib import Path

from unisono.control.records import Goal, Instance, Revision, Service
from unisono.control.snapshot import ServiceView, Snapshot
from unisono.node.paths import StateFolder
from unisono.node.sharing import sizes, tables
from unisono.spec.model import ServiceSpec
from unisono.spec.shared import Table

KIB = 1024


def view(application: str, node: str, *shared: Table, service: str = "web") -> ServiceView:
    instance = Instance(
        application=application, service=service, id=f"{service}-1", revision=1, node=node, goal=Goal.RUN
    )
    spec = ServiceSpec(name=service, command=("true",), shared=shared)
    return ServiceView(
        application=application,
        name=service,
        service=Service(
            application=application, name=service, revision=1, stable=None, replicas=1, internal_port=1
        ),
        revisions={
            1: Revision(
                application=application, service=service, number=1, digest="d", spec=spec, created_at=0.0
            )
        },
        instances={instance.id: instance},
    )


def known(*views: ServiceView) -> Snapshot:
    return Snapshot(services={(one.application, one.name): one for one in views})


def test_those_of_applications_with_an_instance_here(tmp_path: Path) -> None:
    """The others would take memory for nobody."""
    here, there = Table(prefix="a/", size=16 * KIB), Table(prefix="b/", size=16 * KIB)
    kept, left = tables(
        known(view("shop", "me", here), view("bank", "other", there)), "me", StateFolder(tmp_path), 1 << 20
    )

    assert [("shop", "a/", 16 * KIB)] == [(one.namespace, one.prefix, one.size) for one in kept]
    assert () == left


def test_services_that_differ_while_they_change_get_the_larger() -> None:
    """One revision of a file may say it already, another not yet."""
    small, large = Table(prefix="a/", size=16 * KIB), Table(prefix="a/", size=32 * KIB)
    found = sizes(known(view("shop", "me", small), view("shop", "me", large, service="desk")), ["shop"])

    assert {("shop", "a/"): 32 * KIB} == found


def test_all_together_are_within_the_limit(tmp_path: Path) -> None:
    """What does not fit is left out, and said."""
    one, two = Table(prefix="a/", size=20 * KIB), Table(prefix="b/", size=20 * KIB)
    kept, left = tables(known(view("shop", "me", one, two)), "me", StateFolder(tmp_path), 39 * KIB)

    assert ["a/"] == [table.prefix for table in kept]
    assert ["shop/b/"] == [str(table) for table in left]
