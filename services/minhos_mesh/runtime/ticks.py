"""Decides how batches of ticks are written and read: as numpy records where the layout allows it, by protobuf where not."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import NamedTuple, Protocol, Self, TypeVar

import numpy as np
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import DecodeError

from minhos_api.market.v1 import provenance_pb2, tick_pb2
from minhos_mesh.runtime.tick_layout import (
    FEW_FIXED,
    FEW_MASKS,
    FIELDS,
    TAG,
    TICK,
    TICK_BYTES,
    TICKS_FIELD_NUMBER,
    VALUES,
    WIRE,
    Row,
    Tick,
    TickArray,
    is_laid_out,
    new_ticks,
    tick_objects,
    tick_of,
    ticks_from,
)

_TYPES = {
    FieldDescriptor.TYPE_SFIXED64: "sfixed64",
    FieldDescriptor.TYPE_FIXED32: "fixed32",
    FieldDescriptor.TYPE_ENUM: "enum",
}
_POSITION = struct.Struct("<BQBI")
_SEQUENCE_TAG, _COUNT_TAG = (4 << 3) | 1, (5 << 3) | 5
_SHORT = 2 + 128
"""Bytes of a message whose one field is shorter than 128 are less."""
_ALONE = struct.Struct("<xQ5x" + VALUES.format.removeprefix("<"))
"""Position and values of a batch of one tick."""
_ALONE_MASK = int.from_bytes(_POSITION.pack(255, 0, 255, 2**32 - 1), "little") | FEW_MASKS[1] << 8 * _POSITION.size
_ALONE_FIXED = (
    int.from_bytes(_POSITION.pack(_SEQUENCE_TAG, 0, _COUNT_TAG, 1), "little") | FEW_FIXED[1] << 8 * _POSITION.size
)
"""What is the same in all of these."""


class MalformedBatch(ValueError):
    """Expected: bytes that are no batch of ticks, or whose count does not agree with what follows."""


class LayoutMismatch(TypeError):
    """Unexpected: the contract of a Tick no longer has the layout that this code was written for."""


class _Message(Protocol):
    def SerializeToString(self) -> bytes: ...  # noqa: N802 - protobuf's own name


M = TypeVar("M")


class TickBatchView:
    """A contiguous run of ticks of one symbol; in an ingest the sequences are positions in the source."""

    __slots__ = (
        "_at",
        "_count",
        "_data",
        "_start",
        "_ticks",
        "epoch",
        "first_sequence",
        "provenance",
        "row",
        "symbol",
    )

    def __init__(self, symbol: str, provenance: int, epoch: int, first_sequence: int, ticks: TickArray) -> None:
        self.symbol = symbol
        """Canonical symbol."""
        self.provenance = provenance
        """Value of the contract's enum Provenance."""
        self.epoch = epoch
        """Generation of the source; sequences of different epochs do not compare."""
        self.first_sequence = first_sequence
        """Sequence of the first tick."""
        self._ticks: TickArray | None = ticks
        self.row: Row | None = None
        """The values of the only tick, where there is one alone and it was read without a copy."""
        self._data, self._start, self._at, self._count = b"", 0, 0, len(ticks)

    @classmethod
    def over(cls, head: _Head, first_sequence: int, data: bytes, start: int, count: int) -> Self:
        """A view of ticks whose layout was verified, without a copy; the batch fills `data` from `start` on."""
        view = cls.__new__(cls)
        view.symbol, view.provenance, view.epoch = head
        view.first_sequence, view._ticks, at = first_sequence, None, len(data) - count * TICK_BYTES
        view._data, view._start, view._at, view._count = data, start, at, count
        view.row = VALUES.unpack_from(data, at) if count == 1 else None
        return view

    @classmethod
    def alone(cls, head: _Head, data: bytes) -> Self:
        """The same for one tick in a short message that holds nothing else."""
        view = cls.__new__(cls)
        view.symbol, view.provenance, view.epoch = head
        values = _ALONE.unpack_from(data, len(data) - _ALONE.size)
        view.first_sequence, view._ticks, view.row, view._data = values[0], None, values[1:], data
        view._start, view._at, view._count = 2, len(data) - TICK_BYTES, 1
        return view

    def __len__(self) -> int:
        return self._count

    def __repr__(self) -> str:
        return f"TickBatchView({self.symbol}, epoch {self.epoch}, {self.first_sequence}..{self.last_sequence})"

    @property
    def ticks(self) -> TickArray:
        """Structured array with the fields of `TICK`, read only; a value whose bit in `flags` is off must not be read."""
        if self._ticks is None:
            self._ticks = np.frombuffer(self._data, TICK, self._count, self._at)
        return self._ticks

    @property
    def last_sequence(self) -> int:
        """Sequence of the last tick."""
        return self.first_sequence + self._count - 1

    def objects(self) -> list[Tick]:
        """The ticks as objects, absent values as None."""
        if self.row is not None:
            return [tick_of(self.first_sequence, self.row)]
        if self._data:
            rows = VALUES.iter_unpack(memoryview(self._data)[self._at :])
            return [tick_of(sequence, row) for sequence, row in enumerate(rows, self.first_sequence)]
        return tick_objects(self.ticks, self.first_sequence)

    @property
    def wire(self) -> bytes:
        """The ticks as they came, where they were read without a copy; else nothing."""
        return self._data[self._at :] if self._data else b""

    def in_field(self, number: int) -> bytes | None:
        """The message in which it came, when that is one whose only field is this batch and has this number (1 to 15)."""
        return self._data if self._start and self._data[0] == (number << 3) | 2 else None

    def after(self, sequence: int) -> TickBatchView:
        """The part of the batch behind a sequence."""
        skip = min(max(0, sequence + 1 - self.first_sequence), self._count)
        return TickBatchView(self.symbol, self.provenance, self.epoch, self.first_sequence + skip, self.ticks[skip:])


class _Head(NamedTuple):
    """What the beginning of a batch says; the next batches of a stream begin with the same bytes."""

    symbol: str
    provenance: int
    epoch: int


def fields_of(descriptor: Descriptor) -> tuple[tuple[str, int, str], ...]:
    """Name, number and type of a message's fields, by number. Raises LayoutMismatch for a type without fixed width."""
    fields = sorted(descriptor.fields, key=lambda field: field.number)
    for field in fields:
        if field.type not in _TYPES or not field.has_presence:
            raise LayoutMismatch(f"{descriptor.full_name}.{field.name} is neither fixed width, enum nor always present")
    return tuple((field.name, field.number, _TYPES[field.type]) for field in fields)


def check_layout(tick: Descriptor, batch: Descriptor) -> None:
    """Raises LayoutMismatch unless the contract has the layout of `tick_layout`."""
    if fields_of(tick) != FIELDS:
        raise LayoutMismatch(f"{tick.full_name} has the fields {fields_of(tick)}, this code was written for {FIELDS}")
    if batch.fields_by_name["ticks"].number != TICKS_FIELD_NUMBER:
        raise LayoutMismatch(f"{batch.full_name}.ticks must be field {TICKS_FIELD_NUMBER}")
    if max(field.number for field in batch.fields) != TICKS_FIELD_NUMBER:
        raise LayoutMismatch(f"{batch.full_name}.ticks must be the last field, for the ticks end the message")


check_layout(tick_pb2.Tick.DESCRIPTOR, tick_pb2.TickBatch.DESCRIPTOR)


@lru_cache(maxsize=256)
def _head(symbol: str, provenance: int, epoch: int) -> bytes:
    message = tick_pb2.TickBatch(symbol=symbol, provenance=provenance_pb2.Provenance.ValueType(provenance))
    message.epoch = epoch
    return message.SerializeToString()


def encode_wire(symbol: str, provenance: int, epoch: int, first_sequence: int, wire: bytes) -> bytes:
    """A TickBatch of ticks that are already laid out, as they stand in an array of `new_ticks`."""
    position = _POSITION.pack(_SEQUENCE_TAG, first_sequence, _COUNT_TAG, len(wire) // TICK_BYTES)
    return _head(symbol, provenance, epoch) + position + wire


def batch_in_field(
    number: int, symbol: str, provenance: int, epoch: int, first_sequence: int, *wire: bytes | memoryview
) -> bytes:
    """A message whose one field `number` (1 to 15) is the batch that `encode_wire` would give; its ticks are copied once."""
    size = len(wire[0]) if len(wire) == 1 else sum(map(len, wire))
    begun = _begun(number, symbol, provenance, epoch, size)
    return b"".join((begun, _POSITION.pack(_SEQUENCE_TAG, first_sequence, _COUNT_TAG, size // TICK_BYTES), *wire))


@lru_cache(maxsize=1_024)
def _begun(number: int, symbol: str, provenance: int, epoch: int, size: int) -> bytes:
    """What stands before the position of a batch whose ticks take so many bytes, in a message that holds nothing else."""
    head = _head(symbol, provenance, epoch)
    return _tag_and_length(number, len(head) + _POSITION.size + size) + head


def encode_batch(symbol: str, provenance: int, epoch: int, first_sequence: int, ticks: TickArray) -> bytes:
    """A TickBatch, byte for byte what protobuf writes. `ticks` is any structured array with the fields of `TICK`."""
    wire = ticks.tobytes() if ticks.dtype in (TICK, WIRE) else b""
    if not wire or not is_laid_out(wire, 0, len(ticks)):
        wire = ticks_from(ticks).tobytes()
    return encode_wire(symbol, provenance, epoch, first_sequence, wire)


def in_field(number: int, payload: bytes) -> bytes:
    """A message whose one field `number` (1 to 15) is the encoded message `payload`."""
    return _tag_and_length(number, len(payload)) + payload


def _tag_and_length(number: int, size: int) -> bytes:
    told = bytearray(((number << 3) | 2,))
    while size > 127:
        told.append(size & 127 | 128)
        size >>= 7
    told.append(size)
    return bytes(told)


def decode_batch(data: bytes, start: int = 0) -> TickBatchView:
    """Reads the TickBatch that fills `data` from `start` on. Raises MalformedBatch.

    The layout of each tick is verified; a batch of a writer that left fields out is read by protobuf, with 0 for them.
    """
    known = _heads.get(data[start : start + 2 + data[start + 1]]) if len(data) > start + 1 else None
    if known is not None and data.startswith(known[0], start):
        at = start + len(known[0])
        if len(data) - at >= _POSITION.size:
            tag, sequence, count_tag, count = _POSITION.unpack_from(data, at)
            at += _POSITION.size
            usual = tag == _SEQUENCE_TAG and count_tag == _COUNT_TAG and len(data) - at == count * TICK_BYTES
            if usual and count and is_laid_out(data, at, count):
                return TickBatchView.over(known[1], sequence, data, start, count)
    return _decode_any(data, start)


_HEADS = 1_024
_heads: dict[bytes, tuple[bytes, _Head]] = {}
"""By the encoded symbol, the head that it came with last, in bytes and as what they say."""


def _decode_any(data: bytes, start: int) -> TickBatchView:
    at = _end_of_head(data, start)
    count, odd = divmod(len(data) - at, TICK_BYTES)
    if odd or not is_laid_out(data, at, count):
        return _decoded_by_protobuf(data[start:])
    head = _parsed(data[start:at])
    _check_count(head, count)
    _remember(head, data[start:at])
    ticks = np.frombuffer(data, TICK, count, at) if count else new_ticks(0)
    return TickBatchView(head.symbol, head.provenance, head.epoch, head.first_sequence, ticks)


def _remember(head: tick_pb2.TickBatch, encoded: bytes) -> None:
    usual = _head(head.symbol, head.provenance, head.epoch)
    if encoded == usual + _POSITION.pack(_SEQUENCE_TAG, head.first_sequence, _COUNT_TAG, head.tick_count):
        if len(_heads) >= _HEADS:
            _heads.clear()
        _heads[usual[: 2 + usual[1]]] = usual, _Head(head.symbol, head.provenance, head.epoch)


def _end_of_head(data: bytes, at: int) -> int:
    end = len(data)
    try:
        while at < end and (tag := data[at]) != TAG and tag < 128:
            wire_type = tag & 7
            at += 1
            if wire_type == 1:
                at += 8
            elif wire_type == 5:
                at += 4
            elif wire_type == 2 and data[at] < 128:
                at += 1 + data[at]
            elif wire_type == 0:
                while data[at] > 127:
                    at += 1
                at += 1
            else:
                return end
    except IndexError:
        return end
    return min(at, end)


def _parsed(data: bytes) -> tick_pb2.TickBatch:
    try:
        return tick_pb2.TickBatch.FromString(data)
    except DecodeError as error:
        raise MalformedBatch(f"{len(data)} bytes are no batch of ticks: {error}") from None


def _check_count(head: tick_pb2.TickBatch, count: int) -> None:
    if head.HasField("tick_count") and head.tick_count != count:
        raise MalformedBatch(f"batch of {head.symbol} says tick_count {head.tick_count} but holds {count} ticks")


def _decoded_by_protobuf(data: bytes) -> TickBatchView:
    message = _parsed(data)
    _check_count(message, len(message.ticks))
    return view_of(message)


def view_of(message: tick_pb2.TickBatch) -> TickBatchView:
    """A batch that protobuf has read; an enum beyond one byte becomes 0, which no rule accepts."""
    ticks = new_ticks(len(message.ticks))
    for name, _, kind in FIELDS:
        values: Sequence[int] = [getattr(tick, name) for tick in message.ticks]
        ticks[name] = [value if 0 <= value < 128 else 0 for value in values] if kind == "enum" else values
    ticks.flags.writeable = False
    return TickBatchView(message.symbol, message.provenance, message.epoch, message.first_sequence, ticks)


def message_or_batch(number: int, parse: Callable[[bytes], M]) -> Callable[[bytes], M | TickBatchView]:
    """A deserializer for an envelope whose field `number` is a TickBatch: such a message becomes a view, others a message.

    It raises MalformedBatch, and what `parse` raises.
    """
    tag = (number << 3) | 2
    alone: dict[bytes, _Head] = {}
    """What messages of one tick begin with that came before, and what it says."""

    def read_short(data: bytes) -> TickBatchView:
        view = decode_batch(data, 2)
        if len(view) == 1 and data[2 : -_ALONE.size] == _head(view.symbol, view.provenance, view.epoch):
            if len(alone) >= _HEADS:
                alone.clear()
            alone[data[: -_ALONE.size]] = _Head(view.symbol, view.provenance, view.epoch)
        return view

    def read(data: bytes) -> M | TickBatchView:
        size = len(data)
        if size < _SHORT:
            known = alone.get(data[: -_ALONE.size])
            if known is not None and int.from_bytes(data[-_ALONE.size :], "little") & _ALONE_MASK == _ALONE_FIXED:
                return TickBatchView.alone(known, data)
        if size > 1 and data[0] == tag:
            if data[1] == size - 2 < 128:  # a short one, which is all that there is of it
                return read_short(data)
            length, at, shift = 0, 1, 0
            while at < len(data) and shift < 35:
                byte = data[at]
                length |= (byte & 127) << shift
                at += 1
                shift += 7
                if byte < 128:
                    break
            if at + length == len(data):
                return decode_batch(data, at)
        return parse(data)

    return read


def bytes_or_message(value: bytes | _Message) -> bytes:
    """A serializer that lets through what is already encoded."""
    return value if isinstance(value, bytes) else value.SerializeToString()
