"""Which services an application has, where the gateway answers for them, and what it may call besides."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from pydantic_core import from_json

from unisono.spec.outside import Outside
from unisono.store.base import Entry, Store

if TYPE_CHECKING:
    from unisono.control.snapshot import Snapshot


class ServiceDirectory:
    """
    What transactions may call (:class:`unisono.transactions.targets.Directory`).

    A node reads it once when it starts, out of the little that is needed of the records: all that specs are
    made of takes longer to load than finding ten thousand transactions again. From then on it follows the
    informer, and answers at once from what that has seen so far: a service that was applied a moment ago,
    and whose application was not yet told of it, can't be named by anybody.
    """

    def __init__(self) -> None:
        self.ports: dict[tuple[str, str], int] = {}
        """By application and service."""
        self._outside: dict[str, Outside] = {}

    async def read(self, store: Store) -> None:
        """
        Learn what the store has now. A record that can't be read is left out: the informer tells of it.

        Raises:
            StoreError: As the store says.
        """
        self.ports = {
            (application, service): record["internal_port"]
            for (application, service), record in _records((await store.scan("service/")).entries)
            if isinstance(record.get("internal_port"), int)
        }
        self._outside = {
            application: Outside(allow=tuple(record.get("transactions", {}).get("allow", ())))
            for (application,), record in _records((await store.scan("application/")).entries)
        }

    def follow(self, known: Snapshot) -> None:
        """Learn what the informer shows."""
        services = known.services.items()
        self.ports = {name: view.service.internal_port for name, view in services if view.service}
        self._outside = {name: record.transactions for name, record in known.applications.items()}

    def port_of(self, application: str, service: str) -> int | None:
        """The port of loopback at which the gateway answers for a service."""
        return self.ports.get((application, service))

    def has_port(self, application: str, port: int) -> bool:
        """Whether one of the application's services is reached at this port."""
        return any(owner == application and own == port for (owner, _), own in self.ports.items())

    def allows(self, application: str, url: str) -> bool:
        """Whether the application's file allows to call this address besides."""
        found = self._outside.get(application)
        return found is not None and found.permits(url)


def _records(entries: Iterable[Entry]) -> list[tuple[Any, dict[str, Any]]]:
    """The parts of each key behind its kind, and the record as it is written."""
    found = []
    for entry in entries:
        try:
            record = from_json(entry.value)
        except ValueError:
            continue
        if isinstance(record, dict):
            found.append((entry.key.split("/")[1:], record))
    return found
