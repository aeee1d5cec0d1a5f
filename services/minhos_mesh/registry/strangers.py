"""Decides how long a service is told of that nobody planned and of which nothing is there any more."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from minhos_mesh.registry.domain.directory import Present

TOLD_SECONDS: Final = 60.0
"""How long a stranger is told of whose last instance was lost; one that said goodbye is forgotten as soon as that was told."""


class Strangers:
    """The services that attached by themselves and have left: nothing here can start them again."""

    def __init__(self, of_service: Callable[[str], tuple[Present, ...]], planned: Callable[[str], bool]) -> None:
        """`of_service` gives the instances of a service; `planned` says which services are told of for ever."""
        self._of_service, self._planned = of_service, planned
        self._dues: dict[str, float] = {}

    def departed(self, service: str, now: float, *, in_order: bool) -> None:
        """An instance of a service has gone."""
        if not self._planned(service):
            at_once = in_order and not self._of_service(service)
            self._dues[service] = now if at_once else now + TOLD_SECONDS

    def take_due(self, now: float) -> list[str]:
        """The services to forget; each is named once."""
        due = [service for service, at in self._dues.items() if at <= now]
        for service in due:
            del self._dues[service]
        return [service for service in due if not self.is_here(service)]

    def is_here(self, service: str) -> bool:
        """Whether an instance of it is there."""
        return any(not present.gone for present in self._of_service(service))

    def next_due(self) -> float | None:
        """When to look again, on the monotonic clock; None when nothing is due."""
        return min(self._dues.values(), default=None)
