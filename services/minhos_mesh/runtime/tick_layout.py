"""Decides how a tick lies in memory: one numpy record that is, byte for byte, one protobuf Tick of a batch."""

from __future__ import annotations

import struct
from enum import IntEnum, IntFlag
from typing import NamedTuple, Self

import numpy as np
import numpy.typing as npt

TYPE_CODES = {"sfixed64": "<i8", "fixed32": "<u4", "enum": "u1"}
_wire_types = {"sfixed64": 1, "fixed32": 5, "enum": 0}
_struct_codes = {"sfixed64": "q", "fixed32": "I", "enum": "B"}

FIELDS: tuple[tuple[str, int, str], ...] = (
    ("event_time_ns", 1, "sfixed64"),
    ("receive_time_ns", 2, "sfixed64"),
    ("price_e9", 3, "sfixed64"),
    ("bid_e9", 4, "sfixed64"),
    ("ask_e9", 5, "sfixed64"),
    ("size", 6, "fixed32"),
    ("bid_size", 7, "fixed32"),
    ("ask_size", 8, "fixed32"),
    ("flags", 9, "fixed32"),
    ("kind", 10, "enum"),
    ("side", 11, "enum"),
)
"""Name, field number and protobuf type of each value of a Tick, in the order in which they are written."""

TICKS_FIELD_NUMBER = 15
"""Number of `ticks` in a TickBatch: the largest whose tag is one byte, so ticks follow every other field."""

TickArray = npt.NDArray[np.void]
"""A structured array with the fields of `TICK` (and, where said, of `WIRE`)."""


class TickFlag(IntFlag):
    """What of a tick may be read, and marks of its source."""

    HAS_PRICE = 1
    HAS_SIZE = 2
    HAS_BID = 4
    HAS_ASK = 8
    HAS_BID_SIZE = 16
    HAS_ASK_SIZE = 32
    UNBUNDLED_FIRST = 64
    UNBUNDLED_LAST = 128


class TickKind(IntEnum):
    """What a tick says: that something traded, or that the best bid or ask changed."""

    UNSPECIFIED = 0
    TRADE = 1
    QUOTE = 2


class TradeSide(IntEnum):
    """Who crossed the spread: a buyer who lifted the ask or a seller who hit the bid."""

    UNSPECIFIED = 0
    BUY = 1
    SELL = 2


class Tick(NamedTuple):
    """One tick as an object: prices in 1e-9 units, sizes in contracts, times in ns since the epoch; absent is None."""

    sequence: int
    event_time_ns: int
    receive_time_ns: int
    kind: TickKind
    price_e9: int | None
    size: int | None
    side: TradeSide
    bid_e9: int | None
    ask_e9: int | None
    bid_size: int | None
    ask_size: int | None
    flags: int


def _wire_dtype() -> np.dtype[np.void]:
    names, formats = ["tag", "length"], ["u1", "u1"]
    for name, number, kind in FIELDS:
        names += [f"tag_{number}", name]
        formats += ["u1", TYPE_CODES[kind]]
    return np.dtype({"names": names, "formats": formats})


def _offset(name: str) -> int:
    assert WIRE.fields is not None, "a structured dtype has fields"
    return int(WIRE.fields[name][1])


WIRE = _wire_dtype()
"""One tick as it is written in a batch: tag and length of the message, then tag and value of each field."""

TICK_BYTES = WIRE.itemsize

TICK = np.dtype(
    {
        "names": [name for name, _, _ in FIELDS],
        "formats": [TYPE_CODES[kind] for _, _, kind in FIELDS],
        "offsets": [_offset(name) for name, _, _ in FIELDS],
        "itemsize": TICK_BYTES,
    }
)
"""The values of a tick alone: the same memory as `WIRE` with the tags out of sight."""

TAG = (TICKS_FIELD_NUMBER << 3) | 2
BODY_BYTES = TICK_BYTES - 2
FIELD_TAGS = tuple((number << 3) | _wire_types[kind] for _, number, kind in FIELDS)
VALUES = struct.Struct("<2x" + "".join("x" + _struct_codes[kind] for _, _, kind in FIELDS))
"""Reads the values of one tick without its tags, faster than numpy does for a few."""

Row = tuple[int, ...]
"""The values of one tick, in the order of `FIELDS`."""

_TIME = struct.Struct("<q")
_RECEIVED = _offset("receive_time_ns")

_TIMES_AND_PRICES = ("event_time_ns", "receive_time_ns", "price_e9", "bid_e9", "ask_e9")
_APART = _offset("receive_time_ns") - _offset("event_time_ns")
_ENDING = _offset("flags")
"""From here on flags, kind and side of a tick are its last eight bytes, with two tags between them."""
_KIND_BITS, _SIDE_BITS = 8 * (_offset("kind") - _ENDING), 8 * (_offset("side") - _ENDING)
_CARRIED = 15
"""Flags that say which of price, size, bid and ask there are."""

_TEMPLATE = np.zeros(1, WIRE)
_TEMPLATE["tag"], _TEMPLATE["length"] = TAG, BODY_BYTES
for _, _number, _ in FIELDS:
    _TEMPLATE[f"tag_{_number}"] = FIELD_TAGS[_number - 1]
_TEMPLATE_ROW = np.frombuffer(_TEMPLATE.tobytes(), np.uint8)
_FEW = 2
_FOLDED = 128
"""Ticks of a large batch are laid over each other, so many side by side: what they all have in common is looked at once."""
_NEAR = 4_096
"""So many ticks stay in the cache while one column after the other is read of them."""
_KINDS = tuple(TickKind)
_SIDES = tuple(TradeSide)


def _fixed_bits() -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    """Which bits are the same in every tick, and these bits, for `_FOLDED` ticks: all tags, and the highest of each enum."""
    mask, value = np.zeros(TICK_BYTES, np.uint8), np.zeros(TICK_BYTES, np.uint8)
    for column, expected in ((0, TAG), (1, BODY_BYTES)):
        mask[column], value[column] = 255, expected
    for (name, number, kind), tag in zip(FIELDS, FIELD_TAGS, strict=True):
        mask[_offset(f"tag_{number}")], value[_offset(f"tag_{number}")] = 255, tag
        if kind == "enum":
            mask[_offset(name)] = 128
    return np.tile(mask, _FOLDED), np.tile(value, _FOLDED)


_MASK, _FIXED = _fixed_bits()
FEW_MASKS = tuple(int.from_bytes(_MASK[: count * TICK_BYTES].tobytes(), "little") for count in range(_FEW + 1))
FEW_FIXED = tuple(int.from_bytes(_FIXED[: count * TICK_BYTES].tobytes(), "little") for count in range(_FEW + 1))
"""The same of so many ticks as one number each, which is faster than numpy for these."""


def new_ticks(count: int) -> TickArray:
    """`count` ticks with every value 0 and the tags of the wire in place, to be filled column by column."""
    rows = np.empty((count, TICK_BYTES), np.uint8)
    rows[:] = _TEMPLATE_ROW
    return rows.reshape(-1).view(TICK)


def ticks_from(source: TickArray) -> TickArray:
    """A copy of any structured array that has the fields of `TICK`, laid out as the wire wants it."""
    ticks = new_ticks(len(source))
    for name, _, _ in FIELDS:
        ticks[name] = source[name]
    return ticks


def wire_of(ticks: TickArray) -> bytes | memoryview:
    """The bytes of ticks in a batch; many are not copied where they lie together as `new_ticks` lays them."""
    if len(ticks) == 1 and ticks.dtype is TICK:
        return ticks.tobytes()
    laid = ticks if ticks.dtype == TICK and ticks.strides == (TICK_BYTES,) else ticks_from(ticks)
    return laid.view(np.uint8).data


def is_laid_out(data: bytes | memoryview, offset: int, count: int) -> bool:
    """Whether `count` ticks at `offset` have exactly the layout of `WIRE` (a legal writer may leave a field out)."""
    if count <= _FEW:
        few = int.from_bytes(data[offset : offset + count * TICK_BYTES], "little")
        return few & FEW_MASKS[count] == FEW_FIXED[count]
    rows = np.frombuffer(data, np.uint8, count * TICK_BYTES, offset)
    folded = len(rows) // len(_MASK) * len(_MASK)
    if folded:
        layers = rows[:folded].reshape(-1, len(_MASK))
        # A bit is the same in all layers when it is set in each of them or in none.
        if not (_is_fixed(np.bitwise_and.reduce(layers)) and _is_fixed(np.bitwise_or.reduce(layers))):
            return False
    return folded == len(rows) or _is_fixed(rows[folded:])


def _is_fixed(rows: npt.NDArray[np.uint8]) -> bool:
    return not ((rows & _MASK[: len(rows)]) != _FIXED[: len(rows)]).any()


def received_at(wire: bytes, time_ns: int) -> bytes:
    """One tick of the wire with this time of receipt."""
    return wire[:_RECEIVED] + _TIME.pack(time_ns) + wire[_RECEIVED + _TIME.size :]


class Trades(NamedTuple):
    """Columns of ticks that all are trades and carry the same of price, size, bid and ask: each an array by itself."""

    carried: int
    """Flags that are set in all of them, of price, size, bid and ask."""
    event_time_ns: npt.NDArray[np.int64]
    receive_time_ns: npt.NDArray[np.int64]
    prices_e9: npt.NDArray[np.int64]
    """Price, bid and ask, one below the other; of those that are not carried nothing is said."""
    size: npt.NDArray[np.uint32]
    """0 where it is not carried."""
    side: npt.NDArray[np.uint64]

    @classmethod
    def of(cls, ticks: TickArray) -> Self | None:
        """The columns, copied at once, which is several times faster than to ask for one after the other; None of other ticks."""
        if ticks.dtype != TICK or ticks.strides != (TICK_BYTES,) or not len(ticks):
            return None
        count = len(ticks)
        laid_ending = np.ndarray((count,), "<u8", ticks, _ENDING, (TICK_BYTES,))
        laid_columns = np.ndarray(
            (len(_TIMES_AND_PRICES), count), "<i8", ticks, _offset(_TIMES_AND_PRICES[0]), (_APART, TICK_BYTES)
        )
        laid_size = ticks["size"]
        ending = np.empty(count, np.uint64)
        columns = np.empty((len(_TIMES_AND_PRICES), count), np.int64)
        size = np.empty(count, np.uint32)
        for begin in range(0, count, _NEAR):
            part = slice(begin, begin + _NEAR)
            ending[part], columns[:, part], size[part] = laid_ending[part], laid_columns[:, part], laid_size[part]
        mask = np.uint64(_CARRIED | 0xFF << _KIND_BITS)
        first = ending[0] & mask
        if int(first) >> _KIND_BITS != TickKind.TRADE or ((ending & mask) != first).any():
            return None
        carried = int(first) & _CARRIED
        if not carried & TickFlag.HAS_SIZE:
            size[:] = 0
        return cls(carried, columns[0], columns[1], columns[2:], size, ending >> np.uint64(_SIDE_BITS))


def tick_of(sequence: int, row: Row) -> Tick:
    """A tick as an object."""
    event, receive, price, bid, ask, size, bid_size, ask_size, flags, kind, side = row
    return Tick(
        sequence,
        event,
        receive,
        _KINDS[kind] if kind < len(_KINDS) else TickKind.UNSPECIFIED,
        price if flags & 1 else None,
        size if flags & 2 else None,
        _SIDES[side] if side < len(_SIDES) else TradeSide.UNSPECIFIED,
        bid if flags & 4 else None,
        ask if flags & 8 else None,
        bid_size if flags & 16 else None,
        ask_size if flags & 32 else None,
        flags,
    )


def tick_objects(ticks: TickArray, first_sequence: int) -> list[Tick]:
    """The ticks as objects, numbered from `first_sequence`."""
    rows = VALUES.iter_unpack(np.ascontiguousarray(ticks).tobytes())
    return [tick_of(sequence, row) for sequence, row in enumerate(rows, first_sequence)]
