"""Decides what a person sees of a service: what the registry lists and what the health monitor says, as one."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from google.protobuf.timestamp_pb2 import Timestamp
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from minhos_api.health.v1 import health_monitor_service_pb2 as monitor
from minhos_api.health.v1 import resource_use_pb2, service_health_pb2
from minhos_api.registry.v1 import registry_service_pb2 as registry
from minhos_mesh.cli import show

FINE: Final = ("HEALTHY", "STOPPED")
"""States in which nobody has to do anything."""
_NO_USE: Final = resource_use_pb2.ResourceUse()
_NO_HEALTH: Final = service_health_pb2.ServiceHealth()
_NO_INSTANCE: Final = service_health_pb2.InstanceHealth()


@dataclass(frozen=True, slots=True)
class SeenInstance:
    """One instance."""

    listed: registry.Instance
    health: service_health_pb2.InstanceHealth

    @property
    def use(self) -> resource_use_pb2.ResourceUse:
        """What its process uses; empty when that is not known."""
        return self.listed.use if self.listed.HasField("use") else _NO_USE

    @property
    def name(self) -> str:
        """Its id without the name of its service, indented, for a row below the service."""
        return f"  {self.listed.instance_id.removeprefix(f'{self.listed.service}-')}"

    @property
    def state(self) -> Text:
        """Its own state; a dash when it is not known."""
        return show.state_text(show.state_name(self.health.state)) if self.health.instance_id else Text("-")

    @property
    def pid(self) -> str:
        """Its process."""
        return str(self.listed.pid) if self.listed.HasField("pid") else "-"

    def uptime(self, now: float) -> str:
        """How long its process runs."""
        return uptime(self.listed.start_time if self.listed.HasField("start_time") else None, now)

    @property
    def cpu_percent(self) -> float | None:
        """Share of a core."""
        share: float | None = _optional(self.use, "cpu_percent")
        return share

    @property
    def memory_bytes(self) -> int | None:
        """Its proportional share of memory; None until that was read for the first time."""
        pss: int | None = _optional(self.use, "pss_bytes")
        return pss

    @property
    def address(self) -> str:
        """Where it listens; a dash for a process that is only watched."""
        return self.listed.address or "-"


@dataclass(frozen=True, slots=True)
class SeenService:
    """One service."""

    listed: registry.Service
    health: service_health_pb2.ServiceHealth
    instances: tuple[SeenInstance, ...]

    @property
    def name(self) -> str:
        """Its name."""
        return self.listed.name

    @property
    def state(self) -> str:
        """`HEALTHY` and its like."""
        return show.state_name(self.listed.state)

    @property
    def cpu_percent(self) -> float | None:
        """Share of a core of all its instances."""
        return total(instance.cpu_percent for instance in self.instances)

    @property
    def memory_bytes(self) -> int | None:
        """Memory of all its instances; None until all of them are known."""
        return memory_of(self.instances)

    def count(self) -> str:
        """How many instances there are, and of how many that should be where these differ."""
        here, wanted = len(self.instances), self.health.wanted_instances
        return f"{here}/{wanted}" if wanted > 1 or (wanted and here > wanted) else str(here)

    def uptime(self, now: float) -> str:
        """Since when its oldest process runs."""
        return uptime(self.listed.start_time if self.listed.HasField("start_time") else None, now)


def memory_of(instances: Iterable[SeenInstance]) -> int | None:
    """Proportional share of memory of some instances together; None when that of one is not known: a part is no sum."""
    known = [instance.memory_bytes for instance in instances]
    return None if not known or None in known else sum(filter(None, known))


def join(
    listed: registry.ListServicesResponse, health: monitor.GetMeshHealthResponse | None = None
) -> tuple[SeenService, ...]:
    """All services in alphabetical order; without their health only what is listed."""
    by_name = {} if health is None else {item.service: item for item in health.services}
    return tuple(_service(service, by_name.get(service.name, _NO_HEALTH)) for service in listed.services)


def _service(listed: registry.Service, health: service_health_pb2.ServiceHealth) -> SeenService:
    by_id = {instance.instance_id: instance for instance in health.instances}
    instances = (SeenInstance(i, by_id.get(i.instance_id, _NO_INSTANCE)) for i in listed.instances)
    return SeenService(listed, health, tuple(instances))


def table(services: Sequence[SeenService], width: int) -> Table:
    """All services, and each instance where there are several; addresses are shown where they fit."""
    now, wide = time.time(), width >= _WIDE
    columns = ["SERVICE", "STATE", "INST", "UPTIME", "RESTARTS", "CPU", "MEMORY", "PID"]
    rows = [row if wide else row[:-1] for service in services for row in _rows(service, now)]
    return show.table([*columns, "ADDRESS"] if wide else columns, rows, right=columns[2:])


_WIDE: Final = 110


def _rows(service: SeenService, now: float) -> Iterator[tuple[str | Text, ...]]:
    alone = service.instances[0] if len(service.instances) == 1 else None
    yield (
        service.name,
        show.state_text(service.state),
        service.count(),
        service.uptime(now),
        str(service.listed.restarts),
        show.percent(service.cpu_percent),
        show.size(service.memory_bytes),
        *(("-" if not service.instances else "", "") if alone is None else (alone.pid, alone.address)),
    )
    for instance in service.instances if alone is None else ():
        yield (
            instance.name,
            instance.state,
            "",
            instance.uptime(now),
            "",
            show.percent(instance.cpu_percent),
            show.size(instance.memory_bytes),
            instance.pid,
            instance.address,
        )


def faults(services: Iterable[SeenService]) -> Group | None:
    """What is not as it should be, with why and what to do about it, the worst first; None when all is well.

    What is wrong with several services for the same reason is said once.
    """
    found: dict[tuple[str, str], list[SeenService]] = {}
    for service in sorted(services, key=_worst_first):
        if service.state not in FINE:
            for reason in service.health.reasons:
                found.setdefault((reason.message, reason.action), []).append(service)
    lines: list[RenderableType] = []
    for (message, action), harmed in found.items():
        names = Text(", ").join(Text(service.name, show.COLOURS.get(service.state, "")) for service in harmed)
        lines.append(Text.assemble(names, f": {message}"))
        lines.append(Padding(Text(f"-> {action}", style="dim"), (0, 0, 0, 2), expand=False))
    return Group(*lines) if lines else None


def _worst_first(service: SeenService) -> tuple[int, str]:
    order = ("UNHEALTHY", "STOPPING", "STARTING", "DEGRADED")
    return order.index(service.state) if service.state in order else len(order), service.name


def uptime(began: Timestamp | None, now: float) -> str:
    """How long something has been running; a dash when it does not."""
    return "-" if began is None else show.age(now - began.ToNanoseconds() / 1e9)


def total(values: Iterable[float | None]) -> float | None:
    """The sum of what is known; None when nothing is."""
    known = [value for value in values if value is not None]
    return sum(known) if known else None


def _optional(message: Any, name: str) -> Any:
    return show.optional(message, name)


def service_dict(service: SeenService) -> dict[str, Any]:
    """One service as `status --json` has it."""
    listed = service.listed
    return {
        "name": service.name,
        "state": service.state,
        "reasons": list(listed.reasons),
        "faults": [
            {"code": reason.code, "message": reason.message, "suggested_action": reason.action}
            for reason in service.health.reasons
        ],
        "suggested_action": service.health.suggested_action,
        "wanted_instances": service.health.wanted_instances,
        "start_time": _time(listed, "start_time"),
        "instances": [_instance_dict(instance) for instance in service.instances],
        "contracts": list(listed.contracts),
        "depends_on": list(listed.depends_on_services),
        "restarts": listed.restarts,
        "errors": list(listed.errors),
    }


def _instance_dict(instance: SeenInstance) -> dict[str, Any]:
    listed, health, use = instance.listed, instance.health, instance.use
    return {
        "id": listed.instance_id,
        "state": show.state_name(health.state) if health.instance_id else None,
        "address": listed.address or None,
        "pid": show.optional(listed, "pid"),
        "in_rotation": listed.in_rotation,
        "version": listed.version,
        "versions": dict(sorted(listed.versions.items())),
        "fencing_token": listed.fencing_token,
        "start_time": _time(listed, "start_time"),
        "heartbeat_time": _time(listed, "heartbeat_time"),
        "calls_in_flight": health.calls_in_flight,
        "internal_errors": health.internal_errors,
        "cpu_percent": _rounded(_optional(use, "cpu_percent")),
        "cpu_seconds": _optional(use, "cpu_seconds"),
        "pss_bytes": _optional(use, "pss_bytes"),
        "rss_bytes": _optional(use, "rss_bytes"),
        "open_files": _optional(use, "open_files"),
        "threads": _optional(use, "threads"),
    }


def _time(message: Any, field: str) -> str | None:
    return show.when(getattr(message, field)).isoformat() if message.HasField(field) else None


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 2)
