"""Decides how a message becomes JSON and back: members by name, numbers for enumerations and flags, unset left out."""

from __future__ import annotations

import json
from typing import Any

from minhos_mesh.dtc.errors import MessageMalformed, MessageUnencodable
from minhos_mesh.dtc.layout import Layout, Member, Value
from minhos_mesh.dtc.message import TEXT_LIMIT, Message, in_range, settle


def encode_json(message: Message) -> bytes:
    """One object and the NUL that ends it; `Type` comes first, every member that is not unset follows."""
    found: dict[str, Value] = {"Type": message.type}
    for member in message.layout.members:
        value = message.values.get(member.name, member.default)
        if isinstance(value, str) and "\0" in value:
            raise MessageUnencodable(f"{message.name}.{member.name} has a NUL in it: {value!r}")
        if value is None and member.default is not None:
            value = member.unset_wire  # Left out it would be read as its default, which is a number.
        if value is not None:
            found[member.name] = value
    return json.dumps(found, separators=(",", ":"), allow_nan=False).encode("ascii") + b"\0"


def parse_json(data: bytes) -> dict[str, Any]:
    """The object of one frame, without its NUL. Raises MessageMalformed."""
    try:
        found = json.loads(_decoded(data))
    except (ValueError, RecursionError) as error:
        raise MessageMalformed(f"{len(data)} bytes are no JSON object: {type(error).__name__}") from error
    if not isinstance(found, dict):
        raise MessageMalformed(f"{len(data)} bytes are JSON and no object: {type(found).__name__}")
    return found


def type_of(found: dict[str, Any]) -> int:
    """The number of its type. Raises MessageMalformed."""
    number = found.get("Type")
    if isinstance(number, bool) or not isinstance(number, int):
        raise MessageMalformed(f"a JSON message has Type {str(number)[:40]!r}: allowed is a whole number")
    return number


def decode_json(layout: Layout, found: dict[str, Any]) -> Message:
    """Reads an object; members without a key are at their default, keys that the type does not have are left out."""
    values: dict[str, Value | None] = {}
    for member in layout.members:
        raw = found.get(member.name)
        for other in member.other_names:
            raw = found.get(other) if raw is None else raw
        if raw is None:
            continue
        value = _value(layout, member, raw)
        if value != member.default:
            values[member.name] = value
    return Message(layout, values)


def _value(layout: Layout, member: Member, raw: object) -> Value | None:
    if member.text:
        if isinstance(raw, str) and _is_text(raw):
            return raw
    elif isinstance(raw, int | float):
        if member.floating:
            return settle(member, raw)
        number = raw // 1 if member.whole_time else raw
        if in_range(member, number):
            return settle(member, int(number))
    raise MessageMalformed(f"{layout.name}.{member.name} cannot be {str(raw)[:40]!r}")


def _is_text(raw: str) -> bool:
    return len(raw) < TEXT_LIMIT and "\0" not in raw and (raw.isascii() or not _has_surrogates(raw))


def _has_surrogates(raw: str) -> bool:
    return any("\ud800" <= character <= "\udfff" for character in raw)


def _decoded(data: bytes) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return data.decode("latin-1")
