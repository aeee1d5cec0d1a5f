"""Decides whether the first 56 bytes are those of a .scid file that this system reads, and what is wrong when not."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from minhos_mesh.sierra_files.layout import HEADER_SIZE, LONGEST_HEADER, MAGIC, RECORD_SIZE, VERSION

_HEADER = struct.Struct("<4sIIHHI36s")


class ScidError(Exception):
    """A .scid file cannot be read; expected in the field. The text names the file and what was seen."""


class ScidMissing(ScidError):
    """There is no file at the path (yet)."""


class ScidIncomplete(ScidError):
    """The file ends before its header does: it is being created, or it was cut off."""


class ScidForbidden(ScidError):
    """The file exists and may not be read by this process."""


class ScidMalformed(ScidError):
    """The file has a header, and it is not that of a .scid file of the known layout."""


@dataclass(frozen=True, slots=True)
class ScidHeader:
    """The values of a header that the reader needs."""

    version: int
    utc_start_index: int
    size: int = HEADER_SIZE
    """Bytes before the first record."""


def parse_header(data: bytes, name: str) -> ScidHeader:
    """Reads and checks a header. `name` is the file's name for messages.

    Raises ScidIncomplete when there are fewer than 56 bytes, ScidMalformed when they are another format's.
    """
    if len(data) < HEADER_SIZE:
        _refuse_short(data, name)
    magic, header_size, record_size, version, _, start_index, _ = _HEADER.unpack_from(data)
    if magic != MAGIC:
        raise ScidMalformed(f"{name} is not a .scid file: it begins with {magic!r}, expected {MAGIC!r}")
    if not HEADER_SIZE <= header_size <= LONGEST_HEADER or record_size != RECORD_SIZE:
        raise ScidMalformed(
            f"{name} has a .scid header of {header_size} bytes and records of {record_size} bytes: "
            f"expected {HEADER_SIZE} to {LONGEST_HEADER} and {RECORD_SIZE}"
        )
    if version != VERSION:
        raise ScidMalformed(f"{name} is a .scid file of version {version}: known is version {VERSION}")
    return ScidHeader(version, start_index, header_size)


def _refuse_short(data: bytes, name: str) -> None:
    if not data:
        raise ScidIncomplete(f"{name} is empty: 0 bytes, a .scid file begins with a header of {HEADER_SIZE} bytes")
    if not MAGIC.startswith(data[:4]):
        raise ScidMalformed(f"{name} is not a .scid file: it begins with {data[:4]!r}, expected {MAGIC!r}")
    raise ScidIncomplete(f"{name} has a truncated header: {len(data)} of {HEADER_SIZE} bytes")


def write_header() -> bytes:
    """The 56 bytes with which a new .scid file begins."""
    return _HEADER.pack(MAGIC, HEADER_SIZE, RECORD_SIZE, VERSION, 0, 0, bytes(36))
