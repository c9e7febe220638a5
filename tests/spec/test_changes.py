"""The difference of two applications."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from unisono.spec.changes import MASK, Effect, FieldChange, changes, looks_secret
from unisono.spec.model import ApplicationSpec, ServiceSpec, UpdateConfig

WEB = ServiceSpec(name="web", command=("serve",), environment={"A": "1"}, inherited={"PATH": "/bin"})


def application(*services: ServiceSpec) -> ApplicationSpec:
    return ApplicationSpec(name="shop", services={service.name: service for service in services})


@pytest.mark.parametrize(
    ("change", "effect", "path", "before", "after"),
    [
        ({"command": ("serve", "-x")}, Effect.ROLL, "command", "serve", "serve -x"),
        ({"environment": {"A": "2"}}, Effect.ROLL, "environment.A", "1", "2"),
        ({"environment": {}}, Effect.ROLL, "environment.A", "1", None),
        ({"replicas": 3}, Effect.SCALE, "replicas", "1", "3"),
        ({"max_replicas": 3}, Effect.SCALE, "max_replicas", None, "3"),
        ({"timeout": None}, Effect.UPDATE, "timeout", "60.0", None),
        ({"update": UpdateConfig(delay=1.0)}, Effect.UPDATE, "update.delay", "0.0", "1.0"),
        ({"serves": False}, Effect.ROLL, "serves", "true", "false"),
    ],
)
def test_each_change_has_its_effect(
    change: dict[str, Any], effect: Effect, path: str, before: str | None, after: str | None
) -> None:
    """New instances, another number of them, or neither."""
    (found,) = changes(application(WEB), application(replace(WEB, **change)))

    assert ("web", effect, (FieldChange(path=path, before=before, after=after),)) == (
        found.service,
        found.effect,
        found.fields,
    )


def test_what_is_the_same_is_no_change() -> None:
    """Nor is another shell."""
    assert () == changes(application(WEB), application(replace(WEB, inherited={"PATH": "/usr/bin"})))


def test_services_come_and_go() -> None:
    """In the order of the file, those that go last."""
    other = ServiceSpec(name="other", command=("x",))
    found = changes(application(WEB), application(other))

    assert [("other", Effect.CREATE), ("web", Effect.REMOVE)] == [(c.service, c.effect) for c in found]
    assert (FieldChange(path="command", before=None, after="x"),) == found[0].fields


def test_before_the_first_apply_everything_is_created() -> None:
    """There is nothing to compare with."""
    assert [Effect.CREATE] == [change.effect for change in changes(None, application(WEB))]


@pytest.mark.parametrize(
    "name", ["PASSWORD", "db_password", "API_KEY", "KEY", "SECRET_X", "AUTH_TOKEN", "AWS_ACCESS_KEY_ID"]
)
def test_values_that_look_secret_are_not_shown(name: str) -> None:
    """That they changed is."""
    old, new = (replace(WEB, environment={name: value}) for value in ("one", "two"))
    (change,) = changes(application(old), application(new))

    assert (FieldChange(path=f"environment.{name}", before=MASK, after=MASK),) == change.fields


@pytest.mark.parametrize("name", ["MONKEY", "KEYBOARD", "PATH", "PASSENGERS"])
def test_other_values_are_shown(name: str) -> None:
    """A name that only contains the letters hides nothing."""
    assert not looks_secret(name)


def test_a_password_in_an_address_is_not_shown() -> None:
    """Wherever it stands."""
    new = replace(WEB, environment={"A": "postgres://me:hunter2@db/x"})
    (change,) = changes(application(WEB), application(new))

    assert f"postgres://me:{MASK}@db/x" == change.fields[0].after
