"""Decides how often a service counts as restarted: over all lives of the registry, until somebody stops or restarts it."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Protocol


class KeptCounts(Protocol):
    """Where counts are kept."""

    async def keep_restarts(self, service: str, restarts: int) -> None:
        """Keeps how often a service was restarted; 0 forgets it."""
        ...


class RestartCounts:
    """Restarts that nobody asked for, of each service.

    A supervisor counts from 0 in each life of the registry; what earlier lives counted is added here.
    """

    def __init__(self, store: KeptCounts, start: Callable[[Coroutine[Any, Any, None], str], object], own: str) -> None:
        """`start` runs a write in the background. `own` is the registry itself, which no supervisor counts."""
        self._store, self._start, self._own = store, start, own
        self._earlier: dict[str, int] = {}
        self._kept: dict[str, int] = {}

    def take_back(self, counts: Mapping[str, int]) -> int:
        """Takes what earlier lives kept; returns how often the registry itself was restarted.

        Of itself it keeps how many lives it had: one that ends in order takes that away again.
        """
        self._kept = dict(counts)
        lives = counts.get(self._own, 0)
        self._earlier = {service: count for service, count in counts.items() if service != self._own}
        self._start(self._store.keep_restarts(self._own, lives + 1), "registry-restarts")
        return lives

    async def end_in_order(self) -> None:
        """The registry ends because it was asked to: its own restarts are counted anew."""
        await self._store.keep_restarts(self._own, 0)

    def total(self, service: str, counted: int, *, anew: bool) -> int:
        """Restarts of a service when this life has counted so many; `anew` when somebody stops or restarts it."""
        if anew:
            self._earlier.pop(service, None)
        total = self._earlier.get(service, 0) + counted
        if total != self._kept.get(service, 0):
            self._kept[service] = total
            self._start(self._store.keep_restarts(service, total), "registry-restarts")
        return total
