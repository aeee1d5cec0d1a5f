"""Decides how a message becomes binary bytes and back, with strings of fixed and of variable length."""

from __future__ import annotations

import struct
from typing import Final

from minhos_mesh.dtc.errors import MessageMalformed, MessageUnencodable
from minhos_mesh.dtc.layout import HEADER_SIZE, VARIABLE_HEADER_SIZE, Layout, Member, Value
from minhos_mesh.dtc.message import TEXT_LIMIT, Message, settle

_HEADER: Final = struct.Struct("<HH")
_VARIABLE_HEADER: Final = struct.Struct("<HHH")
_STRING: Final = struct.Struct("<HH")
_LARGEST: Final = 0xFFFF


def encode_fixed(message: Message) -> bytes:
    """Bytes with strings of fixed length. Raises MessageUnencodable."""
    layout = message.layout
    data = bytearray(layout.fixed_size)
    _HEADER.pack_into(data, 0, layout.fixed_size, layout.type)
    for member in layout.members:
        value = message.values.get(member.name, member.default)
        if isinstance(value, str):
            raw = _text_bytes(layout, member, value, member.size - 1)
            data[member.fixed_offset : member.fixed_offset + len(raw)] = raw
        else:
            _pack_number(data, layout, member, member.fixed_offset, value)
    return bytes(data)


def encode_variable(message: Message) -> bytes:
    """Bytes with strings of variable length, behind the fixed part in the order of their members."""
    layout = message.layout
    if layout.variable_size is None:
        return encode_fixed(message)
    data = bytearray(layout.variable_size)
    for member in layout.members:
        value = message.values.get(member.name, member.default)
        if not isinstance(value, str):
            _pack_number(data, layout, member, member.variable_offset, value)
        elif value:
            raw = _text_bytes(layout, member, value, TEXT_LIMIT - 1)
            if len(data) + len(raw) + 1 > _LARGEST:
                raise MessageUnencodable(f"{layout.name} is longer than {_LARGEST} bytes with {member.name}")
            _STRING.pack_into(data, member.variable_offset, len(data), len(raw) + 1)
            data += raw + b"\0"
    _VARIABLE_HEADER.pack_into(data, 0, len(data), layout.type, layout.variable_size)
    return bytes(data)


def decode_fixed(layout: Layout, data: bytes) -> Message:
    """Reads a whole message; members beyond its end are at their default, bytes beyond the members are left out."""
    found: dict[str, Value | None] = {}
    if len(data) >= layout.fixed_size:
        for member, raw in zip(layout.members, layout.whole.unpack_from(data), strict=True):
            _keep(found, member, raw)
        return Message(layout, found)
    for member in layout.members:
        if member.fixed_offset + member.size <= len(data):
            _keep(found, member, struct.unpack_from(f"<{member.code}", data, member.fixed_offset)[0])
    return Message(layout, found)


def decode_variable(layout: Layout, data: bytes) -> Message:
    """Reads a whole message with strings of variable length. Raises MessageMalformed for a string outside of it."""
    if layout.variable_size is None:
        return decode_fixed(layout, data)
    if len(data) < VARIABLE_HEADER_SIZE:
        raise MessageMalformed(f"{layout.name} has {len(data)} bytes: its header alone has {VARIABLE_HEADER_SIZE}")
    known = _VARIABLE_HEADER.unpack_from(data)[2]
    if known > len(data):
        raise MessageMalformed(f"{layout.name} has {len(data)} bytes and says that {known} of them are fixed")
    found: dict[str, Value | None] = {}
    for member in layout.members:
        size = _STRING.size if member.varies else member.size
        if member.variable_offset + size > known:
            continue
        if member.varies:
            _keep(found, member, _string_at(layout, member, data))
        else:
            _keep(found, member, struct.unpack_from(f"<{member.code}", data, member.variable_offset)[0])
    return Message(layout, found)


def _string_at(layout: Layout, member: Member, data: bytes) -> bytes:
    offset, length = _STRING.unpack_from(data, member.variable_offset)
    if length == 0:
        return b""
    if offset < HEADER_SIZE or offset + length > len(data) or length > TEXT_LIMIT:
        seen = f"bytes {offset} to {offset + length} of {len(data)}"
        raise MessageMalformed(f"{layout.name}.{member.name} lies outside of its message: {seen}")
    return data[offset : offset + length]


def _keep(found: dict[str, Value | None], member: Member, raw: Value | bytes) -> None:
    value = _text(raw) if isinstance(raw, bytes) else settle(member, raw)
    if value != member.default:
        found[member.name] = value


def _text(raw: bytes) -> str:
    """A string up to its NUL: UTF-8, or else one byte per character."""
    plain = raw.split(b"\0", 1)[0]
    try:
        return plain.decode("utf-8")
    except UnicodeDecodeError:
        return plain.decode("latin-1")


def _text_bytes(layout: Layout, member: Member, value: str, room: int) -> bytes:
    try:
        raw = value.encode("utf-8")
    except UnicodeEncodeError as error:
        raise MessageUnencodable(f"{layout.name}.{member.name} is no text: {value!r}") from error
    if b"\0" in raw:
        raise MessageUnencodable(f"{layout.name}.{member.name} has a NUL in it: {value!r}")
    if len(raw) <= room:
        return raw
    if member.cut:
        return raw[:room].decode("utf-8", "ignore").encode("utf-8")
    raise MessageUnencodable(f"{layout.name}.{member.name} has {len(raw)} bytes, allowed are {room}: {value!r}")


def _pack_number(data: bytearray, layout: Layout, member: Member, offset: int, value: Value | None) -> None:
    try:
        struct.pack_into(f"<{member.code}", data, offset, member.unset_wire if value is None else value)
    except (struct.error, OverflowError) as error:
        raise MessageUnencodable(f"{layout.name}.{member.name} cannot be {value!r}") from error
