"""Decides what has a name in a descriptor set, and which of it a contract reaches."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from google.protobuf import descriptor_pb2

from minhos_api.mesh.v1 import contract_options_pb2 as options

Field = descriptor_pb2.FieldDescriptorProto
File = descriptor_pb2.FileDescriptorProto
Features = descriptor_pb2.FeatureSet


@dataclass(frozen=True, slots=True)
class Message:
    """One message with where it stands."""

    name: str
    """Full name."""
    file: File
    proto: descriptor_pb2.DescriptorProto
    json: bool
    """Whether its JSON form is the canonical one."""

    @property
    def is_map_entry(self) -> bool:
        """Whether it only stands for the entries of a map."""
        return self.proto.options.map_entry


@dataclass(frozen=True, slots=True)
class Enum:
    """One enum with where it stands."""

    name: str
    """Full name."""
    file: File
    proto: descriptor_pb2.EnumDescriptorProto
    json: bool
    """Whether its JSON form is the canonical one."""

    @property
    def short_name(self) -> str:
        """Name without what surrounds it."""
        return self.proto.name


@dataclass(frozen=True, slots=True)
class Service:
    """One contract with where it stands."""

    name: str
    """Full name."""
    file: File
    proto: descriptor_pb2.ServiceDescriptorProto


@dataclass(frozen=True, slots=True)
class Extension:
    """One field that is added to a message from outside."""

    name: str
    """Full name."""
    file: File
    proto: Field


@dataclass(frozen=True, slots=True)
class Reach:
    """Types that can be met through some contracts, by full name."""

    sent: frozenset[str]
    """Messages that callers send, or that are published: what is refused here harms the sender."""
    all: frozenset[str]
    """Messages in either direction."""
    enums: frozenset[str]

    def __or__(self, other: Reach) -> Reach:
        """What either reaches."""
        return Reach(self.sent | other.sent, self.all | other.all, self.enums | other.enums)

    def only(self, names: frozenset[str]) -> Reach:
        """Of this what has one of these names."""
        return Reach(self.sent & names, self.all & names, self.enums & names)


@dataclass(frozen=True, slots=True)
class Symbols:
    """All that has a name, by full name."""

    messages: dict[str, Message] = field(default_factory=dict)
    enums: dict[str, Enum] = field(default_factory=dict)
    services: dict[str, Service] = field(default_factory=dict)
    extensions: dict[tuple[str, int], Extension] = field(default_factory=dict)
    """By extended message and number."""
    events: dict[str, Message] = field(default_factory=dict)
    """Payloads by event type."""

    @classmethod
    def of(cls, files: Iterable[File]) -> Symbols:
        """Reads all files."""
        found = cls()
        for file in files:
            json = _json(file.options.features, inherited=file.syntax in {"proto3", "editions"})
            for message in file.message_type:
                found._add_message(file, message, file.package, json=json)
            for enum in file.enum_type:
                found._add_enum(file, enum, file.package, json=json)
            for service in file.service:
                name = _full(file.package, service.name)
                found.services[name] = Service(name, file, service)
            found._add_extensions(file, file.extension, file.package)
        return found

    def reach(self, services: Iterable[str], events: Iterable[str] = ()) -> Reach:
        """What can be met through these contracts and event types; names that are unknown reach nothing."""
        asked, answered = set[str](), set[str]()
        for name in services:
            if name in self.services:
                for method in self.services[name].proto.method:
                    asked.add(method.input_type.lstrip("."))
                    answered.add(method.output_type.lstrip("."))
        asked.update(self.events[kind].name for kind in events if kind in self.events)
        sent, enums = self._closure(asked)
        both, all_enums = self._closure(asked | answered)
        return Reach(frozenset(sent), frozenset(both), frozenset(enums | all_enums))

    def held_by(self, message: str) -> frozenset[str]:
        """A message with all messages and enums that can stand in it, by full name; empty when it is unknown."""
        messages, enums = self._closure([message])
        return frozenset(messages | enums)

    def everything(self) -> Reach:
        """All types; what only comes back from a call of some contract is the one thing that nobody sends."""
        reached = self.reach(self.services, self.events)
        answers_only = reached.all - reached.sent
        return Reach(frozenset(self.messages) - answers_only, frozenset(self.messages), frozenset(self.enums))

    def _closure(self, roots: Iterable[str]) -> tuple[set[str], set[str]]:
        waiting, messages, enums = list(roots), set[str](), set[str]()
        while waiting:
            name = waiting.pop()
            if name in messages or name not in self.messages:
                continue
            messages.add(name)
            for each in self.messages[name].proto.field:
                if each.type == Field.TYPE_ENUM:
                    enums.add(each.type_name.lstrip("."))
                elif each.type in {Field.TYPE_MESSAGE, Field.TYPE_GROUP}:
                    waiting.append(each.type_name.lstrip("."))
        return messages, enums

    def _add_message(self, file: File, proto: descriptor_pb2.DescriptorProto, scope: str, *, json: bool) -> None:
        name, json = _full(scope, proto.name), _json(proto.options.features, inherited=json)
        message = self.messages[name] = Message(name, file, proto, json)
        event = proto.options.Extensions[options.event].type
        if event:
            self.events[event] = message
        for nested in proto.nested_type:
            self._add_message(file, nested, name, json=json)
        for enum in proto.enum_type:
            self._add_enum(file, enum, name, json=json)
        self._add_extensions(file, proto.extension, name)

    def _add_enum(self, file: File, proto: descriptor_pb2.EnumDescriptorProto, scope: str, *, json: bool) -> None:
        name = _full(scope, proto.name)
        self.enums[name] = Enum(name, file, proto, _json(proto.options.features, inherited=json))

    def _add_extensions(self, file: File, extensions: Iterable[Field], scope: str) -> None:
        for each in extensions:
            key = (each.extendee.lstrip("."), each.number)
            self.extensions[key] = Extension(_full(scope, each.name), file, each)


def methods(service: Service) -> Iterator[tuple[str, descriptor_pb2.MethodDescriptorProto]]:
    """Methods with their full names."""
    for method in service.proto.method:
        yield f"{service.name}.{method.name}", method


def _full(scope: str, name: str) -> str:
    return f"{scope}.{name}" if scope else name


def _json(features: Features, *, inherited: bool) -> bool:
    return features.json_format == Features.ALLOW if features.HasField("json_format") else inherited
