"""Which services an application has, and where the gateway answers for them, as the informer knows it."""

from __future__ import annotations

from unisono.api.informer import Informer


class ServiceDirectory:
    """
    What transactions may call (:class:`unisono.transactions.targets.Directory`).

    It answers at once from what has been followed so far: a service that was applied a moment ago, and whose
    application was not yet told of it, can't be named by anybody.
    """

    def __init__(self, informer: Informer) -> None:
        self._informer = informer

    def port_of(self, application: str, service: str) -> int | None:
        """The port of loopback at which the gateway answers for a service."""
        view = self._informer.latest.services.get((application, service))
        return None if view is None or view.service is None else view.service.internal_port

    def has_port(self, application: str, port: int) -> bool:
        """Whether one of the application's services is reached at this port."""
        return any(
            view.application == application
            and view.service is not None
            and view.service.internal_port == port
            for view in self._informer.latest.services.values()
        )

    def allows(self, application: str, url: str) -> bool:
        """Whether the application's file allows to call this address besides."""
        found = self._informer.latest.applications.get(application)
        return found is not None and found.transactions.permits(url)
