"""Decides how a .depth file is read: commands that clear, add, change and remove levels of an order book."""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from minhos_mesh.sierra_files.depth_layout import (
    DEPTH_HEADER_SIZE,
    DEPTH_MAGIC,
    DEPTH_RECORD,
    DEPTH_RECORD_SIZE,
    DEPTH_VERSION,
)
from minhos_mesh.sierra_files.header import ScidIncomplete, ScidMalformed
from minhos_mesh.sierra_files.layout import LONGEST_HEADER
from minhos_mesh.sierra_files.told_errors import told_errors

_HEADER: Final = struct.Struct("<IIII")


def read_depth(path: Path, *, from_index: int = 0) -> NDArray[np.void]:
    """All whole records of a file from an index on; a half one at its end is left.

    Raises ScidMissing, ScidForbidden, ScidIncomplete, ScidMalformed or ScidError with the file's name and what was seen.
    """
    with told_errors(path, "read"), path.open("rb") as file:
        header_size = check_depth_header(file.read(DEPTH_HEADER_SIZE), str(path))
        size = os.fstat(file.fileno()).st_size
        count = max(0, (size - header_size) // DEPTH_RECORD_SIZE - from_index)
        file.seek(header_size + from_index * DEPTH_RECORD_SIZE)
        data = file.read(count * DEPTH_RECORD_SIZE)
    whole = len(data) // DEPTH_RECORD_SIZE
    return np.frombuffer(data, DEPTH_RECORD, count=whole)


def write_depth_header() -> bytes:
    """The 64 bytes with which a .depth file begins."""
    return _HEADER.pack(DEPTH_MAGIC, DEPTH_HEADER_SIZE, DEPTH_RECORD_SIZE, DEPTH_VERSION) + bytes(48)


def check_depth_header(data: bytes, name: str) -> int:
    """Size of the header that these bytes begin with. Raises ScidIncomplete or ScidMalformed."""
    if len(data) < _HEADER.size:
        raise ScidIncomplete(f"{name} has {len(data)} bytes: a .depth file begins with a header of {DEPTH_HEADER_SIZE}")
    magic, header_size, record_size, version = _HEADER.unpack_from(data)
    if magic != DEPTH_MAGIC:
        raise ScidMalformed(f"{name} is not a .depth file: it begins with {data[:4]!r}, expected b'SCDD'")
    if not DEPTH_HEADER_SIZE <= header_size <= LONGEST_HEADER or record_size != DEPTH_RECORD_SIZE:
        raise ScidMalformed(
            f"{name} has a .depth header of {header_size} bytes and records of {record_size} bytes: "
            f"expected {DEPTH_HEADER_SIZE} to {LONGEST_HEADER} and {DEPTH_RECORD_SIZE}"
        )
    if version != DEPTH_VERSION:
        raise ScidMalformed(f"{name} is a .depth file of version {version}: known is version {DEPTH_VERSION}")
    return int(header_size)
