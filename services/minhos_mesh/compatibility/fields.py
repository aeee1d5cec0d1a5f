"""Decides when a field can no longer be read by who knows its old form: name, JSON name, type, cardinality, oneof, default."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from google.protobuf import descriptor_pb2

from minhos_mesh.compatibility.symbols import Enum, Features, Field, File, Symbols
from minhos_mesh.compatibility.violation import Violation, broken

_SCALARS: Final[Mapping[int, str]] = MappingProxyType(
    {
        Field.TYPE_DOUBLE: "double",
        Field.TYPE_FLOAT: "float",
        Field.TYPE_INT64: "int64",
        Field.TYPE_UINT64: "uint64",
        Field.TYPE_INT32: "int32",
        Field.TYPE_FIXED64: "fixed64",
        Field.TYPE_FIXED32: "fixed32",
        Field.TYPE_BOOL: "bool",
        Field.TYPE_STRING: "string",
        Field.TYPE_BYTES: "bytes",
        Field.TYPE_UINT32: "uint32",
        Field.TYPE_SFIXED32: "sfixed32",
        Field.TYPE_SFIXED64: "sfixed64",
        Field.TYPE_SINT32: "sint32",
        Field.TYPE_SINT64: "sint64",
    }
)
_SAME_ON_THE_WIRE_AND_IN_JSON: Final = (
    {"int32", "uint32"},
    {"int64", "uint64"},
    {"fixed32", "sfixed32"},
    {"fixed64", "sfixed64"},
)
_LIKE_ONE: Final = ("optional", "implicit")
"""Cardinalities that look the same on the wire and in JSON."""


@dataclass(frozen=True, slots=True)
class Place:
    """A field in its set."""

    symbols: Symbols
    file: File
    proto: Field
    name: str
    """Full name of the field."""
    oneofs: tuple[str, ...] = ()
    """Names of the oneofs of its message."""
    in_map: bool = False
    """Whether it is the key or the value of a map."""


def compare(old: Place, new: Place) -> Iterator[Violation]:
    """What breaks between two fields of the same number."""
    file, element = new.file.name, new.name
    extension = bool(old.proto.extendee)
    old_name, new_name = (old.name, new.name) if extension else (old.proto.name, new.proto.name)
    if old_name != new_name:
        yield broken("FIELD_SAME_NAME", file, element, old_name, new_name)
    if not extension:
        yield from _json_name(old, new)
        yield from _oneof(old, new)
    yield from _type(old, new)
    if not (old.in_map and new.in_map):
        yield from _cardinality(old, new)
    yield from _default(old, new)


def json_name(field: Field) -> str:
    """The name of a field in JSON, whether the set states it or not."""
    if field.json_name:
        return field.json_name
    return re.sub(r"_+([^_])", lambda found: found[1].upper(), field.name).rstrip("_")


def cardinality(place: Place) -> str:
    """`map`, `repeated`, `required`, `optional` (its presence is seen) or `implicit`."""
    field = place.proto
    if field.label == Field.LABEL_REPEATED:
        entry = place.symbols.messages.get(field.type_name.lstrip("."))
        return "map" if entry is not None and entry.is_map_entry else "repeated"
    presence = _presence(place)
    if field.label == Field.LABEL_REQUIRED or presence == Features.LEGACY_REQUIRED:
        return "required"
    implicit = presence == Features.IMPLICIT if place.file.syntax == "editions" else place.file.syntax == "proto3"
    seen = field.proto3_optional or field.HasField("oneof_index") or field.type == Field.TYPE_MESSAGE or field.extendee
    return "implicit" if implicit and not seen else "optional"


def kind(place: Place) -> str:
    """Type of a field as it stands in a contract, without the name of a message or enum."""
    field = place.proto
    if field.type in _SCALARS:
        return _SCALARS[field.type]
    if field.type == Field.TYPE_ENUM:
        return "enum"
    delimited = _encoding(place) == Features.DELIMITED and cardinality(place) != "map"
    return "group" if field.type == Field.TYPE_GROUP or (delimited and not place.in_map) else "message"


def _presence(place: Place) -> int:
    own, of_file = place.proto.options.features, place.file.options.features
    return own.field_presence if own.HasField("field_presence") else of_file.field_presence


def _encoding(place: Place) -> int:
    own, of_file = place.proto.options.features, place.file.options.features
    return own.message_encoding if own.HasField("message_encoding") else of_file.message_encoding


def _json_name(old: Place, new: Place) -> Iterator[Violation]:
    before, after = json_name(old.proto), json_name(new.proto)
    if before != after:
        yield broken("FIELD_SAME_JSON_NAME", new.file.name, new.name, before, after)


def oneof_of(place: Place) -> str | None:
    """The oneof that a field is in; None for the one that only marks a field as optional."""
    field = place.proto
    if not field.HasField("oneof_index") or field.proto3_optional or field.oneof_index >= len(place.oneofs):
        return None
    return place.oneofs[field.oneof_index]


def _oneof(old: Place, new: Place) -> Iterator[Violation]:
    before, after = oneof_of(old), oneof_of(new)
    if before != after:
        texts = [f"in oneof {name}" if name else "in no oneof" for name in (before, after)]
        yield broken("FIELD_SAME_ONEOF", new.file.name, new.name, *texts)


def _cardinality(old: Place, new: Place) -> Iterator[Violation]:
    before, after = cardinality(old), cardinality(new)
    if before != after and not (before in _LIKE_ONE and after in _LIKE_ONE):
        yield broken("FIELD_WIRE_JSON_COMPATIBLE_CARDINALITY", new.file.name, new.name, before, after)


def _type(old: Place, new: Place) -> Iterator[Violation]:
    before, after = kind(old), kind(new)
    named = {"enum", "message", "group"}
    if before == after and before in named:
        names = old.proto.type_name.lstrip("."), new.proto.type_name.lstrip(".")
        if names[0] == names[1] or (before == "enum" and _grown_elsewhere(old, new)):
            return
        before, after = names
    elif before == after or any({before, after} <= group for group in _SAME_ON_THE_WIRE_AND_IN_JSON):
        return
    yield broken("FIELD_WIRE_JSON_COMPATIBLE_TYPE", new.file.name, new.name, before, after)


def _grown_elsewhere(old: Place, new: Place) -> bool:
    """Whether the new enum is the old one in another place, with all its values."""
    before = old.symbols.enums.get(old.proto.type_name.lstrip("."))
    after = new.symbols.enums.get(new.proto.type_name.lstrip("."))
    if before is None or after is None or before.short_name != after.short_name:
        return False
    return _names_by_number(before) <= _names_by_number(after)


def _names_by_number(enum: Enum) -> set[tuple[str, int]]:
    return {(value.name, value.number) for value in enum.proto.value}


def _default(old: Place, new: Place) -> Iterator[Violation]:
    if any(cardinality(place) in {"repeated", "map"} or kind(place) in {"message", "group"} for place in (old, new)):
        return
    before, after = _default_value(old), _default_value(new)
    if not before and not after:
        return
    same = before == after or (before != before and after != after)  # noqa: PLR0124 - not a number
    if not same:
        yield broken("FIELD_SAME_DEFAULT", new.file.name, new.name, before, after)


def _default_value(place: Place) -> str | float | int:
    field, type_ = place.proto, kind(place)
    given = field.default_value if field.HasField("default_value") else None
    if type_ in {"string", "bytes"}:
        return given or ""
    if type_ == "bool":
        return int(given == "true")
    if type_ == "enum":
        enum = place.symbols.enums.get(field.type_name.lstrip("."))
        values = list(enum.proto.value) if enum is not None else list[descriptor_pb2.EnumValueDescriptorProto]()
        named = [value.number for value in values if value.name == given] if given else []
        return next(iter(named or [value.number for value in values[:1]]), 0)
    if type_ in {"double", "float"}:
        return float(given or 0)
    return int(given or 0)
