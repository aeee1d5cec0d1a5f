"""Decides how large a descriptor set may be that comes from outside."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from google.protobuf import descriptor_pb2

MAX_BYTES: Final = 1_048_576
"""Bytes of a serialized set; all contracts of the mesh with their imports are a tenth of it."""
MAX_FILES: Final = 512
"""Files of a set."""
MAX_ELEMENTS: Final = 20_000
"""Messages, fields, enums, values, services, methods, oneofs, ranges and reserved names of a set."""

Container = descriptor_pb2.FileDescriptorProto | descriptor_pb2.DescriptorProto


def elements(files: descriptor_pb2.FileDescriptorSet) -> int:
    """How many elements a set has, counted no further than just above the limit."""
    total = 0
    for count in _counts(files):
        total += count
        if total > MAX_ELEMENTS:
            break
    return total


def _counts(files: descriptor_pb2.FileDescriptorSet) -> Iterator[int]:
    """Counts a whole list at once, so that a list of a million is seen in one step."""
    for file in files.file:
        yield len(file.message_type) + len(file.enum_type) + len(file.service) + len(file.extension)
        yield len(file.dependency) + len(file.public_dependency) + len(file.weak_dependency)
        yield from (len(service.method) for service in file.service)
        yield from (_enum(enum) for enum in file.enum_type)
        waiting = list(file.message_type)
        while waiting:
            message = waiting.pop()
            yield len(message.field) + len(message.nested_type) + len(message.enum_type) + len(message.extension)
            yield len(message.oneof_decl) + len(message.reserved_range) + len(message.reserved_name)
            yield len(message.extension_range)
            yield from (_enum(enum) for enum in message.enum_type)
            waiting.extend(message.nested_type)


def _enum(enum: descriptor_pb2.EnumDescriptorProto) -> int:
    return len(enum.value) + len(enum.reserved_range) + len(enum.reserved_name)
