"""Decides where each value of a .scid file lies: header, 40-byte records, epoch, marks and the simulator's marker."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

MAGIC = b"SCID"
HEADER_SIZE = 56
LONGEST_HEADER = 4096
"""Bytes of the longest header that is believed; a header says its own size, and records begin behind it."""
RECORD_SIZE = 40
VERSION = 1
SUFFIX = ".scid"

MARKER_NAME = "SIMULATED-DATA.json"
"""File that the simulator writes beside its data: a folder that holds it is never read as LIVE or DELAYED."""

EPOCH_SHIFT_US = 25_569 * 86_400 * 1_000_000
"""Microseconds from Sierra's epoch (1899-12-30 00:00 UTC) to the Unix epoch."""

RECORD: np.dtype[Any] = np.dtype(
    {
        "names": ["time_us", "open", "high", "low", "close", "num_trades", "total_volume", "bid_volume", "ask_volume"],
        "formats": ["<i8", "<f4", "<f4", "<f4", "<f4", "<u4", "<u4", "<u4", "<u4"],
    }
)
"""One record: time in microseconds since Sierra's epoch, prices as float32, bid_volume = sellers hit the bid."""

MARK_FIRST = 0xFD709EF9
"""Bit pattern of Open in the first sub-trade of an unbundled trade."""

MARK_LAST = 0xFD709F01
"""Bit pattern of Open in the last sub-trade of an unbundled trade."""

Records: TypeAlias = NDArray[np.void]
"""A structured array of RECORD."""


def empty_records(count: int) -> Records:
    """An array of zeroed records."""
    return np.zeros(count, RECORD)


def open_bits(records: Records) -> NDArray[np.uint32]:
    """Bit patterns of the Open field, by which the marks are told apart."""
    bits: NDArray[np.uint32] = np.ascontiguousarray(records["open"]).view("<u4")
    return bits


def records_in(size: int, header_size: int = HEADER_SIZE) -> int:
    """Number of whole records in a file of this size; a half record at the end does not count."""
    return max(0, size - header_size) // RECORD_SIZE


def offset_of(index: int, header_size: int = HEADER_SIZE) -> int:
    """Byte offset of the record with this index."""
    return header_size + index * RECORD_SIZE
