"""Decides how what the registry knows reaches the clients' traffic: routes, policy, discovery, and what people see of trouble with it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Final

from minhos_mesh.registry.ads import AggregatedDiscovery
from minhos_mesh.registry.ads_stream import Withheld
from minhos_mesh.registry.domain.routing import Ejection, RoutingView, TrafficPolicy
from minhos_mesh.registry.envoy import EnvoyMessages
from minhos_mesh.registry.route_store import RouteDocuments, RouteStore
from minhos_mesh.registry.xds_resources import ResourceBuilder
from minhos_mesh.runtime.clock import Clock
from minhos_mesh.runtime.conditions import Conditions
from minhos_mesh.runtime.config_sections import RoutingSection
from minhos_mesh.runtime.log import get_logger

REFUSED: Final = "DISCOVERY_REFUSED"
"""A client does not take what it is told."""
NOT_FOLLOWED: Final = "ROUTE_NOT_FOLLOWED"
"""Calls of a strict route wait or fail, because nobody whom it names serves."""
_log = get_logger("registry.routes")
_TOLD: Final = 5
"""Clients, names and contracts that are told of; there may be more."""


class Traffic:
    """Discovery with everything that it needs."""

    def __init__(
        self, documents: RouteDocuments, conditions: Conditions, clock: Clock, settings: RoutingSection
    ) -> None:
        messages = EnvoyMessages.from_file()
        self.discovery = AggregatedDiscovery(
            messages, generation=f"{clock.wall_ns() // 1_000_000}", on_withheld=self._note_withheld
        )
        self.routes = RouteStore(documents)
        self._builder = ResourceBuilder(messages, policy_of(settings))
        self._conditions = conditions
        self._noted: Mapping[str, tuple[str, ...]] = {}

    def publish(self, view: RoutingView) -> None:
        """Tells all clients where calls go from now on."""
        self._builder.forget_others(view)
        self.discovery.publish(lambda zone: self._builder.build(view, zone), view.zones())
        # Not at once: the condition is a change of the registry itself, which is in the middle of telling one.
        asyncio.get_running_loop().call_soon(self._note_routes, view)

    def _note_routes(self, view: RoutingView) -> None:
        """A route whose calls go elsewhere is worth a line; one whose calls wait or fail is trouble."""
        notes, waiting = view.notes(), view.notes(strict=True)
        for contract, texts in notes.items():
            if self._noted.get(contract) != texts:
                _log.warning("route.not_followed", contract=contract, notes=list(texts))
        self._noted = notes
        if not waiting:
            self._conditions.clear(NOT_FOLLOWED)
            return
        told = [f"{contract.rpartition('.')[2]}: {'; '.join(texts)}" for contract, texts in sorted(waiting.items())]
        self._conditions.set(NOT_FOLLOWED, _some(told))

    def _note_withheld(self, withheld: Mapping[str, tuple[Withheld, ...]]) -> None:
        if not withheld:
            self._conditions.clear(REFUSED)
            return
        told = [_refusals(client, found) for client, found in sorted(withheld.items())]
        count = self.discovery.stats().refused
        self._conditions.set(REFUSED, f"{_some(told)}; {count} refused since the registry started")


def policy_of(settings: RoutingSection) -> TrafficPolicy:
    """The policy that is configured."""
    return TrafficPolicy(
        retries=settings.retries,
        retry_base_ms=settings.retry_base_ms,
        retry_max_ms=settings.retry_max_ms,
        max_requests=settings.max_requests,
        ejection=Ejection(settings.ejection),
        ejection_interval_ms=round(settings.ejection_interval_s * 1_000),
        ejection_time_ms=round(settings.ejection_time_s * 1_000),
        ejection_max_time_ms=round(settings.ejection_max_time_s * 1_000),
        ejection_max_percent=settings.ejection_max_percent,
        ejection_failure_percent=settings.ejection_failure_percent,
        ejection_min_requests=settings.ejection_min_requests,
        ejection_min_endpoints=settings.ejection_min_endpoints,
        ejection_deviations=settings.ejection_deviations,
    )


def _refusals(client: str, found: tuple[Withheld, ...]) -> str:
    texts: dict[str, list[str]] = {}
    for each in found:
        texts.setdefault(each.text, []).append(f"{each.name}{' and keeps the last one' if each.older else ''}")
    parts = [f"{_some(names, ', ')} ({text})" for text, names in texts.items()]
    return f"{client or 'a client without a name'} does not take {_some(parts)}"


def _some(texts: list[str], between: str = "; ") -> str:
    more = f"{between}and {len(texts) - _TOLD} more" if len(texts) > _TOLD else ""
    return between.join(texts[:_TOLD]) + more
