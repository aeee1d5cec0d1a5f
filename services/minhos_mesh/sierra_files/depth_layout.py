"""Decides where each value of a .depth file lies, and what its commands are called."""

from __future__ import annotations

from enum import IntEnum
from typing import Any, Final

import numpy as np

DEPTH_SUFFIX: Final = ".depth"
DEPTH_MAGIC: Final = 0x44444353
DEPTH_HEADER_SIZE: Final = 64
DEPTH_RECORD_SIZE: Final = 24
DEPTH_VERSION: Final = 1

DEPTH_RECORD: Final[np.dtype[Any]] = np.dtype(
    {
        "names": ["time_us", "command", "flags", "num_orders", "price", "quantity", "reserved"],
        "formats": ["<i8", "u1", "u1", "<u2", "<f4", "<u4", "<u4"],
    }
)
"""One command: time in microseconds since Sierra's epoch, price as float32, quantity in contracts."""

END_OF_BATCH: Final = 0x01
"""Flag of the last command that belongs to one instant; only behind it the book is one that existed."""


class DepthCommand(IntEnum):
    """What a record does to the book."""

    NONE = 0
    CLEAR_BOOK = 1
    ADD_BID = 2
    ADD_ASK = 3
    MODIFY_BID = 4
    MODIFY_ASK = 5
    DELETE_BID = 6
    DELETE_ASK = 7
