"""Decides which services make up the mesh and which contracts each of them serves; who needs whom is in the contracts."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from minhos_mesh.registry.plan import Need, ServiceSpec
from minhos_mesh.runtime import catalogue, roles
from minhos_mesh.runtime.config import MeshConfig
from minhos_mesh.runtime.contracts import ROOT_PACKAGE, all_contracts

EVERYWHERE: Final = f"{ROOT_PACKAGE}mesh.v1.ServiceControlService"
"""Served by every service; nobody needs it of anyone in particular."""

SERVES: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        **{name: catalogue.entry(name).serves for name in catalogue.service_names()},
        "registry": (
            "registry.v1.RegistryService",
            "registry.v1.SupervisorService",
            "registry.v1.RouteService",
            "registry.v1.ContractService",
            "health.v1.HealthMonitorService",
        ),
    }
)
"""Contracts without their root package, by service."""


def planned_services(config: MeshConfig) -> tuple[str, ...]:
    """The services that this configuration asks for: those of the program, then programs of its own."""
    return (*roles.running(config), *(name for name, section in sorted(config.services.items()) if section.command))


def specs_of(services: tuple[str, ...], config: MeshConfig | None = None) -> tuple[ServiceSpec, ...]:
    """What the plan must know of these services: read from their contracts, or from the configuration where a program of
    its own is started, whose contracts are known only when it attaches.
    """
    return tuple(_spec(name, config) if name in SERVES else _configured(name, config) for name in services)


def _configured(service: str, config: MeshConfig | None) -> ServiceSpec:
    needs = () if config is None else config.services[service].needs
    return ServiceSpec(service, frozenset((EVERYWHERE,)), tuple(Need(EVERYWHERE, provider=name) for name in needs))


def _spec(service: str, config: MeshConfig | None) -> ServiceSpec:
    serves = SERVES[service] if service == catalogue.REGISTRY else roles.contracts_of(service, config)
    contracts = [f"{ROOT_PACKAGE}{name}" for name in serves]
    needs: dict[str, Need] = {}
    for contract in contracts:
        for need in all_contracts()[contract].needs:
            if needs.get(need.contract, Need(need.contract, optional=True)).optional:
                needs[need.contract] = Need(need.contract, optional=not need.required)
    return ServiceSpec(service, frozenset((*contracts, EVERYWHERE)), tuple(needs.values()))
