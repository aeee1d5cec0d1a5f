"""Errors: from an exception to a status and back."""

from __future__ import annotations

from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2

from minhos_api.mesh.v1 import error_reason_pb2 as reasons
from minhos_mesh.runtime.errors import (
    DETAILS_KEY,
    CallError,
    ErrorRow,
    ErrorTable,
    FieldViolation,
    MeshError,
    invalid_field,
    mapped,
    position_lost,
    read,
    status_of,
    trailers_of,
)


class Refused(Exception):
    def __init__(self, text: str, field: str | None = None, seen: object = None) -> None:
        super().__init__(text)
        self.field, self.seen = field, seen


class RefusedMore(Refused):
    pass


class RefusedOtherwise(Refused):
    pass


TABLE: ErrorTable = {
    Refused: ErrorRow(
        grpc.StatusCode.INVALID_ARGUMENT, reasons.ERROR_REASON_INVALID_FIELD, ("field", "seen"), field="field"
    ),
    RefusedOtherwise: ErrorRow(grpc.StatusCode.UNAVAILABLE, reasons.ERROR_REASON_NOT_SERVING, retry_after_s=0.25),
}


class Failed(grpc.RpcError):
    """What a caller holds: code, text and trailers."""

    def __init__(self, code: grpc.StatusCode, text: str | None, trailers: Any) -> None:
        super().__init__()
        self._code, self._text, self._trailers = code, text, trailers

    def code(self) -> grpc.StatusCode:
        return self._code

    def details(self) -> str | None:
        return self._text

    def trailing_metadata(self) -> Any:
        return self._trailers


def travelled(error: MeshError) -> CallError:
    return read(Failed(error.code, error.message, (("other", "x"), *trailers_of(error))))


def test_what_is_sent_is_what_is_read() -> None:
    error = MeshError(
        grpc.StatusCode.NOT_FOUND,
        reasons.ERROR_REASON_SYMBOL_UNKNOWN,
        "no such symbol: été",
        metadata={"symbol": "NQ"},
        violations=[FieldViolation("a.b", "is 0"), FieldViolation("c", "is missing")],
    )
    assert travelled(error) == CallError(
        grpc.StatusCode.NOT_FOUND,
        "no such symbol: été",
        "ERROR_REASON_SYMBOL_UNKNOWN",
        {"symbol": "NQ"},
        (FieldViolation("a.b", "is 0"), FieldViolation("c", "is missing")),
    )


@pytest.mark.parametrize("reason", reasons.ErrorReason.values())
def test_every_reason_of_the_catalogue_travels_by_name(reason: Any) -> None:
    told = travelled(MeshError(grpc.StatusCode.ABORTED, reason, "x"))
    assert told.reason == reasons.ErrorReason.Name(reason)


def test_error_of_grpc_itself_is_read_without_a_reason() -> None:
    for trailers in (None, (), (("key", "value"),)):
        told = read(Failed(grpc.StatusCode.UNAVAILABLE, None, trailers))
        assert told == CallError(grpc.StatusCode.UNAVAILABLE, "")


def test_details_carry_domain_and_retry_delay() -> None:
    told = mapped(RefusedOtherwise("wait"), TABLE)
    assert told is not None
    (key, raw), info, retry = trailers_of(told)[0], error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
    status = status_pb2.Status.FromString(raw)
    assert key == DETAILS_KEY
    assert status.code == grpc.StatusCode.UNAVAILABLE.value[0]
    assert status.details[0].Unpack(info)
    assert info.domain == "minhos"
    assert status.details[1].Unpack(retry)
    assert retry.retry_delay.ToMilliseconds() == 250


def test_row_gives_code_reason_metadata_and_field() -> None:
    told = mapped(Refused("quantity is 0", field="terms.quantity", seen=0), TABLE)
    assert told is not None
    assert (told.code, told.reason) == (grpc.StatusCode.INVALID_ARGUMENT, reasons.ERROR_REASON_INVALID_FIELD)
    assert told.metadata == {"field": "terms.quantity", "seen": "0"}
    assert told.violations == (FieldViolation("terms.quantity", "quantity is 0"),)


def test_attribute_that_is_none_is_left_out_and_names_no_field() -> None:
    told = mapped(Refused("bad"), TABLE)
    assert told is not None
    assert told.metadata == {}
    assert told.violations == ()


def test_subclass_takes_its_parents_row_unless_it_has_its_own() -> None:
    inherited, own = mapped(RefusedMore("x"), TABLE), mapped(RefusedOtherwise("x"), TABLE)
    assert inherited is not None
    assert own is not None
    assert inherited.code is grpc.StatusCode.INVALID_ARGUMENT
    assert own.code is grpc.StatusCode.UNAVAILABLE


def test_exception_without_a_row_is_not_mapped_and_a_mesh_error_is_itself() -> None:
    assert mapped(KeyError("x"), TABLE) is None
    error = position_lost(3, 9, 12)
    assert mapped(error, TABLE) is error


def test_position_lost_names_the_oldest_and_the_newest() -> None:
    told = travelled(position_lost(3, 9, 12))
    assert (told.code, told.reason) == (grpc.StatusCode.OUT_OF_RANGE, "ERROR_REASON_POSITION_LOST")
    assert told.metadata == {"asked": "3", "oldest": "9", "newest": "12"}
    assert told.message == "position 3 is no longer held, the oldest is 9: begin with a snapshot"


def test_position_of_the_future_was_never_told() -> None:
    told = position_lost(99, 9, 12)
    assert told.message == "position 99 was never told, the newest is 12: begin with a snapshot"


def test_invalid_field_shows_what_was_seen_and_what_is_allowed() -> None:
    told = travelled(invalid_field("terms.quantity", 0, "at least 1"))
    assert told.message == "terms.quantity is 0: allowed is at least 1"
    assert told.metadata == {"field": "terms.quantity", "seen": "0", "allowed": "at least 1"}
    assert told.violations == (FieldViolation("terms.quantity", told.message),)


def test_status_without_violations_has_the_reason_alone() -> None:
    assert len(status_of(position_lost(1, 2, 3)).details) == 1
