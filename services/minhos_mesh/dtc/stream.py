"""Decides how messages are cut from a stream that arrives in any pieces, and what is done with those that are not known."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Final

from minhos_mesh.dtc.binary import decode_fixed, decode_variable, encode_fixed, encode_variable
from minhos_mesh.dtc.enums import Encoding
from minhos_mesh.dtc.errors import FramingLost, MessageMalformed, MessageUnencodable
from minhos_mesh.dtc.layout import HEADER_SIZE
from minhos_mesh.dtc.message import Message
from minhos_mesh.dtc.tables import BY_TYPE
from minhos_mesh.dtc.text import decode_json, encode_json, parse_json, type_of

JSON_LIMIT: Final = 1 << 18
"""Bytes of the longest JSON message that is waited for; the longest of the protocol has a few thousand."""
TYPES_COUNTED: Final = 256
"""Unknown types that are counted one by one; those beyond are counted as OTHER_TYPES."""
OTHER_TYPES: Final = -1

SUPPORTED: Final = frozenset({Encoding.BINARY, Encoding.BINARY_VARIABLE, Encoding.JSON})
"""Encodings that are read and written here."""

_TYPES: Final = 1 << 16


@dataclass(slots=True)
class StreamCounts:
    """What has come out of a stream."""

    messages: int = 0
    """Messages that were read."""
    unknown: Counter[int] = field(default_factory=Counter)
    """Messages of types that are not known here, by type; they are left out."""
    malformed: int = 0
    """Messages that could not be read; they are left out."""
    last_problem: str = ""
    """What was wrong with the last of them."""


class MessageStream:
    """Bytes in, messages out; holds at most one unfinished message and what was fed last."""

    def __init__(self, encoding: Encoding = Encoding.BINARY) -> None:
        """A session begins in BINARY; `encoding` may be set between two messages and holds for the rest."""
        self.encoding = encoding
        self.counts = StreamCounts()
        self._buffer = bytearray()
        self._at = 0
        self._searched = 0
        self._lost: FramingLost | None = None

    @property
    def buffered(self) -> int:
        """Bytes held that belong to no message read so far."""
        return len(self._buffer) - self._at

    def feed(self, data: bytes) -> None:
        """Adds bytes as they came."""
        if self._at:
            del self._buffer[: self._at]
            self._searched -= self._at
            self._at = 0
        self._buffer += data

    def looks_like_json(self) -> bool:
        """Whether the next byte opens an object, as with a peer that speaks JSON from its first byte."""
        return self.buffered > 0 and self._buffer[self._at] == ord("{")

    def read(self) -> Message | None:
        """The next known message, None when the bytes end before it does. Raises FramingLost, then ever again."""
        if self._lost is not None:
            raise self._lost
        while (frame := self._next_frame()) is not None:
            try:
                message = self._decoded(frame)
            except MessageMalformed as problem:
                self.counts.malformed += 1
                self.counts.last_problem = str(problem)
                continue
            if message is not None:
                self.counts.messages += 1
                return message
        return None

    def _next_frame(self) -> bytes | None:
        return self._next_object() if self.encoding is Encoding.JSON else self._next_binary()

    def _next_binary(self) -> bytes | None:
        if self.buffered < HEADER_SIZE:
            return None
        size = int.from_bytes(self._buffer[self._at : self._at + 2], "little")
        if size < HEADER_SIZE:
            raise self._lose(f"a message of {size} bytes begins here: the smallest has {HEADER_SIZE}")
        if self.buffered < size:
            return None
        return self._take(size, 0)

    def _next_object(self) -> bytes | None:
        end = self._buffer.find(0, max(self._searched, self._at))
        length = (len(self._buffer) if end < 0 else end) - self._at
        if length > JSON_LIMIT:
            raise self._lose(f"a JSON message has no end within {JSON_LIMIT} bytes")
        if end < 0:
            self._searched = len(self._buffer)
            return None
        return self._take(length, 1)

    def _take(self, length: int, behind: int) -> bytes:
        frame = bytes(self._buffer[self._at : self._at + length])
        self._at += length + behind
        return frame

    def _lose(self, problem: str) -> FramingLost:
        self._lost = FramingLost(problem)
        self._buffer.clear()
        self._at = self._searched = 0
        return self._lost

    def _decoded(self, frame: bytes) -> Message | None:
        if self.encoding is Encoding.JSON:
            found = parse_json(frame)
            number = type_of(found)
            layout = BY_TYPE.get(number)
            if layout is not None:
                return decode_json(layout, found)
            self._skip(number)
            return None
        number = int.from_bytes(frame[2:4], "little")
        layout = BY_TYPE.get(number)
        if layout is None:
            self._skip(number)
            return None
        return (
            decode_variable(layout, frame) if self.encoding is Encoding.BINARY_VARIABLE else decode_fixed(layout, frame)
        )

    def _skip(self, number: int) -> None:
        unknown = self.counts.unknown
        told = 0 <= number < _TYPES and (number in unknown or len(unknown) < TYPES_COUNTED)
        unknown[number if told else OTHER_TYPES] += 1


def encode(message: Message, encoding: Encoding) -> bytes:
    """The bytes of a message. Raises MessageUnencodable, also for an encoding that is not supported."""
    if encoding is Encoding.JSON:
        return encode_json(message)
    if encoding is Encoding.BINARY:
        return encode_fixed(message)
    if encoding is Encoding.BINARY_VARIABLE:
        return encode_variable(message)
    raise MessageUnencodable(f"{message.name} cannot be written in encoding {encoding.name}")
