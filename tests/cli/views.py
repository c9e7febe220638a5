"""Views as a node answers them, with fields that a test may set."""

from __future__ import annotations

from typing import Any, cast

from unisono.client.views import ApplicationView, InstanceView, RolloutView, ServiceView


def instance(**fields: Any) -> InstanceView:
    """A ready instance."""
    known = {
        "id": "orders-k3f9x",
        "application": "shop",
        "service": "orders",
        "node": "node-1",
        "revision": 1,
        "goal": "run",
        "job": False,
        "phase": "ready",
        "since": 90.0,
        "generation": 1,
        "pid": 4711,
        "port": 21_000,
        "restarts": 0,
        "failures": 0,
        "ready_at": 90.0,
        "retry_at": None,
        "exit_code": None,
        "reason": "",
        "created_at": 80.0,
        "in_flight": 0,
    }
    return cast(InstanceView, {**known, **fields})


def rollout(**fields: Any) -> RolloutView:
    """A rollout that ended well."""
    known = {
        "source": 1,
        "target": 2,
        "phase": "done",
        "started_at": 50.0,
        "failures": 0,
        "reason": "",
        "updated": 1,
        "replicas": 1,
    }
    return cast(RolloutView, {**known, **fields})


def service(*instances: InstanceView, **fields: Any) -> ServiceView:
    """A settled service with these instances."""
    known = {
        "application": "shop",
        "name": "orders",
        "state": "ready",
        "settled": True,
        "reason": "",
        "revision": 1,
        "stable": 1,
        "replicas": 1,
        "ready": 1,
        "urls": [],
        "internal_url": "http://127.0.0.1:20000/",
        "requests": 0,
        "failed_requests": 0,
        "waiting": 0,
        "in_flight": 0,
        "rollout": None,
        "instances": list(instances),
    }
    return cast(ServiceView, {**known, **fields})


def application(*services: ServiceView, **fields: Any) -> ApplicationView:
    """The application "shop" of these services."""
    known = {
        "name": "shop",
        "source": "/shop/unisono.yaml",
        "state": "ready",
        "removing": False,
        "store_revision": 7,
        "services": list(services),
    }
    return cast(ApplicationView, {**known, **fields})
