"""The same call with the grpcio stub and with the betterproto client, each as a plain outcome that can be compared."""

from __future__ import annotations

import asyncio
import dataclasses
import importlib
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final, cast

import betterproto
import grpc
from betterproto.compile.naming import pythonize_class_name, pythonize_method_name
from google.protobuf import descriptor_pool, message_factory
from google.protobuf.descriptor import Descriptor, FieldDescriptor, MethodDescriptor
from google.protobuf.message import Message
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from grpclib.client import Channel
from grpclib.exceptions import GRPCError

EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
TIMES: Final = {"google.protobuf.Timestamp", "google.protobuf.Duration"}
PATIENCE_S: Final = 10.0

Values = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What a caller sees of one call."""

    answers: tuple[Values, ...] = ()
    """By the names of the contract: numbers for enums, whole microseconds for times, only fields that are set."""
    code: str = "OK"
    message: str = ""
    reason: str = ""
    metadata: Values = dataclasses.field(default_factory=dict)

    @property
    def answer(self) -> Values:
        """The only answer."""
        assert self.code == "OK", f"{self.code}: {self.message}"
        (answer,) = self.answers
        return answer


def method_of(contract: str, name: str) -> MethodDescriptor:
    """The descriptor of an RPC."""
    return descriptor_pool.Default().FindServiceByName(contract).methods_by_name[name]


def made(message: Descriptor, values: Values) -> Any:
    """A message of protobuf."""
    return message_factory.GetMessageClass(message)(**values)


def stub_class(contract: str) -> Any:
    """The grpcio stub that is generated for a contract."""
    file = descriptor_pool.Default().FindServiceByName(contract).file.name
    module = importlib.import_module(f"{file.removesuffix('.proto').replace('/', '.')}_pb2_grpc")
    return getattr(module, f"{contract.rpartition('.')[2]}Stub")


# --- grpcio ---------------------------------------------------------------------------------------------------------


def by_grpcio(
    stub: Any, method: MethodDescriptor, requests: Sequence[Message], *, answers: int = 1, timeout_s: float = PATIENCE_S
) -> Outcome:
    """Calls with the synchronous stub; of a stream the first `answers` messages are read."""
    call = getattr(stub, method.name)
    given = _then_silence(requests) if method.client_streaming else requests[0]
    try:
        if not method.server_streaming:
            return Outcome((values_of(call(given, timeout=timeout_s)),))
        stream = call(given, timeout=timeout_s)
        read = tuple(values_of(next(stream)) for _ in range(answers))
    except grpc.RpcError as error:
        return _refused(error)
    stream.cancel()
    return Outcome(read)


def _then_silence(requests: Sequence[Message]) -> Iterator[Message]:
    yield from requests


def _refused(error: Any) -> Outcome:
    status = rpc_status.from_call(error)
    info = error_details_pb2.ErrorInfo()
    for detail in status.details if status is not None else ():
        detail.Unpack(info)
    return Outcome(code=error.code().name, message=error.details(), reason=info.reason, metadata=dict(info.metadata))


def values_of(message: Message) -> Values:
    """The fields of a message of protobuf that are set; a time of 0 counts as unset, for a dataclass cannot tell it from one."""
    plain = {field.name: (field, _value(field, value)) for field, value in message.ListFields()}
    return {name: value for name, (field, value) in plain.items() if value != 0 or not _is_time(field)}


def _is_time(field: FieldDescriptor) -> bool:
    return field.message_type is not None and field.message_type.full_name in TIMES


def _value(field: FieldDescriptor, value: Any) -> Any:
    if field.message_type is None:
        return list(value) if field.is_repeated else value
    if field.message_type.GetOptions().map_entry:
        each = field.message_type.fields_by_name["value"]
        return {key: _value(each, of_key) for key, of_key in value.items()}
    return [_one(each) for each in value] if field.is_repeated else _one(value)


def _one(message: Any) -> Any:
    if message.DESCRIPTOR.full_name in TIMES:
        return message.seconds * 1_000_000 + message.nanos // 1_000
    return values_of(message)


# --- betterproto ----------------------------------------------------------------------------------------------------


def by_betterproto(
    address: str,
    method: MethodDescriptor,
    requests: Sequence[Message],
    *,
    answers: int = 1,
    timeout_s: float = PATIENCE_S,
) -> Outcome:
    """Calls with the generated betterproto client over grpclib."""
    module = importlib.import_module(_package(method.containing_service))
    stub_name = f"{pythonize_class_name(method.containing_service.name)}Stub"
    request_class = getattr(module, pythonize_class_name(method.input_type.name))
    given = [request_class().parse(request.SerializeToString()) for request in requests]

    async def call(channel: Channel) -> list[betterproto.Message]:
        ask: Callable[..., Any] = getattr(getattr(module, stub_name)(channel), pythonize_method_name(method.name))
        argument = given if method.client_streaming else given[0]
        if not method.server_streaming:
            return [await ask(argument, timeout=timeout_s)]
        return await _first(ask(argument, timeout=timeout_s), answers)

    async def connected() -> Outcome:
        host, _, port = address.rpartition(":")
        async with Channel(host, int(port)) as channel:
            try:
                read = await call(channel)
            except GRPCError as error:
                return _refused_by_grpclib(error)
            except TimeoutError:
                return Outcome(code="DEADLINE_EXCEEDED")
        return Outcome(tuple(dataclass_values(answer, method.output_type) for answer in read))

    return asyncio.run(connected())


async def _first(stream: AsyncIterator[betterproto.Message], count: int) -> list[betterproto.Message]:
    read: list[betterproto.Message] = []
    async for answer in stream:
        read.append(answer)
        if len(read) == count:
            break
    await stream.aclose()  # type: ignore[attr-defined]  # what betterproto generates is a generator
    return read


def _package(service: Any) -> str:
    return str(service.file.package).replace("minhos_api.", "minhos_dataclasses.", 1)


def _refused_by_grpclib(error: GRPCError) -> Outcome:
    info = next((detail for detail in error.details or () if isinstance(detail, error_details_pb2.ErrorInfo)), None)
    return Outcome(
        code=error.status.name,
        message=error.message or "",
        reason="" if info is None else info.reason,
        metadata={} if info is None else dict(info.metadata),
    )


def dataclass_values(message: betterproto.Message, described: Descriptor) -> Values:
    """The same as `values_of`, read from the attributes of a dataclass."""
    names = {field.metadata["betterproto"].number: field.name for field in dataclasses.fields(cast("Any", message))}
    assert sorted(names) == sorted(described.fields_by_number)
    set_fields = (field for field in described.fields if _is_set(message, field, names[field.number]))
    return {field.name: _plain(field, getattr(message, names[field.number])) for field in set_fields}


def _is_set(message: betterproto.Message, field: FieldDescriptor, name: str) -> bool:
    group = field.containing_oneof
    if group is not None and not group.name.startswith("_"):
        return betterproto.which_one_of(message, group.name)[0] == name
    value = getattr(message, name)
    if field.is_repeated or value is None:
        return bool(value)
    if isinstance(value, betterproto.Message):
        return betterproto.serialized_on_wire(value)
    if isinstance(value, datetime | timedelta):
        return bool(_plain_one(field, value))
    return group is not None or bool(value)


def _plain(field: FieldDescriptor, value: Any) -> Any:
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        each = field.message_type.fields_by_name["value"]
        return {key: _plain_one(each, of_key) for key, of_key in value.items()}
    return [_plain_one(field, each) for each in value] if field.is_repeated else _plain_one(field, value)


def _plain_one(field: FieldDescriptor, value: Any) -> Any:
    if field.message_type is not None and isinstance(value, betterproto.Message):
        return dataclass_values(value, field.message_type)
    if isinstance(value, datetime):
        return (value - EPOCH) // timedelta(microseconds=1)
    if isinstance(value, timedelta):
        return value // timedelta(microseconds=1)
    return int(value) if isinstance(value, betterproto.Enum) else value
