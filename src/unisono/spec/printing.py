"""
An application as a file again, with every default and variable filled in: what ``unisono config`` shows.

Loading what is printed gives the same application.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, Literal

import yaml

from unisono.spec.access import ALL
from unisono.spec.model import ApplicationSpec, HealthCheck, PublishedPort, Restart, ServiceSpec
from unisono.spec.rendering import canary, requests, secured
from unisono.spec.requests import Tls
from unisono.spec.units import format_duration, format_size


def resolved(application: ApplicationSpec, builds: Mapping[str, Any]) -> dict[str, Any]:
    """The application in the words of a file; ``builds`` has what it says of images to be built."""
    services = {name: _service(spec, builds.get(name)) for name, spec in application.services.items()}
    public = next((spec.tls for spec in application.services.values() if spec.tls), ())
    top: dict[str, Any] = {"tls": _escaped(secured(Tls(certificates=public)))} if public else {}
    if application.transactions.allow:
        top["transactions"] = _escaped(vars(application.transactions))
    if tables := {t.prefix: t.size for spec in application.services.values() for t in spec.shared}:
        top["shared"] = {prefix: format_size(size) for prefix, size in tables.items()}
    return {"name": application.name, **top, "services": _escaped(services)}


def render(data: Mapping[str, Any], form: Literal["yaml", "json"] = "yaml") -> str:
    """:attr:`Loaded.resolved <unisono.spec.load.Loaded>` as text."""
    if form == "json":
        return json.dumps(data, indent=2, ensure_ascii=False) + "\n"
    text: str = yaml.safe_dump(dict(data), sort_keys=False, allow_unicode=True, width=100)
    return text


def _escaped(value: Any) -> Any:
    """Each dollar sign doubled, so that it is read as itself."""
    if isinstance(value, str):
        return value.replace("$", "$$")
    if isinstance(value, Mapping):
        return {key: _escaped(child) for key, child in value.items()}
    if isinstance(value, list | tuple):
        return [_escaped(child) for child in value]
    return value


def _service(spec: ServiceSpec, build: Any) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if spec.image is not None:
        found["image"] = spec.image
    if build is not None:
        found["build"] = build
    if spec.command:
        found["command"] = spec.command
    found["working_dir"] = spec.working_dir
    if spec.environment:
        found["environment"] = dict(spec.environment)
    found |= {key: value for key, value in (("user", spec.user), ("port", spec.port)) if value is not None}
    found["serves"] = spec.serves
    fixed = spec.max_replicas is None
    found["scale"] = spec.replicas if fixed else {"min": spec.replicas, "max": spec.max_replicas}
    if spec.depends_on:
        found["depends_on"] = {
            d.service: {"condition": d.condition.value, "required": d.required} for d in spec.depends_on
        }
    found["healthcheck"] = _healthcheck(spec.healthcheck)
    found |= _restart(spec.restart)
    found["stop_signal"] = spec.stop_signal
    found["stop_grace_period"] = format_duration(spec.stop_grace_period)
    found["drain_period"] = format_duration(spec.drain_period)
    found["deploy"] = _deploy(spec)
    if spec.routes:
        found["routes"] = [{k: v for k, v in asdict(route).items() if v is not None} for route in spec.routes]
    if spec.ports:
        found["ports"] = [_port(port) for port in spec.ports]
    found |= requests(spec)
    if spec.access is not None:
        found["access"] = {key: _prefixes(prefixes) for key, prefixes in vars(spec.access).items()}
    return found


def _prefixes(prefixes: tuple[str, ...]) -> Literal["all"] | tuple[str, ...]:
    return "all" if prefixes == ALL else prefixes


def _port(port: PublishedPort) -> dict[str, Any]:
    found = {"host_ip": port.host_ip, "published": port.port, "target": port.port}
    return found if port.tls is None else {**found, "tls": secured(port.tls)}


def _healthcheck(check: HealthCheck) -> dict[str, Any]:
    probes: dict[str, dict[str, Any]] = {
        "http": {"http": {"path": check.path} | ({} if check.port is None else {"port": check.port})},
        "tcp": {"tcp": True},
        "command": {"command": check.command},
        "listen": {},
        "none": {"disable": True},
    }
    return {
        **probes[check.kind],
        "interval": format_duration(check.interval),
        "timeout": format_duration(check.timeout),
        "retries": check.retries,
        "start_period": format_duration(check.start_period),
        "start_interval": format_duration(check.start_interval),
    }


def _restart(restart: Restart) -> dict[str, Any]:
    if restart.policy == "on-failure" and restart.max_attempts is not None:
        return {"restart": f"on-failure:{restart.max_attempts}"}
    return {"restart": restart.policy}


def _deploy(spec: ServiceSpec) -> dict[str, Any]:
    update = spec.update
    found: dict[str, Any] = {}
    limits: dict[str, Any] = {}
    if spec.resources.cpus is not None:
        limits["cpus"] = f"{spec.resources.cpus}"
    if spec.resources.memory is not None:
        limits["memory"] = format_size(spec.resources.memory)
    if limits:
        found["resources"] = {"limits": limits}
    if spec.restart.policy == "always" and spec.restart.max_attempts is not None:
        found["restart_policy"] = {"condition": "any", "max_attempts": spec.restart.max_attempts}
    found["update_config"] = {
        "order": update.order,
        "parallelism": update.parallelism,
        "delay": format_duration(update.delay),
        "failure_action": update.failure_action,
        "monitor": format_duration(update.monitor),
        "max_failure_ratio": f"{update.max_failure_ratio}",
        "progress_deadline": format_duration(update.progress_deadline),
    }
    if update.release_command:
        found["update_config"]["release_command"] = update.release_command
    if update.canary:
        found["update_config"]["canary"] = [canary(step) for step in update.canary]
    if update.canary:
        found["update_config"]["canary"] = [canary(step) for step in update.canary]
    return found
