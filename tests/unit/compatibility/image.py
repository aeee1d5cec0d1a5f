"""Our own contracts as the image that changes are made to, and how a change finds its place in it."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from google.protobuf import descriptor_pb2

Field = descriptor_pb2.FieldDescriptorProto
Files = descriptor_pb2.FileDescriptorSet
File = descriptor_pb2.FileDescriptorProto
Message = descriptor_pb2.DescriptorProto
Enum = descriptor_pb2.EnumDescriptorProto
Service = descriptor_pb2.ServiceDescriptorProto

IMAGE = Path(__file__).parents[3] / "proto" / "contracts.binpb"
SCALARS = [n for n in range(1, 19) if n not in {Field.TYPE_GROUP, Field.TYPE_MESSAGE, Field.TYPE_ENUM}]


@functools.cache
def base() -> bytes:
    """Our own contracts, with something reserved in every type so that it can be taken away."""
    files = Files.FromString(IMAGE.read_bytes())
    for file in files.file:
        file.ClearField("source_code_info")
    for message in messages(files):
        message.reserved_range.add(start=900, end=911)
        message.reserved_range.add(start=950, end=951)
        message.reserved_name.append("left_long_ago")
    for enum in enums(files):
        enum.reserved_range.add(start=900, end=910)
        enum.reserved_name.append("LEFT_LONG_AGO")
    return files.SerializeToString()


def ours(files: Files) -> list[File]:
    return [file for file in files.file if file.package.startswith("minhos_api.")]


def messages(files: Files) -> list[Message]:
    return [m for file in ours(files) for m in nested(file.message_type) if not m.options.map_entry]


def nested(found: Sequence[Message]) -> Iterator[Message]:
    for message in found:
        yield message
        yield from nested(message.nested_type)


def enums(files: Files) -> list[Enum]:
    found = [enum for file in ours(files) for enum in file.enum_type]
    return [*found, *(enum for message in messages(files) for enum in message.enum_type)]


def services(files: Files) -> list[Service]:
    return [service for file in ours(files) for service in file.service]


def pick(found: Sequence[Any], number: int) -> Any:
    return found[number % len(found)] if found else None


def with_fields(files: Files, a: int, b: int) -> tuple[Message, Field]:
    message = pick([m for m in messages(files) if m.field], a)
    return message, pick(message.field, b)


def leaf(files: Files, a: int) -> File:
    """A file that no other imports."""
    imported = {name for file in files.file for name in file.dependency}
    file = pick([file for file in ours(files) if file.name not in imported], a)
    assert isinstance(file, File)
    return file
