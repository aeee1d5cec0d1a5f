"""Which module builds which service: the only list of the services that this program contains."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

REGISTRY: Final = "registry"
"""Name of the service that the keeper itself starts and restarts."""

_BOOTSTRAPS: Final[Mapping[str, str]] = MappingProxyType(
    {
        name: f"minhos_mesh.{name}.bootstrap"
        for name in (
            REGISTRY,
            "event_bus",
            "state_manager",
            "market_data",
            "sierra_simulator",
            "sierra_client",
            "paper_venue",
            "risk_manager",
            "ai_brain",
            "trading_engine",
        )
    }
)


class UnknownService(LookupError):
    """Expected: a name was given that no service of this program has."""

    def __init__(self, service: str) -> None:
        super().__init__(f"there is no service {service!r}; known: {', '.join(_BOOTSTRAPS)}")
        self.service = service


def service_names() -> tuple[str, ...]:
    """All services, the registry first."""
    return tuple(_BOOTSTRAPS)


def bootstrap_module(service: str) -> str:
    """The module whose `build` wires the service. Raises UnknownService."""
    try:
        return _BOOTSTRAPS[service]
    except KeyError:
        raise UnknownService(service) from None
