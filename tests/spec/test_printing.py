"""What `unisono config` shows is a file that means the same."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.spec.conftest import Desk
from unisono.spec.load import render

TEXT = st.text(st.characters(blacklist_categories=["Cs", "Cc"]), max_size=8)
NAMES = st.from_regex(r"[A-Z_][A-Z0-9_]{0,4}", fullmatch=True).filter(
    lambda name: name not in ("PORT", "PATH")
)
DURATIONS = st.builds("{}{}".format, st.integers(1, 5000), st.sampled_from(["ms", "s", "m"]))
PERCENTS = st.integers(0, 100_000_000).map(lambda millionths: f"{millionths / 1_000_000:.6f}%")
PROBES = st.sampled_from(
    [
        {"http": "/x"},
        {"http": {"path": "/x", "port": 81}},
        {"tcp": True},
        {"command": "sleep 1"},
        {"disable": True},
        {"test": "$$X"},
        {},
    ]
)
SERVICES = st.fixed_dictionaries(
    {
        "command": st.lists(TEXT, max_size=3).map(
            lambda words: ["sleep", *(w.replace("$", "$$") for w in words)]
        )
    },
    optional={
        "environment": st.dictionaries(NAMES, TEXT.map(lambda text: text.replace("$", "$$")), max_size=3),
        "scale": st.integers(0, 9) | st.just({"min": 1, "max": 4}),
        "healthcheck": st.builds(lambda probe, interval: {**probe, "interval": interval}, PROBES, DURATIONS),
        "restart": st.sampled_from(["no", "always", "on-failure", "on-failure:2", "unless-stopped"]),
        "timeout": DURATIONS | st.just("none"),
        "drain_period": DURATIONS,
        "stop_signal": st.sampled_from(["SIGINT", "TERM", "9"]),
        "concurrency": st.integers(1, 99) | st.just("auto"),
        "priority": st.sampled_from(["realtime", "balanced", "consistent"]),
        "retries": st.integers(1, 9)
        | st.fixed_dictionaries({}, optional={"budget": PERCENTS, "statuses": st.just([500, 503])})
        | st.builds(lambda pause: {"backoff": pause}, DURATIONS),
        "hedge": st.booleans() | st.fixed_dictionaries({"after": DURATIONS}, optional={"budget": PERCENTS}),
        "balance": st.sampled_from(
            [
                "p2c_ewma",
                {"policy": "maglev", "hash_on": "client", "hash_load": "none"},
                {"policy": "ring_hash", "hash_on": {"cookie": "at"}, "hash_load": 1.5},
            ]
        ),
        "queue": st.fixed_dictionaries({}, optional={"max": st.integers(0, 9), "wait": DURATIONS}),
        "hold": st.booleans(),
        "eject": st.booleans(),
        "slow_start": DURATIONS,
        "sticky": st.just("at"),
        "access": st.fixed_dictionaries(
            {}, optional={"read": st.just("all"), "write": st.just(["a/", "$$b"])}
        ),
        "protocol": st.sampled_from(["http1", "h2", "grpc"]),
        "mirror": st.builds(lambda share: {"service": "b", "percent": share}, PERCENTS),
        "routes": st.just([{"path": "/x", "host": "a.example", "priority": "low"}]),
        "ports": st.just(["8000:80", "[::1]:9000:1"]),
        "user": st.just("1000:1000"),
        "cpus": st.floats(0, 8, exclude_min=True),
        "mem_limit": st.integers(1, 2**40),
        "deploy": st.builds(
            lambda order, ratio, attempts, canary: {
                "update_config": {
                    "order": order,
                    "max_failure_ratio": ratio,
                    "release_command": "sleep 2",
                    "canary": canary,
                },
                "restart_policy": {"condition": "any", "max_attempts": attempts},
            },
            st.sampled_from(["start-first", "stop-first"]),
            st.floats(0, 1),
            st.integers(1, 9),
            PERCENTS
            | st.builds(
                lambda share, p99: [{"weight": share, "header": "x-new", "success": {"p99": p99}}, "50%"],
                PERCENTS,
                DURATIONS,
            ),
        ),
    },
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(SERVICES, st.sampled_from(["yaml", "json"]))
def test_loading_what_is_printed_gives_the_same(
    desk: Desk, service: Any, form: Literal["yaml", "json"]
) -> None:
    """For any service, in both forms; and printing that gives the same text."""
    first = desk.load(
        yaml.safe_dump(
            {"services": {"web": service, "b": {"command": "sleep 1", "serves": True, "depends_on": ["web"]}}}
        )
    )
    text = render(first.resolved, form)
    second = desk.load(text, name=None)

    assert replace(first.application, source="") == replace(second.application, source="")
    assert text == render(second.resolved, form)


def test_defaults_and_variables_are_filled_in(desk: Desk) -> None:
    """It shows what was understood."""
    desk.service("environment: {A: $X, B: $$Y}", environ={"X": "1"})
    web = desk.load(environ={"X": "1"}).resolved["services"]["web"]

    assert ({"A": "1", "B": "$$Y"}, "always", "10s") == (
        web["environment"],
        web["restart"],
        web["stop_grace_period"],
    )


@pytest.mark.parametrize("form", ["yaml", "json"])
def test_both_forms_hold_the_same(desk: Desk, form: Literal["yaml", "json"]) -> None:
    """JSON is YAML too."""
    loaded = desk.load("services: {web: {command: sleep 1}}")

    assert (
        loaded.resolved["services"]["web"]["scale"]
        == yaml.safe_load(render(loaded.resolved, form))["services"]["web"]["scale"]
    )
