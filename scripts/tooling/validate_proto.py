"""Prints `buf/validate/validate.proto` from the descriptor inside the installed protovalidate, which ships no source.

What a rule author needs is printed: messages, fields, enums and extensions. The CEL of the standard rules is not, since
the validator carries its own copy.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from google.protobuf import descriptor_pb2 as pb

FILE = "buf/validate/validate.proto"
_TYPES = {number: name.removeprefix("TYPE_").lower() for name, number in pb.FieldDescriptorProto.Type.items()}
_LABELS = {1: "optional ", 2: "required ", 3: "repeated "}


def _descriptor() -> pb.FileDescriptorProto:
    """Reads the private module of protovalidate 2.x, whose version the lock pins for this reason."""
    from protovalidate._gen.buf.validate import validate_pb

    holders = [value for value in vars(validate_pb).values() if type(value).__name__ == "DescFile"]
    file = pb.FileDescriptorProto()
    file.ParseFromString(bytes(holders[0].proto.to_binary()))
    return file


def _field(field: pb.FieldDescriptorProto, indent: str, label: str) -> str:
    options = []
    if field.options.HasField("packed"):
        options.append(f"packed = {str(field.options.packed).lower()}")
    if field.options.deprecated:
        options.append("deprecated = true")
    suffix = f" [{', '.join(options)}]" if options else ""
    return f"{indent}{label}{field.type_name or _TYPES[field.type]} {field.name} = {field.number}{suffix};"


def _enum(enum: pb.EnumDescriptorProto, indent: str) -> Iterator[str]:
    yield f"{indent}enum {enum.name} {{"
    if enum.options.allow_alias:
        yield f"{indent}  option allow_alias = true;"
    for value in enum.value:
        yield f"{indent}  {value.name} = {value.number};"
    for kept in enum.reserved_range:
        yield f"{indent}  reserved {kept.start} to {kept.end};"
    yield f"{indent}}}"


def _message(message: pb.DescriptorProto, indent: str) -> Iterator[str]:
    inner = indent + "  "
    yield f"{indent}message {message.name} {{"
    for enum in message.enum_type:
        yield from _enum(enum, inner)
    for nested in message.nested_type:
        if nested.options.map_entry:
            raise ValueError(f"{FILE}: {message.name} has a map field, which this printer does not know")
        yield from _message(nested, inner)
    for index, oneof in enumerate(message.oneof_decl):
        yield f"{inner}oneof {oneof.name} {{"
        for field in message.field:
            if field.HasField("oneof_index") and field.oneof_index == index:
                yield _field(field, inner + "  ", "")
        yield f"{inner}}}"
    for field in message.field:
        if not field.HasField("oneof_index"):
            yield _field(field, inner, _LABELS[field.label])
    for free in message.extension_range:
        yield f"{inner}extensions {free.start} to {'max' if free.end > 2**28 else free.end - 1};"
    for kept in message.reserved_range:
        yield f"{inner}reserved {kept.start} to {kept.end - 1};"
    for name in message.reserved_name:
        yield f'{inner}reserved "{name}";'
    yield f"{indent}}}"


def _lines(file: pb.FileDescriptorProto) -> Iterator[str]:
    yield f"// Printed by `scripts/generate --prepare` from protovalidate's own descriptor; {FILE} upstream has the comments."
    yield f'syntax = "{file.syntax or "proto2"}";'
    yield f"package {file.package};"
    for imported in file.dependency:
        yield f'import "{imported}";'
    for enum in file.enum_type:
        yield from _enum(enum, "")
    for message in file.message_type:
        yield from _message(message, "")
    for extension in file.extension:
        yield f"extend {extension.extendee} {{"
        yield _field(extension, "  ", _LABELS[extension.label])
        yield "}"


def write(folder: Path) -> Path:
    """Writes the file below `folder` unless it is already there with this very text, and returns its path."""
    text = "\n".join(_lines(_descriptor())) + "\n"
    path = folder / FILE
    if not path.is_file() or path.read_text(encoding="utf-8") != text:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return path
