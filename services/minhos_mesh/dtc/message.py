"""Decides what a DTC message is inside this system: a type and the values that differ from what the type says by itself."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from minhos_mesh.dtc.errors import MessageUnencodable
from minhos_mesh.dtc.layout import FLOAT32_MAX, Layout, Member, Value

TEXT_LIMIT: Final = 4096
"""Bytes of the longest string that is read in an encoding that does not fix its length."""


@dataclass(frozen=True, slots=True)
class Message:
    """One message; equal messages are equal in every encoding."""

    layout: Layout
    values: Mapping[str, Value | None]
    """Values that differ from the member's default; None is a member that is explicitly unset."""

    @property
    def type(self) -> int:
        """Number of the type."""
        return self.layout.type

    @property
    def name(self) -> str:
        """Name of the type."""
        return self.layout.name

    def value(self, name: str) -> Value | None:
        """A member, None when it is unset. Raises ValueError for a name that the message does not have."""
        member = self.layout.member(name)
        return self.values.get(name, member.default)

    def integer(self, name: str) -> int:
        """A whole number; 0 when it is unset."""
        found = self.value(name)
        if isinstance(found, str) or (found is not None and not isinstance(found, int)):
            raise TypeError(f"{self.name}.{name} is no whole number")
        return found or 0

    def number(self, name: str) -> float | None:
        """A number with a fraction, None when it is unset."""
        found = self.value(name)
        if isinstance(found, str):
            raise TypeError(f"{self.name}.{name} is no number")
        return None if found is None else float(found)

    def text(self, name: str) -> str:
        """A string; empty when it is not set."""
        found = self.value(name)
        if not isinstance(found, str):
            raise TypeError(f"{self.name}.{name} is no string")
        return found

    def flag(self, name: str) -> bool:
        """A number that means yes when it is not 0."""
        return self.integer(name) != 0

    def __str__(self) -> str:
        shown = " ".join(f"{name}={value!r}" for name, value in self.values.items() if "assword" not in name)
        return f"{self.name} {shown}".rstrip()


def make(layout: Layout, **values: Value | None) -> Message:
    """Builds a message from the members that are not at their default.

    Raises ValueError for a name that it does not have, MessageUnencodable for a value that the member cannot carry.
    """
    kept: dict[str, Value | None] = {}
    for name, value in values.items():
        member = layout.member(name)
        checked = _checked(layout, member, value)
        if checked != member.default:
            kept[name] = checked
    return Message(layout, kept)


def _checked(layout: Layout, member: Member, value: Value | None) -> Value | None:
    if value is None and member.unset_wire is not None:
        return None
    if member.text and isinstance(value, str):
        return value
    if not member.text and isinstance(value, int | float):
        if member.floating and abs(value) < FLOAT32_MAX:
            return float(value)
        if not member.floating and in_range(member, value):
            return int(value)
    raise MessageUnencodable(f"{layout.name}.{member.name} cannot be {value!r}")


def in_range(member: Member, value: float) -> bool:
    """Whether a whole number fits a member that is one."""
    if value % 1 != 0:
        return False
    bits = 8 * struct.calcsize(member.code)
    signed = member.code.islower()
    low, high = (-(1 << bits - 1), (1 << bits - 1) - 1) if signed else (0, (1 << bits) - 1)
    return low <= value <= high


def settle(member: Member, value: Value) -> Value | None:
    """What a number read from the wire stands for: None where it is the sign for unset, or no finite number."""
    if isinstance(value, str):
        return value
    if member.floating:
        return float(value) if abs(value) < FLOAT32_MAX else None
    return None if member.default is None and value == member.unset_wire else value
