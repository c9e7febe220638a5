"""Small applications for tests of the API."""

from __future__ import annotations

import dataclasses
import sys
from typing import Any

from unisono.spec.model import ApplicationSpec, ServiceSpec


def service(name: str = "orders", **fields: Any) -> ServiceSpec:
    """A service whose command exists."""
    return ServiceSpec(name=name, **{"command": (sys.executable, "-c", "pass"), **fields})


def application(*services: ServiceSpec, name: str = "shop") -> ApplicationSpec:
    """An application of these services, or of one."""
    found = services or (service(),)
    return ApplicationSpec(name=name, services={one.name: one for one in found})


def body(spec: ApplicationSpec) -> dict[str, Any]:
    """The application as the API takes it."""
    return dataclasses.asdict(spec)
