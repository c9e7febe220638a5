"""
What the store wants of one node: its instances, and the services and revisions that they live by.

A copy in memory, kept true by each event of the store's watch. It starts and stops nothing: what a change
leads to is :mod:`unisono.node.agent`'s.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from unisono.control.records import Instance, Revision, Service, Status, decode
from unisono.node.treating import Routed
from unisono.spec.model import ServiceSpec
from unisono.store.base import Compacted, Event, Store

Key = tuple[str, str, str]  # application, service, instance
Name = tuple[str, str]  # application, service


@dataclass(frozen=True)
class InstancePut:
    """An instance is wanted, or wanted otherwise."""

    key: Key


@dataclass(frozen=True)
class InstanceGone:
    """An instance is wanted no more; ``last`` is what was wanted of it."""

    key: Key
    last: Instance


@dataclass(frozen=True)
class ServiceChanged:
    """A service, or one of its revisions, is there or is another."""

    name: Name


@dataclass(frozen=True)
class ServiceGone:
    """A service was removed."""

    name: Name


Change = InstancePut | InstanceGone | ServiceChanged | ServiceGone


class Wanted:
    """What the store wants of the node ``node_id``."""

    def __init__(self, store: Store, node_id: str) -> None:
        self._store = store
        self._node_id = node_id
        self._services: dict[Name, Service] = {}
        self._revisions: dict[tuple[str, str, int], Revision] = {}
        self.instances: dict[Key, Instance] = {}

    @property
    def services(self) -> tuple[Name, ...]:
        """Those that there are, on whatever node they run."""
        return tuple(self._services)

    async def load(self) -> tuple[int, dict[Key, Status]]:
        """
        Read all anew: the revision at which it was so, and what was last known of instances that may be here.

        Raises:
            StoreError: It can't be read; what was known stays.
        """
        while True:
            try:
                services = await self._store.scan("service/")
                at = services.revision
                revisions = await self._store.scan("revision/", revision=at)
                instances = await self._store.scan("instance/", revision=at)
                statuses = await self._store.scan("status/", revision=at)
            except Compacted:
                continue  # compacted between two scans
            break
        self._services = {}
        for entry in services.entries:
            service = decode(Service, entry.value)
            self._services[service.application, service.name] = service
        self._revisions = {}
        for entry in revisions.entries:
            record = decode(Revision, entry.value)
            self._revisions[record.application, record.service, record.number] = record
        everyone = {key_of(entry.key): decode(Instance, entry.value) for entry in instances.entries}
        self.instances = {key: found for key, found in everyone.items() if found.node == self._node_id}
        elsewhere = everyone.keys() - self.instances.keys()
        known = ((key_of(entry.key), decode(Status, entry.value)) for entry in statuses.entries)
        return at, {key: status for key, status in known if key not in elsewhere}

    def take(self, event: Event) -> Change | None:
        """Follow one event of the store; what it changed, or ``None`` if it is nothing to this node."""
        kind, _, rest = event.key.partition("/")
        value = event.entry.value if event.entry else None
        match kind:
            case "instance":
                return self._take_instance(key_of(event.key), value)
            case "service":
                application, _, service = rest.partition("/")
                if value is None:
                    self._services.pop((application, service), None)
                    return ServiceGone((application, service))
                self._services[application, service] = decode(Service, value)
                return ServiceChanged((application, service))
            case "revision":
                application, service, number = rest.split("/")
                if value is None:
                    self._revisions.pop((application, service, int(number)), None)
                    return None
                self._revisions[application, service, int(number)] = decode(Revision, value)
                return ServiceChanged((application, service))
        return None

    def _take_instance(self, key: Key, value: bytes | None) -> Change | None:
        if value is None:
            last = self.instances.pop(key, None)
            return None if last is None else InstanceGone(key, last)
        instance = decode(Instance, value)
        if instance.node != self._node_id:
            return None
        self.instances[key] = instance
        return InstancePut(key)

    def of_service(self, name: Name) -> list[Key]:
        """This node's instances of a service."""
        return [key for key in self.instances if key[:2] == name]

    def spec_of(self, instance: Instance) -> ServiceSpec | None:
        """
        The spec that an instance lives by; ``None`` while its revision is not in the store.

        A newer revision with the same digest needs no new instance, but what else it changes counts.
        """
        name = (instance.application, instance.service)
        own = self._revisions.get((*name, instance.revision))
        service = self._services.get(name)
        current = self._revisions.get((*name, service.revision)) if service else None
        if own is None:
            return None
        if current and (current.digest, current.nonce) == (own.digest, own.nonce):
            return current.spec
        return own.spec

    def routed(self, name: Name) -> Routed | None:
        """A service as routing needs it; ``None`` while it or the revision that should run is not known."""
        service = self._services.get(name)
        record = self._revisions.get((*name, service.revision)) if service else None
        return Routed(service=service, spec=record.spec) if service and record else None

    def links(self, application: str, spec: ServiceSpec) -> Mapping[str, str]:
        """Where a program of ``spec`` finds what it depends on: ``PAYMENTS_URL`` and the like."""
        links = {}
        for dependency in spec.depends_on:
            name = (application, dependency.service)
            service, routed = self._services.get(name), self.routed(name)
            if service is not None:
                variable = re.sub(r"[^A-Z0-9]", "_", dependency.service.upper())
                scheme = "tcp" if routed and routed.spec.mode == "tcp" else "http"
                links[f"{variable}_URL"] = f"{scheme}://127.0.0.1:{service.internal_port}"
        return links


def key_of(key: str) -> Key:
    """Application, service and instance of a record's key in the store."""
    _, application, service, id = key.split("/")
    return application, service, id
