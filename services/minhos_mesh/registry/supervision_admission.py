"""What may be asked of a supervisor at all: for services that it supervises, and while a keeper can carry it out."""

from __future__ import annotations

from collections.abc import Callable, Collection

from minhos_mesh.registry.plan import Plan, UnknownService
from minhos_mesh.registry.supervision_ports import NotStartedHere, NotSupervised, Processes
from minhos_mesh.runtime.keeper_client import KeeperUnavailable


class Admission:
    """Refuses at once what could only fail later."""

    def __init__(
        self, plan: Plan, external: Collection[str], processes: Processes, attached: Callable[[str], bool]
    ) -> None:
        """`attached` tells whether a process says that it is this service, whoever started it."""
        self._plan, self._external = plan, frozenset(external)
        self._processes, self._attached = processes, attached

    def check(self, service: str) -> None:
        """Raises plan.UnknownService, NotStartedHere or NotSupervised."""
        try:
            self._plan.check(service)
        except UnknownService:
            if self._attached(service):
                raise NotStartedHere(service) from None
            raise
        if service in self._external:
            raise NotSupervised(service)

    async def admit(self, service: str) -> None:
        """As `check`, and raises KeeperUnavailable when there is nobody who could start or end a process."""
        self.check(service)
        try:
            await self._processes.list()
        except KeeperUnavailable as error:
            raise KeeperUnavailable(
                f"{error}; {service} is left as it is: `minhos up` starts a keeper, which takes over what runs"
            ) from None
