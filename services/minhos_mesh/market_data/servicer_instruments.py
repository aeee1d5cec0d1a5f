"""Serves instruments by their contract: each method hears, asks the rules, and says."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from typing import Any

import grpc
from google.protobuf.timestamp_pb2 import Timestamp

from minhos_api.market.v1 import instrument_service_pb2 as pb2
from minhos_api.market.v1 import instrument_service_pb2_grpc as instrument_grpc
from minhos_api.mesh.v1 import error_reason_pb2 as reasons
from minhos_mesh.history.calendars import calendar_of
from minhos_mesh.market_data.domain.rollover import (
    DAY_NS,
    InstrumentUnknown,
    Roll,
    TimeOutOfReach,
    resolve,
    schedule,
)
from minhos_mesh.runtime.clock import Clock
from minhos_mesh.runtime.errors import ErrorRow, ErrorTable
from minhos_mesh.runtime.instruments import InstrumentSpec
from minhos_mesh.runtime.paging import make_token, page_size, read_token
from minhos_mesh.runtime.trading_sessions import day_start_ns
from minhos_mesh.runtime.wire_time import timestamp

INSTRUMENT_ERRORS: ErrorTable = {
    InstrumentUnknown: ErrorRow(
        grpc.StatusCode.NOT_FOUND, reasons.ERROR_REASON_INSTRUMENT_UNKNOWN, ("symbol", "known", "nearest")
    ),
    TimeOutOfReach: ErrorRow(
        grpc.StatusCode.INVALID_ARGUMENT,
        reasons.ERROR_REASON_INVALID_FIELD,
        ("field", "seen", "allowed"),
        field="field",
    ),
}
_ROLLS = 4


class InstrumentServicer(instrument_grpc.InstrumentServiceServicer):
    """Says what can be traded or quoted."""

    def __init__(self, specs: Mapping[str, InstrumentSpec], primary: str, clock: Clock) -> None:
        self._specs, self._primary, self._clock = specs, primary, clock

    async def ListInstruments(self, request: pb2.ListInstrumentsRequest, _context: Any) -> pb2.ListInstrumentsResponse:
        position = read_token(request)
        roots = sorted(self._specs)
        first = 0 if position is None else int(position[0])
        last = first + page_size(request, default=100, largest=1_000)
        token = make_token(request, [last]) if last < len(roots) else ""
        found = [self._instrument(self._specs[root]) for root in roots[first:last]]
        return pb2.ListInstrumentsResponse(instruments=found, next_page_token=token)

    async def GetInstrument(self, request: pb2.GetInstrumentRequest, _context: Any) -> pb2.GetInstrumentResponse:
        found = resolve(request.symbol, self._clock.wall_ns(), self._specs)
        return pb2.GetInstrumentResponse(instrument=self._instrument(found.spec))

    async def ResolveSymbol(self, request: pb2.ResolveSymbolRequest, _context: Any) -> pb2.ResolveSymbolResponse:
        found = resolve(request.symbol, self._at_ns(request), self._specs)
        return pb2.ResolveSymbolResponse(
            symbol=str(found.symbol),
            root=found.spec.root,
            by_rule=found.by_rule,
            roll=None if found.roll is None else _roll(found.roll),
        )

    async def GetRollover(self, request: pb2.GetRolloverRequest, _context: Any) -> pb2.GetRolloverResponse:
        at_ns = self._at_ns(request)
        text = request.symbol if request.HasField("symbol") else self._primary
        spec = resolve(text, at_ns, self._specs).spec
        rolls = schedule(spec, at_ns, request.count or _ROLLS)
        return pb2.GetRolloverResponse(
            root=spec.root,
            at_time=timestamp(at_ns),
            rolls=[_roll(roll) for roll in rolls],
            days_left=-(-rolls[0].left_ns(at_ns) // DAY_NS) if rolls else None,
            alert_days=rolls[0].alert_days(at_ns) if rolls else None,
        )

    def _at_ns(self, request: pb2.ResolveSymbolRequest | pb2.GetRolloverRequest) -> int:
        if not request.HasField("at_time"):
            return self._clock.wall_ns()
        return request.at_time.seconds * 1_000_000_000 + request.at_time.nanos

    def _instrument(self, spec: InstrumentSpec) -> pb2.Instrument:
        return pb2.Instrument(
            root=spec.root,
            exchange=spec.exchange,
            description=spec.description,
            tick_e9=spec.tick_e9,
            multiplier=spec.multiplier,
            currency=spec.currency,
            tradeable=spec.tradeable,
            calendar=calendar_of(spec.exchange) or "",
            current_symbol=str(resolve(spec.root, self._clock.wall_ns(), self._specs).symbol),
        )


def _roll(roll: Roll) -> pb2.Roll:
    return pb2.Roll(
        symbol=str(roll.symbol),
        current_time=timestamp(roll.current_from_ns),
        roll_time=timestamp(roll.roll_ns),
        expiry_time=_midnight(roll.expiry),
        next_symbol=str(roll.next),
        former_roll_time=_midnight(roll.former),
    )


def _midnight(day: date) -> Timestamp:
    return timestamp(day_start_ns(day))
