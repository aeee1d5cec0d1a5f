"""Decides how deliveries are encoded: the bytes of an event go out as they came in, with its place behind them.

Protobuf lets the fields of a message stand in any order, so that an event need not be taken apart to be given its place.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable
from typing import Final

from minhos_mesh.event_bus.domain.records import StoredEvent
from minhos_mesh.event_bus.readers import Outgoing

NS: Final = 1_000_000_000

# Keys of fields: number and wire type.
_SEQUENCE: Final = bytes([7 << 3])
_STORE_TIME: Final = bytes([13 << 3 | 2])
_SECONDS: Final = bytes([1 << 3])
_NANOS: Final = bytes([2 << 3])
_EVENT: Final = bytes([1 << 3 | 2])
_ATTEMPT: Final = bytes([2 << 3])
_REQUEUED: Final = bytes([3 << 3, 1])
_EVENTS: Final = bytes([1 << 3 | 2])
_DELIVERY: Final = bytes([2 << 3 | 2])


def delivery(events: Iterable[Outgoing]) -> bytes:
    """A SubscribeResponse that delivers these."""
    parts: list[bytes] = []
    for outgoing in events:
        item = _delivered(outgoing)
        parts += (_EVENTS, varint(len(item)), item)
    body = b"".join(parts)
    return b"".join((_DELIVERY, varint(len(body)), body))


def placed(stored: StoredEvent) -> bytes:
    """An Event with its place."""
    return b"".join((stored.envelope, _SEQUENCE, varint(stored.sequence), _store_time(stored.store_time_ns)))


def _delivered(outgoing: Outgoing) -> bytes:
    event = placed(outgoing.event)
    requeued = _REQUEUED if outgoing.requeued else b""
    return b"".join((_EVENT, varint(len(event)), event, _ATTEMPT, varint(outgoing.attempt), requeued))


@functools.lru_cache(maxsize=256)
def _store_time(time_ns: int) -> bytes:
    """The field; all events of one commit have the same."""
    seconds, nanos = divmod(time_ns, NS)
    stamp = b"".join((_SECONDS, varint(seconds), _NANOS, varint(nanos)))
    return b"".join((_STORE_TIME, varint(len(stamp)), stamp))


def varint(value: int) -> bytes:
    """A number from 0 on, seven bits a byte."""
    if value < 0x80:
        return bytes((value,))
    if value < 0x4000:
        return bytes((value & 0x7F | 0x80, value >> 7))
    parts = bytearray()
    while value >= 0x80:
        parts.append(value & 0x7F | 0x80)
        value >>= 7
    parts.append(value)
    return bytes(parts)
