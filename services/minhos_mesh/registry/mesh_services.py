"""Decides which services make up the mesh and which contracts each of them serves; who needs whom is in the contracts."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from minhos_mesh.registry.plan import Need, ServiceSpec
from minhos_mesh.runtime.catalogue import service_names
from minhos_mesh.runtime.config import MeshConfig
from minhos_mesh.runtime.contracts import ROOT_PACKAGE, all_contracts

EVERYWHERE: Final = f"{ROOT_PACKAGE}mesh.v1.ServiceControlService"
"""Served by every service; nobody needs it of anyone in particular."""

SERVES: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        "registry": ("registry.v1.RegistryService", "registry.v1.SupervisorService", "health.v1.HealthMonitorService"),
        "event_bus": ("events.v1.EventBusService",),
        "state_manager": ("state.v1.StateManagerService",),
        "market_data": ("market.v1.MarketDataProviderService", "market.v1.MarketDataIngestService"),
        "sierra_simulator": ("sierra.v1.SierraSimulatorService",),
        "sierra_client": ("sierra.v1.SierraClientService",),
        "paper_venue": ("venue.v1.VenueService",),
        "risk_manager": ("risk.v1.RiskManagerService",),
        "ai_brain": ("brain.v1.AIBrainService",),
        "trading_engine": (
            "trading.v1.TradingEngineService",
            "trading.v1.OrderService",
            "trading.v1.TradingControlService",
        ),
    }
)
"""Contracts without their root package, by service."""


def planned_services(config: MeshConfig) -> tuple[str, ...]:
    """The services that this configuration asks for."""
    return tuple(name for name in service_names() if name != "sierra_simulator" or config.feed.kind != "none")


def specs_of(services: tuple[str, ...]) -> tuple[ServiceSpec, ...]:
    """What the plan must know of these services, read from their contracts."""
    return tuple(_spec(name) for name in services)


def _spec(service: str) -> ServiceSpec:
    contracts = [f"{ROOT_PACKAGE}{name}" for name in SERVES[service]]
    needs: dict[str, Need] = {}
    for contract in contracts:
        for need in all_contracts()[contract].needs:
            if needs.get(need.contract, Need(need.contract, optional=True)).optional:
                needs[need.contract] = Need(need.contract, optional=not need.required)
    return ServiceSpec(service, frozenset((*contracts, EVERYWHERE)), tuple(needs.values()))
