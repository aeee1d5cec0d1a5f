"""Decides what the configuration changes in the catalogue: which services run, and which of them is the venue of the mesh."""

from __future__ import annotations

from typing import Final

from minhos_mesh.runtime.catalogue import entry, service_names
from minhos_mesh.runtime.config import MeshConfig

VENUE: Final = "venue.v1.VenueService"
"""The contract of a venue, without its root package; one service at a time serves it."""


def contracts_of(service: str, config: MeshConfig | None = None) -> tuple[str, ...]:
    """Contracts that a service serves under this configuration, without their root package. Raises UnknownService."""
    serves = entry(service).serves
    return (*serves, VENUE) if config is not None and service == "sierra_client" == config.engine.venue else serves


def running(config: MeshConfig) -> tuple[str, ...]:
    """The services of the program that this configuration asks for, the registry first."""
    left_out = set()
    if config.feed.kind == "none":
        left_out.add("sierra_simulator")
    if config.engine.venue != "paper_venue":
        left_out.add("paper_venue")
    return tuple(name for name in service_names() if name not in left_out)
