"""Event types of a program of its own: descriptors as it would offer them, its payloads, and a registry that has them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import Message

from buf.validate import validate_pb2
from minhos_api.events.v1 import event_pb2
from minhos_api.mesh.v1 import contract_options_pb2 as options
from minhos_mesh.compatibility.descriptors import resolve
from minhos_mesh.registry.contract_directory import ContractDirectory
from minhos_mesh.registry.contract_gate import ContractGate
from minhos_mesh.registry.contract_servicer import CONTRACT_ERRORS, ContractServicer
from minhos_mesh.registry.domain.leases import InstanceKey
from minhos_mesh.registry.offered_events import OfferedEvents
from minhos_mesh.runtime.contracts import whole_set
from minhos_mesh.runtime.event_envelope import uuid7
from minhos_mesh.runtime.server import MeshServer

CONTRACTS = "minhos_api.registry.v1.ContractService"
OWN_CONTRACT = "acme.v1.WeatherService"
_STRING, _INT64 = 9, 3


def descriptors(
    event_type: str = "weather.measured",
    version: int = 1,
    *,
    message: str = "acme.v1.Measured",
    fields: Iterable[str] = ("station",),
    shortest: int = 1,
    numbers: Iterable[str] = (),
) -> bytes:
    """One file with a contract and the payload of one event type; each text field has `shortest` characters at least."""
    package, _, name = message.rpartition(".")
    file = descriptor_pb2.FileDescriptorProto(
        name=f"{package.replace('.', '/')}/{name.lower()}.proto",
        package=package,
        syntax="proto3",
        dependency=["buf/validate/validate.proto", "minhos_api/mesh/v1/contract_options.proto"],
    )
    payload = file.message_type.add(name=name)
    payload.options.Extensions[options.event].type = event_type
    payload.options.Extensions[options.event].version = version
    for number, field in enumerate(fields, start=1):
        added = payload.field.add(name=field, json_name=field, number=number, type=_STRING, label=1)
        added.options.Extensions[validate_pb2.field].string.min_len = shortest
    for number, field in enumerate(numbers, start=len(payload.field) + 1):
        payload.field.add(name=field, json_name=field, number=number, type=_INT64, label=1)
    ask = file.message_type.add(name="Ask")
    service = file.service.add(name="WeatherService")
    service.options.Extensions[options.contract].publishes.append(event_type)
    service.method.add(name="Measure", input_type=f".{package}.{ask.name}", output_type=f".{package}.{ask.name}")
    found = descriptor_pb2.FileDescriptorSet(file=[*_imports(file.dependency), file])
    return found.SerializeToString(deterministic=True)


def payload(built: bytes, message: str = "acme.v1.Measured", **values: Any) -> Message:
    """A payload, made as the program of its own makes it."""
    pool = descriptor_pool.DescriptorPool()
    for file in descriptor_pb2.FileDescriptorSet.FromString(built).file:
        pool.AddSerializedFile(file.SerializeToString())
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(message))(**values)


def event_of(made: Message, version: int = 1, source: str = "weather", **more: Any) -> event_pb2.Event:
    """The event of such a payload, as a program in any language puts it together."""
    kind = made.DESCRIPTOR.GetOptions().Extensions[options.event].type
    event = event_pb2.Event(event_id=uuid7(), type=kind, version=version, source=source, subject="north", **more)
    event.event_time.seconds = 1_790_000_000
    event.payload.type_url = f"type.googleapis.com/{made.DESCRIPTOR.full_name}"
    event.payload.value = made.SerializeToString()
    return event


class OfferingRegistry:
    """The part of a registry that knows what instances were built with."""

    def __init__(self) -> None:
        self.gate = ContractGate(resolve(whole_set()), "1")
        directory: ContractDirectory = None  # type: ignore[assignment]  # nothing is asked of it here
        self.servicer = ContractServicer(directory, OfferedEvents(self.gate))
        self.server = MeshServer([self.servicer], errors=CONTRACT_ERRORS)

    def attach(self, built: bytes, service: str = "weather", instance: str = "1") -> None:
        """As if the instance had said hello with these descriptors."""
        self.gate.knows(InstanceKey(service, f"{service}-{instance}"), [OWN_CONTRACT], (), resolve(built))

    def leave(self, service: str = "weather", instance: str = "1") -> None:
        """As if it had gone."""
        self.gate.left(InstanceKey(service, f"{service}-{instance}"))


def _imports(names: Iterable[str]) -> list[descriptor_pb2.FileDescriptorProto]:
    found: dict[str, descriptor_pb2.FileDescriptorProto] = {}

    def add(name: str) -> None:
        file = descriptor_pool.Default().FindFileByName(name)
        for imported in file.dependencies:
            add(str(imported.name))
        found.setdefault(name, descriptor_pb2.FileDescriptorProto.FromString(file.serialized_pb))

    for name in names:
        add(name)
    return list(found.values())
