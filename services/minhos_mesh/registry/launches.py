"""Decides how each service of a mesh is supervised and started: what its configuration says, and what the program knows of it."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from minhos_mesh.registry.domain.supervision import Replacement, Restart, SupervisionPolicy
from minhos_mesh.registry.supervision_ports import Launch
from minhos_mesh.runtime.backoff import Backoff
from minhos_mesh.runtime.catalogue import has_one_owner, service_names
from minhos_mesh.runtime.clients import BOOTSTRAP_VARIABLE, bootstrap_text
from minhos_mesh.runtime.config import MeshConfig
from minhos_mesh.runtime.config_sections import RegistrySection
from minhos_mesh.runtime.paths import MeshPaths, registry_address
from minhos_mesh.runtime.service_settings import ServiceSection

_NOT_OURS: Final = ("GRPC_ENABLE_FORK_SUPPORT", "OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", BOOTSTRAP_VARIABLE)
"""Set for forked services only; a program of its own begins without them."""


@dataclass(frozen=True, slots=True)
class ServiceRules:
    """What the supervisor must know beyond the plan, by service."""

    policies: Mapping[str, SupervisionPolicy]
    instances: Mapping[str, int]
    launches: Callable[[str, str], Launch]


def rules_of(config: MeshConfig, paths: MeshPaths) -> ServiceRules:
    """Reads them from the configuration."""
    names = {*service_names(), *config.services}
    sections = {name: config.services.get(name, ServiceSection()) for name in names}

    def launch(service: str, instance_id: str) -> Launch:
        section = sections.get(service, ServiceSection())
        if not section.command:
            return Launch()
        return Launch(section.command, _environment(section, service, instance_id, paths))

    return ServiceRules(
        policies={name: _policy(name, section, config.registry) for name, section in sections.items()},
        instances={name: section.instances for name, section in sections.items()},
        launches=launch,
    )


def _policy(service: str, section: ServiceSection, registry: RegistrySection) -> SupervisionPolicy:
    return SupervisionPolicy(
        backoff=Backoff(first=section.backoff_first_s, limit=section.backoff_max_s),
        healthy_after=section.backoff_reset_s,
        crash_loop_after=section.crash_loop_after,
        ready_deadline=section.ready_deadline_s or registry.ready_deadline_s,
        stop_deadline=section.stop_deadline_s or registry.stop_deadline_s,
        restart=Restart(section.restart),
        replacement=_replacement(service, section),
        liveness_deadline=section.liveness_deadline_s or registry.liveness_deadline_s,
        watched_only=None if section.attaches else section.settle_s,
    )


def _replacement(service: str, section: ServiceSection) -> Replacement:
    if not section.attaches:
        return Replacement.STOP_FIRST
    owns = section.single_owner if section.command else has_one_owner(service)
    return Replacement.HAND_OVER if owns else Replacement.OVERLAP


def _environment(section: ServiceSection, service: str, instance_id: str, paths: MeshPaths) -> dict[str, str]:
    """The whole environment of a program: what the mesh was started with, where the registry is, and its own variables."""
    inherited = {key: value for key, value in os.environ.items() if key not in _NOT_OURS}
    address = registry_address(paths) or ""
    ours = {
        "MINHOS_REGISTRY": address,
        "MINHOS_SERVICE": service,
        "MINHOS_INSTANCE_ID": instance_id,
        "MINHOS_DATA_DIR": str(paths.data_dir),
        BOOTSTRAP_VARIABLE: bootstrap_text(address, f"{service}/{instance_id}"),
    }
    return {**inherited, **ours, **section.environment}
