"""Decides when a message or enum can no longer be read by who knows its old form."""

from __future__ import annotations

from collections.abc import Iterator

from google.protobuf import descriptor_pb2

from minhos_mesh.compatibility import fields, ranges
from minhos_mesh.compatibility.symbols import Enum, Field, Message, Symbols
from minhos_mesh.compatibility.violation import GONE, Violation, broken


def compare_messages(old: Message, new: Message, before: Symbols, after: Symbols) -> Iterator[Violation]:
    """What breaks between two messages of the same name."""
    yield from _json("MESSAGE_SAME_JSON_FORMAT", old, new)
    by_number = {field.number: field for field in new.proto.field}
    for field in old.proto.field:
        same = by_number.get(field.number)
        if same is None:
            yield from _deleted_field(old, new, field)
        else:
            yield from fields.compare(place_of(old, field, before), place_of(new, same, after))
    yield from _required(old, new)
    yield from _reserved(old, new, "message", _message_ranges(old.proto), _message_ranges(new.proto))


def place_of(message: Message, field: Field, symbols: Symbols) -> fields.Place:
    """A field of a message in its set."""
    oneofs = tuple(each.name for each in message.proto.oneof_decl)
    return fields.Place(symbols, message.file, field, f"{message.name}.{field.name}", oneofs, message.is_map_entry)


def compare_enums(old: Enum, new: Enum) -> Iterator[Violation]:
    """What breaks between two enums of the same name."""
    yield from _json("ENUM_SAME_JSON_FORMAT", old, new)
    before, after = _names(old.proto), _names(new.proto)
    reserved = _enum_ranges(new.proto)
    for number, names in before.items():
        told = " = ".join((*names, str(number)))
        element = f"{old.name}.{names[0]}"
        if number in after:
            if not set(names) <= set(after[number]):
                now = " = ".join((*after[number], str(number)))
                yield broken("ENUM_VALUE_SAME_NAME", new.file.name, element, told, now)
            continue
        if not ranges.covers(reserved, number):
            rule = "ENUM_VALUE_NO_DELETE_UNLESS_NUMBER_RESERVED"
            yield broken(rule, old.file.name, element, told, f"{GONE}, number {number} not reserved")
        if not set(names) <= set(new.proto.reserved_name):
            rule = "ENUM_VALUE_NO_DELETE_UNLESS_NAME_RESERVED"
            yield broken(rule, old.file.name, element, told, f"{GONE}, name {', '.join(names)} not reserved")
    yield from _reserved(old, new, "enum", _enum_ranges(old.proto), reserved)


def _deleted_field(old: Message, new: Message, field: Field) -> Iterator[Violation]:
    element, told = f"{old.name}.{field.name}", f"{field.name} = {field.number}"
    if not ranges.covers(_message_ranges(new.proto), field.number):
        rule = "FIELD_NO_DELETE_UNLESS_NUMBER_RESERVED"
        yield broken(rule, new.file.name, element, told, f"{GONE}, number {field.number} not reserved")
    if field.name not in new.proto.reserved_name:
        rule = "FIELD_NO_DELETE_UNLESS_NAME_RESERVED"
        yield broken(rule, new.file.name, element, told, f"{GONE}, name {field.name} not reserved")


def _required(old: Message, new: Message) -> Iterator[Violation]:
    before = {field.number: field for field in old.proto.field if field.label == Field.LABEL_REQUIRED}
    after = {field.number: field for field in new.proto.field if field.label == Field.LABEL_REQUIRED}
    rule = "MESSAGE_SAME_REQUIRED_FIELDS"
    for number in sorted(before.keys() ^ after.keys()):
        texts = ("required", "not required") if number in before else ("not required", "required")
        field = before.get(number) or after[number]
        yield broken(rule, new.file.name, f"{new.name}.{field.name}", *texts)


def _json(rule: str, old: Message | Enum, new: Message | Enum) -> Iterator[Violation]:
    if old.json and not new.json:
        yield broken(rule, new.file.name, new.name, "canonical JSON", "best effort")


def _reserved(
    old: Message | Enum, new: Message | Enum, what: str, before: list[ranges.Range], after: list[ranges.Range]
) -> Iterator[Violation]:
    rule = f"RESERVED_{what.upper()}_NO_DELETE"
    for each, gaps in ranges.missing(before, after):
        told = f"reserved {ranges.text([each], what)}"
        yield broken(rule, new.file.name, new.name, told, f"{ranges.text(gaps, what)} no longer reserved")
    for name in sorted(set(old.proto.reserved_name) - set(new.proto.reserved_name)):
        yield broken(rule, new.file.name, new.name, f"reserved {name}", f"{name} no longer reserved")


def _message_ranges(proto: descriptor_pb2.DescriptorProto) -> list[ranges.Range]:
    return [(each.start, each.end - 1) for each in proto.reserved_range]


def _enum_ranges(proto: descriptor_pb2.EnumDescriptorProto) -> list[ranges.Range]:
    return [(each.start, each.end) for each in proto.reserved_range]


def _names(proto: descriptor_pb2.EnumDescriptorProto) -> dict[int, tuple[str, ...]]:
    found: dict[int, tuple[str, ...]] = {}
    for value in proto.value:
        found[value.number] = tuple(sorted((*found.get(value.number, ()), value.name)))
    return found
