"""Which module builds which service, what each serves, and what only one process of it may hold: the only list of services."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

REGISTRY: Final = "registry"
"""Name of the service that the keeper itself starts and restarts."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One service of this program."""

    serves: tuple[str, ...]
    """Its contracts, without their root package; those of the registry are its own business, since nobody else asks."""
    owns: str = ""
    """What only one process of it may hold at a time, for people; empty when several may run beside each other."""


_ENTRIES: Final[Mapping[str, Entry]] = MappingProxyType(
    {
        REGISTRY: Entry((), "the record of the mesh"),
        "event_bus": Entry(("events.v1.EventBusService", "events.v1.EventAdminService"), "the journal of events"),
        "state_manager": Entry(("state.v1.StateManagerService",), "the state of the system"),
        "market_data": Entry(
            (
                "market.v1.MarketDataProviderService",
                "market.v1.MarketDataIngestService",
                "market.v1.HistoryService",
                "market.v1.InstrumentService",
            ),
            "the sequence of the ticks",
        ),
        "sierra_simulator": Entry(("sierra.v1.SierraSimulatorService",), "the files that it writes"),
        "sierra_client": Entry(("sierra.v1.SierraClientService",), "the position in the files that it reads"),
        "paper_venue": Entry(("venue.v1.VenueService",), "the orders at the venue"),
        "risk_manager": Entry(("risk.v1.RiskManagerService",), "the limits and reservations"),
        "ai_brain": Entry(("brain.v1.AIBrainService",), "the series of its signals"),
        "trading_engine": Entry(
            ("trading.v1.TradingEngineService", "trading.v1.OrderService", "trading.v1.TradingControlService"),
            "the orders and positions",
        ),
    }
)


class UnknownService(LookupError):
    """Expected: a name was given that no service of this program has."""

    def __init__(self, service: str) -> None:
        super().__init__(f"there is no service {service!r}; known: {', '.join(_ENTRIES)}")
        self.service = service


def service_names() -> tuple[str, ...]:
    """All services, the registry first."""
    return tuple(_ENTRIES)


def bootstrap_module(service: str) -> str:
    """The module whose `build` wires the service. Raises UnknownService."""
    entry(service)
    return f"minhos_mesh.{service}.bootstrap"


def entry(service: str) -> Entry:
    """What is known of a service. Raises UnknownService."""
    try:
        return _ENTRIES[service]
    except KeyError:
        raise UnknownService(service) from None


def has_one_owner(service: str) -> bool:
    """Whether only one process of a service may hold what it owns; False for a service that is not of this program."""
    return service in _ENTRIES and bool(_ENTRIES[service].owns)
