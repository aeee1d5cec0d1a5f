"""Decides what a new contract set has that an old one has not; additions break nobody."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from minhos_mesh.compatibility import calls, fields
from minhos_mesh.compatibility.descriptors import ContractSet
from minhos_mesh.compatibility.symbols import Message, methods
from minhos_mesh.compatibility.types import place_of
from minhos_mesh.compatibility.violation import shown


@dataclass(frozen=True, slots=True, order=True)
class Addition:
    """One thing that is new."""

    file: str
    element: str
    """Full name."""
    kind: str
    """`contract`, `method`, `message`, `field`, `enum` or `value`."""
    text: str
    """What it is, as a contract writes it."""


def additions(old: ContractSet, new: ContractSet) -> tuple[Addition, ...]:
    """All that is new, in order; what is inside of something new is not listed again."""
    return tuple(sorted((*_services(old, new), *_messages(old, new), *_enums(old, new))))


def _services(old: ContractSet, new: ContractSet) -> Iterator[Addition]:
    for name, service in new.symbols.services.items():
        before = old.symbols.services.get(name)
        if before is None:
            yield _new("contract", service.file.name, name, f"{len(service.proto.method)} methods")
            continue
        known = {method.name for method in before.proto.method}
        for full, method in methods(service):
            if method.name not in known:
                yield _new("method", service.file.name, full, calls.signature(method))


def _messages(old: ContractSet, new: ContractSet) -> Iterator[Addition]:
    for name, message in new.symbols.messages.items():
        if message.is_map_entry:
            continue
        before = old.symbols.messages.get(name)
        if before is None:
            yield _new("message", message.file.name, name, f"{len(message.proto.field)} fields")
            continue
        known = {field.number for field in before.proto.field}
        for field in message.proto.field:
            if field.number not in known:
                yield _new("field", message.file.name, f"{name}.{field.name}", _field(new, message, field.number))


def _field(new: ContractSet, message: Message, number: int) -> str:
    field = next(field for field in message.proto.field if field.number == number)
    place = place_of(message, field, new.symbols)
    label = fields.cardinality(place)
    type_name = field.type_name.lstrip(".") or fields.kind(place)
    prefix = "" if label == "implicit" or fields.oneof_of(place) else f"{label} "
    return f"{prefix}{type_name} {field.name} = {number}"


def _enums(old: ContractSet, new: ContractSet) -> Iterator[Addition]:
    for name, enum in new.symbols.enums.items():
        before = old.symbols.enums.get(name)
        if before is None:
            yield _new("enum", enum.file.name, name, f"{len(enum.proto.value)} values")
            continue
        known = {value.number for value in before.proto.value}
        for value in enum.proto.value:
            if value.number not in known:
                yield _new("value", enum.file.name, f"{name}.{value.name}", f"{value.name} = {value.number}")


def _new(kind: str, file: str, element: str, text: str) -> Addition:
    return Addition(shown(file), shown(element), kind, shown(text))


def total(found: Iterable[Addition]) -> str:
    """How many of each kind, for people."""
    counts: dict[str, int] = {}
    for each in found:
        counts[each.kind] = counts.get(each.kind, 0) + 1
    plural = {"contract": "contracts", "method": "methods", "message": "messages", "enum": "enums", "value": "values"}
    parts = [f"{n} {kind if n == 1 else plural.get(kind, f'{kind}s')}" for kind, n in sorted(counts.items())]
    return ", ".join(parts) or "nothing"
