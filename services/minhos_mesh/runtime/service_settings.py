"""Decides what can be configured of one service: how it is kept alive, how many run, and programs beside the mesh's own."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from minhos_mesh.runtime.catalogue import REGISTRY, entry, service_names

MAX_INSTANCES: Final = 16
_NAME: Final = re.compile(r"[a-z][a-z0-9_]{0,62}")
_VARIABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class ServiceSection(BaseModel):
    """One table `[services.NAME]`."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    command: tuple[str, ...] = ()
    """Command line of a program that belongs to the mesh and is none of its own services; no shell reads it."""
    environment: dict[str, str] = {}
    """Variables that the program finds beside those of the mesh: MINHOS_REGISTRY, MINHOS_SERVICE, MINHOS_INSTANCE_ID,
    MINHOS_DATA_DIR, and GRPC_XDS_BOOTSTRAP_CONFIG, with which any gRPC client resolves `xds:///CONTRACT`."""
    attaches: bool = True
    """Whether the program attaches at the registry by itself; otherwise it is only watched, and serves by running."""
    settle_s: float = Field(1.0, gt=0, le=60)
    """What is only watched counts as started once it has run for so long."""
    single_owner: bool = False
    """Whether the program says in its hello that only one instance of it may hold what it owns."""
    needs: tuple[str, ...] = ()
    """Services that must serve before the program is started."""
    instances: int = Field(1, ge=1, le=MAX_INSTANCES)
    """How many processes of it run; only where none of them must own something alone."""
    restart: Literal["always", "on-failure", "never"] = "always"
    """Whether it is started again when it ends by itself."""
    backoff_first_s: float = Field(0.1, gt=0, le=60)
    """Pause before the first start after a failure; it doubles with each failure in a row."""
    backoff_max_s: float = Field(30.0, gt=0, le=3600)
    """The longest pause."""
    backoff_reset_s: float = Field(30.0, gt=0)
    """After serving for so long its failures are forgotten."""
    crash_loop_after: int = Field(5, ge=1, le=1000)
    """From so many failures in a row on it counts as a crash loop."""
    ready_deadline_s: float | None = Field(None, gt=0)
    """As in `[registry]`, which holds when it is unset."""
    stop_deadline_s: float | None = Field(None, gt=0)
    """As in `[registry]`, which holds when it is unset."""
    liveness_deadline_s: float | None = Field(None, gt=1)
    """As in `[registry]`, which holds when it is unset."""

    @model_validator(mode="after")
    def _fits_together(self) -> ServiceSection:
        if self.backoff_max_s < self.backoff_first_s:
            raise ValueError(
                f"backoff_max_s is {self.backoff_max_s:g}: allowed is backoff_first_s ({self.backoff_first_s:g}) or more"
            )
        if self.single_owner and self.instances > 1:
            raise ValueError(f"instances is {self.instances}: allowed is 1 for a single_owner")
        if self.single_owner and not self.attaches:
            raise ValueError("single_owner is told in the hello: allowed only where attaches is true")
        wrong = [name for name in self.environment if not _VARIABLE.fullmatch(name)]
        if wrong:
            raise ValueError(f"environment.{wrong[0]}: a name of letters, digits and _ is needed")
        if "" in self.command:
            raise ValueError("command has an empty part: the program and its arguments are needed")
        return self


_DEFAULT: Final = ServiceSection()
_OF_PROGRAMS: Final = ("command", "environment", "attaches", "settle_s", "single_owner", "needs")


def check_services(services: Mapping[str, ServiceSection], planned: tuple[str, ...]) -> None:
    """Whether the tables fit the services that there are. Raises ValueError naming the key."""
    for name, section in services.items():
        if name in service_names():
            _check_own(name, section)
            continue
        if not _NAME.fullmatch(name):
            raise ValueError(f"services.{name}: a name of lower-case letters, digits and _ is needed")
        if not section.command:
            raise ValueError(
                f"services.{name}.command is missing: {name} is none of the mesh's own services"
                f" ({', '.join(service_names())}), so its command line is needed"
            )
    known = {*planned, *services}
    for name, section in services.items():
        unknown = [need for need in section.needs if need not in known or need == name]
        if unknown:
            raise ValueError(
                f"services.{name}.needs names {unknown[0]!r}: allowed are {', '.join(sorted(known - {name}))}"
            )


def _check_own(name: str, section: ServiceSection) -> None:
    if name == REGISTRY:
        raise ValueError(f"services.{name}: the registry is kept by the keeper, which asks for no configuration")
    given = [key for key in _OF_PROGRAMS if getattr(section, key) != getattr(_DEFAULT, key)]
    if given:
        raise ValueError(f"services.{name}.{given[0]} is for programs of your own: {name} is the mesh's own service")
    owns = entry(name).owns
    if section.instances > 1 and owns:
        raise ValueError(
            f"services.{name}.instances is {section.instances}: allowed is 1, for one process alone holds {owns}"
        )
