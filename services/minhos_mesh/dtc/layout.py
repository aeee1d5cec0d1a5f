"""Decides where each member of a DTC message lies in both binary encodings, from its kinds in order and natural alignment."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, TypeAlias

Value: TypeAlias = int | float | str

HEADER_SIZE: Final = 4
"""Size u16 and Type u16 of every binary message."""
VARIABLE_HEADER_SIZE: Final = 6
"""The same and BaseSize u16, in messages with strings of variable length."""

FLOAT32_MAX: Final = 3.4028234663852886e38
FLOAT64_MAX: Final = 1.7976931348623157e308
UINT32_MAX: Final = 0xFFFF_FFFF

_NUMBERS: Final[Mapping[str, str]] = {
    "i8": "b", "u8": "B", "i16": "h", "u16": "H", "i32": "i", "u32": "I", "i64": "q", "u64": "Q", "f32": "f", "f64": "d",
    "sec": "q", "sec4": "I", "fsec": "d", "ms": "q", "us": "q",
}  # fmt: skip
"""Kind to code of `struct`. The last five are times: whole seconds, seconds in 4 bytes, seconds with fraction, ms, us."""

_TIMES: Final = frozenset({"sec", "sec4", "ms", "us"})
_UNSET_WIRE: Final[Mapping[str, Value]] = {"d": FLOAT64_MAX, "f": FLOAT32_MAX, "I": UINT32_MAX}
_ALIGN_ALL: Final = 8


@dataclass(frozen=True, slots=True)
class Member:
    """One member of a message."""

    name: str
    """Name in JSON and in programs."""
    other_names: tuple[str, ...]
    """Names under which other generations of the protocol send the same member."""
    code: str
    """Code of `struct`; that of a string is its fixed length and `s`."""
    size: int
    """Bytes in a message with fixed strings."""
    default: Value | None
    """What the member is when it is not sent; None says that it is then unset."""
    text: bool
    """True for strings."""
    cut: bool
    """True for a text for people that is cut when it is too long; an id never is."""
    whole_time: bool
    """True for a time in whole units, which JSON may carry with a fraction; the fraction is cut."""
    varies: bool
    """True for a string that the encoding with variable strings moves behind the fixed part."""
    fixed_offset: int
    variable_offset: int

    @property
    def floating(self) -> bool:
        """True for numbers with a fraction."""
        return self.code in {"f", "d"}

    @property
    def unset_wire(self) -> Value | None:
        """What binary encodings write for unset, None where nothing can say so."""
        return _UNSET_WIRE.get(self.code) if self.floating or self.default is None else None


@dataclass(frozen=True, slots=True, eq=False)
class Layout:
    """One type of message; there is one object for each."""

    type: int
    name: str
    members: tuple[Member, ...]
    fixed_size: int
    """Bytes of the message with strings of fixed length."""
    variable_size: int | None
    """Bytes of the fixed part with strings of variable length; None where both encodings are the same."""
    whole: struct.Struct = field(repr=False)
    """Reads all members of a message of fixed_size at once."""
    by_name: Mapping[str, Member] = field(repr=False)

    def member(self, name: str) -> Member:
        """A member by name. Raises ValueError for a name that the message does not have."""
        found = self.by_name.get(name)
        if found is None:
            raise ValueError(f"{self.name} has no member {name}")
        return found


@dataclass(slots=True)
class _Place:
    """Where the next member goes."""

    offset: int
    widest: int = 2

    def take(self, size: int, alignment: int) -> int:
        self.widest = max(self.widest, alignment)
        at = -(-self.offset // alignment) * alignment
        self.offset = at + size
        return at

    @property
    def end(self) -> int:
        return -(-self.offset // self.widest) * self.widest


def define(number: int, name: str, members: str, *, pack: int = _ALIGN_ALL) -> Layout:
    """Builds a layout from lines of `kind Name|OtherName=default;`, in the order of the message.

    Kinds are the numbers above, `s32` for a string of 31 bytes and NUL, `t96` for one that may be cut, `c4` for
    characters that never move. A name with `-` in front fills a place and is neither read nor written. `pack=1` puts
    member behind member without padding.
    """
    fixed, variable = _Place(HEADER_SIZE), _Place(VARIABLE_HEADER_SIZE)
    if pack == 1:
        fixed.widest = 1
    found: list[Member] = []
    pattern, end = "<4x", HEADER_SIZE
    for entry in members.split(";"):
        kind, _, rest = entry.strip().partition(" ")
        names, _, default = rest.partition("=")
        member = _member(kind, names.split("|"), default, fixed, variable, pack)
        if member.name.startswith("-"):
            continue
        found.append(member)
        pattern += f"{member.fixed_offset - end}x{member.code}"
        end = member.fixed_offset + member.size
    size = fixed.end
    whole = struct.Struct(f"{pattern}{size - end}x")
    varies = any(member.varies for member in found)
    by_name = {member.name: member for member in found}
    return Layout(number, name, tuple(found), size, variable.end if varies else None, whole, by_name)


def _member(kind: str, names: list[str], default: str, fixed: _Place, variable: _Place, pack: int) -> Member:
    text = kind[0] in "stc" and kind[1:].isdigit()
    size = int(kind[1:]) if text else struct.calcsize(_NUMBERS[kind])
    code = f"{size}s" if text else _NUMBERS[kind]
    varies = text and kind[0] != "c"
    return Member(
        name=names[0],
        other_names=tuple(names[1:]),
        code=code,
        size=size,
        default=_default(code, default, text),
        text=text,
        cut=kind[0] == "t",
        whole_time=kind in _TIMES,
        varies=varies,
        fixed_offset=fixed.take(size, 1 if text else min(pack, size)),
        variable_offset=variable.take(4, 2) if varies else variable.take(size, 1 if text else size),
    )


def _default(code: str, written: str, text: bool) -> Value | None:
    if text:
        return ""
    if written == "unset":
        return None
    return float(written or 0) if code in {"f", "d"} else int(written or 0)
