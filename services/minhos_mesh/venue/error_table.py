"""Decides with which code and reason each refusal of a venue is told."""

from __future__ import annotations

from typing import Final

import grpc

from minhos_api.mesh.v1 import error_reason_pb2 as reasons
from minhos_mesh.runtime.errors import ErrorRow, ErrorTable
from minhos_mesh.runtime.money import OffScale, OffTick
from minhos_mesh.runtime.storage import StorageBusy, StorageClosed
from minhos_mesh.venue.domain import errors

_INVALID: Final = grpc.StatusCode.INVALID_ARGUMENT
_NOT_FOUND: Final = grpc.StatusCode.NOT_FOUND
_EXISTS: Final = grpc.StatusCode.ALREADY_EXISTS
_PRECONDITION: Final = grpc.StatusCode.FAILED_PRECONDITION
_UNAVAILABLE: Final = grpc.StatusCode.UNAVAILABLE
_NOT_SERVING: Final = ErrorRow(_UNAVAILABLE, reasons.ERROR_REASON_NOT_SERVING, retry_after_s=0.2)

ERRORS: Final[ErrorTable] = {
    errors.InvalidField: ErrorRow(
        _INVALID, reasons.ERROR_REASON_INVALID_FIELD, ("field", "seen", "allowed"), field="field"
    ),
    OffScale: ErrorRow(_INVALID, reasons.ERROR_REASON_PRICE_SCALE, ("field", "seen", "meant"), field="field"),
    OffTick: ErrorRow(
        _INVALID, reasons.ERROR_REASON_PRICE_OFF_TICK, ("field", "seen", "below_e9", "above_e9"), field="field"
    ),
    errors.SymbolUnknown: ErrorRow(_NOT_FOUND, reasons.ERROR_REASON_SYMBOL_UNKNOWN, ("symbol", "known")),
    errors.OrderUnknown: ErrorRow(_NOT_FOUND, reasons.ERROR_REASON_ORDER_UNKNOWN, ("order_id",)),
    errors.OrderDone: ErrorRow(_PRECONDITION, reasons.ERROR_REASON_ORDER_STATE, ("order_id", "state", "wanted")),
    errors.RequestConflict: ErrorRow(_EXISTS, reasons.ERROR_REASON_REQUEST_CONFLICT, ("request_id",)),
    errors.ProvenanceRefused: ErrorRow(_PRECONDITION, reasons.ERROR_REASON_PROVENANCE_REFUSED, ("seen", "because")),
    errors.OutcomeUnknown: ErrorRow(grpc.StatusCode.UNKNOWN, reasons.ERROR_REASON_OUTCOME_UNKNOWN, ("order_id",)),
    errors.VenueNotReady: ErrorRow(
        _UNAVAILABLE, reasons.ERROR_REASON_VENUE_NOT_READY, ("venue", "state", "because"), retry_after_s=0.5
    ),
    errors.VenueClosing: ErrorRow(
        _UNAVAILABLE, reasons.ERROR_REASON_NOT_SERVING, ("service", "state"), retry_after_s=0.2
    ),
    StorageClosed: _NOT_SERVING,
    StorageBusy: _NOT_SERVING,
}
