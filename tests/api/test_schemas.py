"""The strict schemas of requests, and their way inside."""

from __future__ import annotations

import json

import pytest
from pydantic import ValidationError

from tests.api.specs import application, body, service
from unisono.api.schemas import read
from unisono.spec.model import ApplicationSpec, Condition, Dependency, HealthCheck, PublishedPort, Route


def test_round_trip() -> None:
    """An application is the same after its way through JSON."""
    spec = application(
        service(
            "orders",
            depends_on=(Dependency(service="payments", condition=Condition.HEALTHY),),
            healthcheck=HealthCheck(kind="http", path="/healthz"),
            environment={"A": "1"},
            routes=(Route(path="/orders", host="example.org"),),
            ports=(PublishedPort(port=8000),),
            concurrency=3,
            timeout=None,
        ),
        service("payments"),
    )
    there = read(ApplicationSpec, json.dumps(body(spec)).encode())

    assert there == spec


@pytest.mark.parametrize(
    "place", [(), ("services", "orders"), ("services", "orders", "update"), ("services", "orders", "restart")]
)
def test_unknown_fields_are_refused(place: tuple[str, ...]) -> None:
    """A field that is unknown is refused at every depth."""
    wrong = body(application())
    target = wrong
    for step in place:
        target = target[step]
    target["colour"] = "red"

    with pytest.raises(ValidationError, match="Extra inputs"):
        read(ApplicationSpec, wrong)
