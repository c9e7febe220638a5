"""Compose files as people write them load, with a warning for what has no effect."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from unisono.spec import compose
from unisono.spec.load import Loaded, load, render
from unisono.spec.model import Condition, PublishedPort, Resources, Restart

HERE = Path(__file__).parent / "compose"
ENVIRON = {"PATH": "/usr/bin:/bin", "TZ": "UTC"}


def loaded(name: str) -> Loaded:
    return load([HERE / f"{name}.yaml"], environ=ENVIRON, name=name, profiles=["full"])


@pytest.mark.parametrize("name", ["blog", "queue"])
def test_every_key_without_effect_is_named_in_a_warning(name: str) -> None:
    """With its place; none is dropped in silence."""
    file = loaded(name)
    text = (HERE / f"{name}.yaml").read_text()
    written = {key for key in compose.SERVICE if f"\n    {key}:" in text}
    warned = {warning.path.rpartition(".")[2] for warning in file.warnings}

    assert written <= warned
    assert all(warning.mark is not None for warning in file.warnings)


def test_a_web_application_means_what_it_means_in_compose() -> None:
    """Everything that can be honoured is."""
    web = loaded("blog").application.services["web"]

    assert ("container", ("gunicorn", "blog.wsgi", "--bind", "0.0.0.0:8000", "--workers", "4")) == (
        web.driver,
        web.command,
    )
    assert (PublishedPort(port=80), PublishedPort(port=9000)) == web.ports
    assert (2, Resources(cpus=0.5, memory=256 * 2**20)) == (web.replicas, web.resources)
    assert (Restart(policy="on-failure", max_attempts=3), 90.0) == (web.restart, web.stop_grace_period)
    assert [Condition.COMPLETED, Condition.HEALTHY] == [d.condition for d in web.depends_on]


def test_a_database_has_its_image_its_variables_and_its_probe() -> None:
    """Variables with defaults are replaced, doubled dollars are dollars."""
    database = loaded("blog").application.services["database"]

    assert ("postgres:16-alpine", "change-me") == (
        database.image,
        database.environment["POSTGRES_PASSWORD"],
    )
    assert ("/bin/sh", "-c", "pg_isready -U ${POSTGRES_USER}") == database.healthcheck.command


def test_numbers_truth_and_times_are_text_where_text_is_meant() -> None:
    """No value turns into something else on its way."""
    services = loaded("queue").application.services

    assert {"DEBUG": "off", "RETRIES": "3", "SCHEDULE": "12:30:00", "TZ": "UTC"} == services[
        "worker"
    ].environment
    assert [5672, 15672, 4369, 22] == [port.port for port in services["broker"].ports]


def test_a_container_is_warned_of_with_what_to_do() -> None:
    """This version starts processes only."""
    messages = {w.path: w.message for w in loaded("blog").warnings if "is a container" in w.message}

    assert {"services.database.image", "services.migrate.build", "services.web.build"} == set(messages)
    assert messages["services.database.image"].endswith(compose.NO_COMMAND)
    assert messages["services.web.build"].endswith(compose.COMMAND_ONLY)


@pytest.mark.parametrize("name", ["blog", "queue"])
def test_what_is_printed_of_it_loads_to_the_same(name: str, tmp_path: Path) -> None:
    """Also a container, and how its image is built."""
    first = loaded(name)
    path = tmp_path / "printed.yaml"
    path.write_text(render(first.resolved))
    second = load([path], environ=ENVIRON)

    assert replace(first.application, source="") == replace(second.application, source="")
    assert first.resolved == second.resolved
