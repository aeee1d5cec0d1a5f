"""Decides what is published when the bus is measured: fills of 200 bytes, of eight symbols in turn, each with an id of its own."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Final

from minhos_api.events.v1 import event_pb2
from minhos_api.market.v1 import provenance_pb2
from minhos_api.order.v1 import order_terms_pb2
from minhos_api.trading.v1.trading_events_pb2 import TradeExecuted
from minhos_mesh.runtime.event_envelope import make_event

PAYLOAD_BYTES: Final = 200
TYPE: Final = "trade.executed"
SUBJECTS: Final = (
    "NQZ26-CME",
    "ESZ26-CME",
    "MNQZ26-CME",
    "MESZ26-CME",
    "YMZ26-CBOT",
    "NQH27-CME",
    "ESH27-CME",
    "YMH27-CBOT",
)


def _fill(symbol: str) -> TradeExecuted:
    made = TradeExecuted(realized_pnl_e9=-1_250_000_000)
    fill = made.fill
    fill.fill_id, fill.order_id, fill.venue_order_id = "F-00000001", "O-00000001", "V-00000001"
    fill.symbol, fill.side, fill.provenance = symbol, order_terms_pb2.SIDE_BUY, provenance_pb2.PROVENANCE_SIMULATED
    fill.quantity = fill.cumulative_quantity = 2
    fill.price_e9, fill.commission_e9, fill.market_sequence = 21_000_250_000_000, 4_180_000_000, 123_456
    fill.fill_time.FromNanoseconds(1_700_000_000_123_456_789)
    position = made.position
    position.symbol, position.quantity, position.version = symbol, 2, 7
    position.cost_e9, position.average_price_e9 = 840_010_000_000_000, 21_000_250_000_000
    position.multiplier_e9, position.commission_e9 = 20_000_000_000, 4_180_000_000
    made.signal_id = "s" * (PAYLOAD_BYTES - made.ByteSize() - 2)
    assert made.ByteSize() == PAYLOAD_BYTES, made.ByteSize()
    return made


_FILLS: Final = tuple(_fill(symbol) for symbol in SUBJECTS)


def event(number: int, time_ns: int | None = None) -> event_pb2.Event:
    """One event; `time_ns` is the moment that a reader takes the latency from, of the monotonic clock."""
    place = number % len(SUBJECTS)
    moment = time.perf_counter_ns() if time_ns is None else time_ns
    return make_event(_FILLS[place], subject=SUBJECTS[place], source="benchmark", time_ns=moment)


def events(count: int) -> list[event_pb2.Event]:
    """So many events."""
    return [event(number) for number in range(count)]


def sent_ns(told: event_pb2.Event) -> int:
    """The moment that an event carries."""
    return told.event_time.seconds * 1_000_000_000 + told.event_time.nanos


def payload(time_ns: int = 0) -> bytes:
    """As many bytes as the payload of an event, for a reference; the first eight are the moment that it carries."""
    return time_ns.to_bytes(8, "big") + b"x" * (PAYLOAD_BYTES - 8)


def batches(count: int, size: int) -> Sequence[list[event_pb2.Event]]:
    """So many events in lists of that size."""
    return [events(size) for _ in range(count // size)]
