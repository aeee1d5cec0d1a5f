"""Decides how a failure becomes a gRPC status: canonical code, ErrorInfo with a reason, field violations, retry delay.

A domain raises its own small exceptions. One table per service says which code and reason each of them is; one
interceptor applies it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, cast

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

from minhos_api.mesh.v1 import error_reason_pb2

if TYPE_CHECKING:
    from minhos_api.mesh.v1.error_reason_pb2 import ErrorReason

DOMAIN: Final = "minhos"
"""`ErrorInfo.domain` of every error of the mesh."""

DETAILS_KEY: Final = "grpc-status-details-bin"


@dataclass(frozen=True, slots=True)
class FieldViolation:
    """What is wrong with one field of a request."""

    field: str
    """Path of the field, for example `terms.quantity`."""
    description: str
    """What was seen and what is allowed."""
    seen: str = dataclasses.field(default="", compare=False)
    """What was seen; it goes into the metadata of the error and not into the violation."""
    allowed: str = dataclasses.field(default="", compare=False)
    """What is allowed; as `seen`."""


class MeshError(Exception):
    """Expected: a call is refused. What the caller sees is exactly what stands here."""

    def __init__(
        self,
        code: grpc.StatusCode,
        reason: ErrorReason.ValueType,
        message: str,
        *,
        metadata: Mapping[str, str] | None = None,
        violations: Sequence[FieldViolation] = (),
        retry_after_s: float | None = None,
        details: Sequence[Message] = (),
    ) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason
        self.message = message
        self.metadata = dict(metadata or {})
        self.violations = tuple(violations)
        self.retry_after_s = retry_after_s
        self.details = tuple(details)


@dataclass(frozen=True, slots=True)
class ErrorRow:
    """How one kind of exception is told."""

    code: grpc.StatusCode
    """Canonical code."""
    reason: ErrorReason.ValueType
    """Reason of the ErrorInfo."""
    attributes: tuple[str, ...] = ()
    """Attributes of the exception that go into the metadata; one that is None is left out."""
    field: str | None = None
    """Attribute that names the field of the request, when the exception is about one."""
    retry_after_s: float | None = None
    """When trying again makes sense."""
    details: Callable[[Any], Sequence[Message]] | None = None
    """Makes messages of the contract that tell more than metadata can; small, since they travel as trailing metadata."""


ErrorTable = Mapping[type[Exception], ErrorRow]
"""One row per kind of exception; a subclass without its own row takes its parent's."""


@dataclass(frozen=True, slots=True)
class CallError:
    """A gRPC error as a caller of this mesh reads it."""

    code: grpc.StatusCode
    """Canonical code."""
    message: str
    """Text of the status."""
    reason: str = ""
    """Name of the ErrorReason; empty when the error came from gRPC itself."""
    metadata: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """Metadata of the ErrorInfo."""
    violations: tuple[FieldViolation, ...] = ()
    """Field violations."""
    details: tuple[any_pb2.Any, ...] = dataclasses.field(default=(), compare=False)
    """All details, for those who know what to look for."""


def row_for(error: Exception, table: ErrorTable) -> ErrorRow | None:
    """The row of the exception's class or of its nearest parent."""
    for kind in type(error).__mro__:
        if kind in table:
            return table[kind]
    return None


def mapped(error: Exception, table: ErrorTable) -> MeshError | None:
    """The exception as its row tells it; None when the table has none."""
    if isinstance(error, MeshError):
        return error
    row = row_for(error, table)
    if row is None:
        return None
    metadata = {name: str(value) for name in row.attributes if (value := getattr(error, name, None)) is not None}
    violations: tuple[FieldViolation, ...] = ()
    if row.field is not None and (path := getattr(error, row.field, None)):
        violations = (FieldViolation(str(path), str(error)),)
    return MeshError(
        row.code,
        row.reason,
        str(error),
        metadata=metadata,
        violations=violations,
        retry_after_s=row.retry_after_s,
        details=row.details(error) if row.details is not None else (),
    )


def invalid_field(name: str, seen: object, allowed: str) -> MeshError:
    """INVALID_ARGUMENT about one field of a request."""
    text = f"{name} is {seen!r}: allowed is {allowed}"
    return MeshError(
        grpc.StatusCode.INVALID_ARGUMENT,
        error_reason_pb2.ERROR_REASON_INVALID_FIELD,
        text,
        metadata={"field": name, "seen": str(seen), "allowed": allowed},
        violations=(FieldViolation(name, text),),
    )


def position_lost(asked: int, oldest: int, newest: int) -> MeshError:
    """OUT_OF_RANGE: a stream cannot be resumed there; it is no longer held, or this life of the service never told it."""
    why = f"is no longer held, the oldest is {oldest}" if asked < oldest else f"was never told, the newest is {newest}"
    return MeshError(
        grpc.StatusCode.OUT_OF_RANGE,
        error_reason_pb2.ERROR_REASON_POSITION_LOST,
        f"position {asked} {why}: begin with a snapshot",
        metadata={"asked": str(asked), "oldest": str(oldest), "newest": str(newest)},
    )


def never_told(asked: int, oldest: int, newest: int) -> MeshError:
    """OUT_OF_RANGE: a stream cannot be resumed behind what it has not told yet."""
    return MeshError(
        grpc.StatusCode.OUT_OF_RANGE,
        error_reason_pb2.ERROR_REASON_POSITION_LOST,
        f"position {asked} was never told, the newest is {newest}: begin with a snapshot",
        metadata={"asked": str(asked), "oldest": str(oldest), "newest": str(newest)},
    )


def status_of(error: MeshError) -> status_pb2.Status:
    """The `google.rpc.Status` that carries the error's details."""
    info = error_details_pb2.ErrorInfo(
        reason=error_reason_pb2.ErrorReason.Name(error.reason), domain=DOMAIN, metadata=error.metadata
    )
    details = [_packed(info)]
    if error.violations:
        bad = error_details_pb2.BadRequest()
        for violation in error.violations:
            bad.field_violations.add(field=violation.field, description=violation.description)
        details.append(_packed(bad))
    if error.retry_after_s is not None:
        delay = duration_pb2.Duration()
        delay.FromNanoseconds(int(error.retry_after_s * 1e9))
        details.append(_packed(error_details_pb2.RetryInfo(retry_delay=delay)))
    details.extend(_packed(detail) for detail in error.details)
    return status_pb2.Status(code=error.code.value[0], message=error.message, details=details)


def trailers_of(error: MeshError) -> tuple[tuple[str, bytes], ...]:
    """Trailing metadata that carries the details."""
    return ((DETAILS_KEY, status_of(error).SerializeToString()),)


def read(error: grpc.RpcError) -> CallError:
    """What a failed call says, with its details where the other side gave them."""
    code: grpc.StatusCode = error.code()
    message = error.details() or ""
    trailers: Iterable[tuple[str, str | bytes]] = cast("Any", error).trailing_metadata() or ()
    for key, value in trailers:
        if key == DETAILS_KEY:
            return _read_details(code, message, value if isinstance(value, bytes) else value.encode())
    return CallError(code, message)


def _read_details(code: grpc.StatusCode, message: str, raw: bytes) -> CallError:
    status = status_pb2.Status.FromString(raw)
    info, bad = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
    violations: tuple[FieldViolation, ...] = ()
    for detail in status.details:
        detail.Unpack(info)
        if detail.Unpack(bad):
            violations = tuple(FieldViolation(v.field, v.description) for v in bad.field_violations)
    return CallError(code, message, info.reason, dict(info.metadata), violations, tuple(status.details))


def _packed(message: Message) -> any_pb2.Any:
    packed = any_pb2.Any()
    packed.Pack(message)
    return packed
