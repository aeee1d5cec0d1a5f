"""Reads what the contracts say about themselves: deadlines, access, safe retries, dependencies, event types.

Everything comes from the descriptors and custom options of `minhos_api`; nothing is repeated in code.
"""

from __future__ import annotations

import functools
import importlib
import pkgutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from google.protobuf import descriptor_pb2, descriptor_pool
from google.protobuf.descriptor import Descriptor, FileDescriptor, MethodDescriptor, ServiceDescriptor

import minhos_api
from minhos_api.mesh.v1 import contract_options_pb2 as options

if TYPE_CHECKING:
    from protovalidate import Validator

ROOT_PACKAGE: Final = "minhos_api."

EVENT_BUS: Final = "minhos_api.events.v1.EventBusService"
"""Needed, without a word in its contract, by every service that tells or hears events."""

_SAFE: Final = (
    descriptor_pb2.MethodOptions.IdempotencyLevel.NO_SIDE_EFFECTS,
    descriptor_pb2.MethodOptions.IdempotencyLevel.IDEMPOTENT,
)


@dataclass(frozen=True, slots=True)
class Need:
    """A contract that another one needs."""

    contract: str
    """Full name."""
    required: bool
    """False when its dependent can do without."""


@dataclass(frozen=True, slots=True)
class Method:
    """One RPC as its contract describes it."""

    path: str
    """`/package.Service/Method`."""
    name: str
    """Name of the RPC."""
    timeout_s: float | None
    """Deadline of a call; None for a stream that is open until one side ends it."""
    heartbeat_s: float | None
    """Longest silence of such a stream; None for every other RPC."""
    access: str
    """READ, TRADE, OPERATE or MESH."""
    retry_safe: bool
    """Whether a call may be sent again when its answer is lost."""
    request_streaming: bool
    """Whether the client sends a stream."""
    response_streaming: bool
    """Whether the server sends a stream."""


@dataclass(frozen=True, slots=True)
class Contract:
    """One service of `minhos_api` as its contract describes it."""

    name: str
    """Full name, for example `minhos_api.risk.v1.RiskManagerService`."""
    interface: str
    """Name among traders, for example `IRiskManager`; empty when there is none."""
    needs: tuple[Need, ...]
    """Contracts it depends on."""
    publishes: tuple[str, ...]
    """Event types it publishes."""
    consumes: tuple[str, ...]
    """Event types it consumes."""
    methods: Mapping[str, Method]
    """RPCs by name."""

    @property
    def short_name(self) -> str:
        """Name without its package."""
        return self.name.rpartition(".")[2]


@dataclass(frozen=True, slots=True)
class EventType:
    """One event type in one version."""

    type: str
    """For example `trade.executed`."""
    version: int
    """Version of the payload; older ones are read as this where they have no definition of their own."""
    payload: Descriptor
    """Message that carries it."""
    validator: Validator | None = None
    """What knows the rules of the message; None for one of this program."""


@functools.cache
def load_all() -> tuple[FileDescriptor, ...]:
    """Imports every contract module, so that reflection and the catalogue know them, and returns their files."""
    modules = (module.name for module in pkgutil.walk_packages(minhos_api.__path__, ROOT_PACKAGE))
    files = [importlib.import_module(name).DESCRIPTOR for name in modules if name.endswith("_pb2")]
    return tuple(sorted(files, key=lambda file: str(file.name)))


@functools.cache
def all_contracts() -> Mapping[str, Contract]:
    """Every contract of `minhos_api` by full name."""
    found = [contract_of(service) for file in load_all() for service in file.services_by_name.values()]
    return {contract.name: contract for contract in sorted(found, key=lambda contract: contract.name)}


@functools.cache
def contract(name: str) -> Contract:
    """One contract by full name; its module must have been imported. Raises KeyError."""
    return contract_of(descriptor_pool.Default().FindServiceByName(name))


@functools.cache
def event_catalogue() -> Mapping[str, EventType]:
    """Every event type by name."""
    found: dict[str, EventType] = {}
    for file in load_all():
        for message in file.message_types_by_name.values():
            event = message.GetOptions().Extensions[options.event]
            if event.type:
                found[event.type] = EventType(event.type, event.version, message)
    return dict(sorted(found.items()))


@functools.cache
def event_of(payload: Descriptor) -> EventType | None:
    """The event type whose payload this message is; None when it is none."""
    event = payload.GetOptions().Extensions[options.event]
    return EventType(event.type, event.version, payload) if event.type else None


def contract_of(service: ServiceDescriptor) -> Contract:
    """Reads one service descriptor."""
    said = service.GetOptions().Extensions[options.contract]
    return Contract(
        name=str(service.full_name),
        interface=said.interface,
        needs=tuple(Need(need.contract, need.kind != options.DEPENDENCY_KIND_OPTIONAL) for need in said.depends_on),
        publishes=tuple(said.publishes),
        consumes=tuple(said.consumes),
        methods={str(method.name): _method_of(service, method) for method in service.methods},
    )


def descriptor_set(contracts: Iterable[str]) -> bytes:
    """Serialized FileDescriptorSet of the files of these contracts with all their imports, dependencies first."""
    pool = descriptor_pool.Default()
    return _serialized(pool.FindServiceByName(name).file for name in contracts)


def built_with(contracts: Iterable[str]) -> bytes:
    """The same for a server of these contracts: with what it needs and with the events that it tells and hears."""
    pool, catalogue = descriptor_pool.Default(), event_catalogue()
    served = [contract(name) for name in contracts]
    needed = {need.contract for each in served for need in each.needs}
    events = {event for each in served for event in (*each.publishes, *each.consumes)}
    if events:
        needed.add(EVENT_BUS)
    names = [*(each.name for each in served), *sorted(needed)]
    files = [pool.FindServiceByName(name).file for name in names]
    return _serialized([*files, *(catalogue[event].payload.file for event in sorted(events) if event in catalogue)])


def whole_set() -> bytes:
    """The same for all contracts and events that this program contains."""
    return _serialized(load_all())


def _serialized(files: Iterable[FileDescriptor]) -> bytes:
    out, seen = descriptor_pb2.FileDescriptorSet(), set[str]()

    def add(file: FileDescriptor) -> None:
        if file.name in seen:
            return
        seen.add(str(file.name))
        for dependency in file.dependencies:
            add(dependency)
        out.file.add().ParseFromString(file.serialized_pb)

    for file in files:
        add(file)
    return out.SerializeToString(deterministic=True)


def _method_of(service: ServiceDescriptor, method: MethodDescriptor) -> Method:
    said = method.GetOptions().Extensions[options.method]
    kind = said.WhichOneof("deadline")
    level = method.GetOptions().idempotency_level
    return Method(
        path=f"/{service.full_name}/{method.name}",
        name=str(method.name),
        timeout_s=said.default_timeout.ToTimedelta().total_seconds() if kind == "default_timeout" else None,
        heartbeat_s=said.heartbeat_interval.ToTimedelta().total_seconds() if kind == "heartbeat_interval" else None,
        access=options.Access.Name(said.access).removeprefix("ACCESS_"),
        retry_safe=level in _SAFE,
        request_streaming=bool(method.client_streaming),
        response_streaming=bool(method.server_streaming),
    )
