"""Decides with which code and reason each refusal of the engine is told."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import grpc

from minhos_api.mesh.v1 import error_reason_pb2 as reason
from minhos_mesh.runtime.errors import ErrorRow, ErrorTable, FieldViolation, MeshError
from minhos_mesh.runtime.money import format_e9
from minhos_mesh.trading_engine.domain import errors

_Code = grpc.StatusCode

_PROVENANCE: Final = ("seen", "allowed", "because")
_HALTED: Final = ("state", "because", "quantity", "allowed")

ERRORS: Final[ErrorTable] = {
    errors.UnknownSymbol: ErrorRow(_Code.NOT_FOUND, reason.ERROR_REASON_SYMBOL_UNKNOWN, ("symbol", "known")),
    errors.UnknownRequest: ErrorRow(_Code.NOT_FOUND, reason.ERROR_REASON_ORDER_UNKNOWN, ("request_id",)),
    errors.UnknownOrder: ErrorRow(_Code.NOT_FOUND, reason.ERROR_REASON_ORDER_UNKNOWN, ("order_id",)),
    errors.OrderIsClosed: ErrorRow(
        _Code.FAILED_PRECONDITION, reason.ERROR_REASON_ORDER_STATE, ("order_id", "state", "wanted")
    ),
    errors.ImpossibleTransition: ErrorRow(
        _Code.FAILED_PRECONDITION, reason.ERROR_REASON_ORDER_STATE, ("order_id", "state", "wanted")
    ),
    errors.RequestIdReused: ErrorRow(_Code.ALREADY_EXISTS, reason.ERROR_REASON_REQUEST_CONFLICT, ("request_id",)),
    errors.TradingHalted: ErrorRow(_Code.FAILED_PRECONDITION, reason.ERROR_REASON_TRADING_HALTED, _HALTED),
    errors.EmergencyStopped: ErrorRow(_Code.FAILED_PRECONDITION, reason.ERROR_REASON_TRADING_HALTED, _HALTED),
    errors.NotReducing: ErrorRow(_Code.FAILED_PRECONDITION, reason.ERROR_REASON_NOT_REDUCING, ("quantity", "allowed")),
    errors.VersionMismatch: ErrorRow(_Code.ABORTED, reason.ERROR_REASON_VERSION_MISMATCH, ("expected", "current")),
    errors.SignalOutOfTime: ErrorRow(
        _Code.FAILED_PRECONDITION, reason.ERROR_REASON_DATA_INSUFFICIENT, ("field", "age", "allowed")
    ),
    errors.StateConflict: ErrorRow(
        _Code.FAILED_PRECONDITION, reason.ERROR_REASON_STATE_CONFLICT, ("wanted", "state", "because")
    ),
    errors.ActorMissing: ErrorRow(_Code.INVALID_ARGUMENT, reason.ERROR_REASON_INVALID_FIELD, ("field",), field="field"),
    errors.WrongProvenance: ErrorRow(_Code.FAILED_PRECONDITION, reason.ERROR_REASON_PROVENANCE_REFUSED, _PROVENANCE),
    errors.AutomaticModeForbidden: ErrorRow(
        _Code.FAILED_PRECONDITION, reason.ERROR_REASON_PROVENANCE_REFUSED, ("seen", "allowed")
    ),
    errors.RiskRefused: ErrorRow(_Code.FAILED_PRECONDITION, reason.ERROR_REASON_RISK_REFUSED, ("checks",)),
    errors.RiskUnavailable: ErrorRow(_Code.UNAVAILABLE, reason.ERROR_REASON_DEPENDENCY_UNAVAILABLE, retry_after_s=1.0),
    errors.RiskConflict: ErrorRow(_Code.ALREADY_EXISTS, reason.ERROR_REASON_REQUEST_CONFLICT, ("request_id",)),
    errors.StateUnavailable: ErrorRow(_Code.UNAVAILABLE, reason.ERROR_REASON_DEPENDENCY_UNAVAILABLE, retry_after_s=1.0),
    errors.VenueUnavailable: ErrorRow(_Code.UNAVAILABLE, reason.ERROR_REASON_DEPENDENCY_UNAVAILABLE, retry_after_s=1.0),
    errors.VenueChanged: ErrorRow(_Code.FAILED_PRECONDITION, reason.ERROR_REASON_STATE_CONFLICT, ("home", "venue")),
    errors.StorageFailed: ErrorRow(_Code.UNAVAILABLE, reason.ERROR_REASON_NOT_SERVING, retry_after_s=1.0),
    errors.MarketDataUnavailable: ErrorRow(
        _Code.FAILED_PRECONDITION, reason.ERROR_REASON_DATA_INSUFFICIENT, ("symbol",), retry_after_s=1.0
    ),
}


@contextmanager
def fields_under(path: str) -> Iterator[None]:
    """Tell what is wrong with an order by the fields of the request that it came in, which begin with `path`."""
    try:
        yield
    except errors.InvalidOrder as error:
        raise told(error, path) from None


def told(error: errors.InvalidOrder, path: str) -> MeshError:
    """The refusal of an order that makes no sense: the most telling reason, and every violation."""
    violations = [FieldViolation(path + v.field, f"{path}{v.field}: {v.description}") for v in error.violations]
    message = "; ".join(violation.description for violation in violations)
    number, worst = reason.ERROR_REASON_INVALID_FIELD, error.violations[0]
    more = {"allowed": worst.allowed} if worst.allowed else {}
    for violation in error.violations:
        if violation.scale_meant_e9 is not None:
            number, worst, more = reason.ERROR_REASON_PRICE_SCALE, violation, {"meant": str(violation.scale_meant_e9)}
            break
        if violation.tick_e9 is not None:
            number, worst, more = reason.ERROR_REASON_PRICE_OFF_TICK, violation, {"tick": format_e9(violation.tick_e9)}
    seen = {"seen": worst.seen} if worst.seen else {}
    metadata = {"field": path + worst.field, **seen, **more}
    return MeshError(_Code.INVALID_ARGUMENT, number, message, metadata=metadata, violations=violations)
