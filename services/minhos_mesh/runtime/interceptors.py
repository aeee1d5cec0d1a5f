"""Decides what surrounds every RPC that a service serves: rules of the contract, deadline, errors.

Three interceptors, each with one thought. They wrap a handler once per method and keep it, so a call costs a look-up.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import secrets
import traceback
from abc import abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final, NoReturn, TypeVar

import grpc
from google.protobuf.message import Message

from minhos_api.mesh.v1 import error_reason_pb2
from minhos_mesh.runtime.contracts import ROOT_PACKAGE, Method, contract
from minhos_mesh.runtime.errors import ErrorTable, MeshError, mapped, trailers_of
from minhos_mesh.runtime.log import get_logger
from minhos_mesh.runtime.validation import check

Behaviour = Callable[[Any, Any], Any]
Handler = Any
"""`grpc.RpcMethodHandler`; its generated type hides the attributes that a wrapper must copy."""

B = TypeVar("B", bound=Callable[..., Any])

_LOG: Final = get_logger("runtime.calls")


@dataclass(slots=True)
class CallCounters:
    """What a server has been doing."""

    in_flight: int = 0
    """Calls that have not ended, open streams among them."""
    unary_in_flight: int = 0
    """Calls without an open-ended stream; these are waited for when a service ends."""
    internal_errors: int = 0
    """Calls that ended with INTERNAL."""


class WrappingInterceptor(grpc.aio.ServerInterceptor):
    """Wraps each handler of `minhos_api` once."""

    def __init__(self) -> None:
        self._wrapped: dict[str, Handler] = {}

    async def intercept_service(
        self, continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler]], details: grpc.HandlerCallDetails
    ) -> Handler:
        """Called by gRPC for each call."""
        path = str(details.method)
        handler = self._wrapped.get(path)
        if handler is None:
            handler = await continuation(details)
            method = method_of(path)
            if handler is None or method is None:
                return handler
            handler = self._wrapped[path] = _rebuilt(handler, self.wrap(_behaviour(handler), method), method)
        return handler

    @abstractmethod
    def wrap(self, behaviour: Behaviour, method: Method) -> Behaviour:
        """The behaviour with this interceptor's thought around it."""


class ErrorInterceptor(WrappingInterceptor):
    """Turns exceptions into statuses by the service's table; what is not in it is INTERNAL and logged, without its text."""

    def __init__(self, table: ErrorTable, counters: CallCounters) -> None:
        super().__init__()
        self._table = table
        self._counters = counters

    def wrap(self, behaviour: Behaviour, method: Method) -> Behaviour:  # noqa: D102 - described by its parent
        return self._streaming(behaviour, method) if method.response_streaming else self._unary(behaviour, method)

    def _unary(self, behaviour: Behaviour, method: Method) -> Behaviour:
        counters = self._counters

        async def call(request: Any, context: Any) -> Any:
            counters.in_flight += 1
            counters.unary_in_flight += 1
            try:
                return await behaviour(request, context)
            except Exception as error:  # noqa: BLE001 - the one place where whatever a service raises becomes a status
                request = None  # see _abort
                await self._abort(error, method, context)
            finally:
                request = context = None  # see _abort
                counters.in_flight -= 1
                counters.unary_in_flight -= 1

        return call

    def _streaming(self, behaviour: Behaviour, method: Method) -> Behaviour:
        counters = self._counters

        async def call(request: Any, context: Any) -> AsyncIterator[Any]:
            counters.in_flight += 1
            try:
                async for message in _messages(behaviour, request, context):
                    yield message
            except Exception as error:  # noqa: BLE001 - the one place where whatever a service raises becomes a status
                await self._abort(error, method, context)
            finally:
                counters.in_flight -= 1
                await _let_go(request)
                request = context = None  # see _abort

        return call

    async def _abort(self, error: Exception, method: Method, context: Any) -> NoReturn:
        if isinstance(error, grpc.aio.AbortError):
            raise error
        told = mapped(error, self._table)
        if told is None:
            told = self._internal(error, method)
        # gRPC keeps the abort with its call: frames that hold the call would close a circle, which is collected late and
        # keeps the bytes of the message as long.
        _forget_frames(error)
        try:
            await context.abort(told.code, told.message, trailers_of(told))
        finally:
            context = None
        raise AssertionError("abort returned")

    def _internal(self, error: Exception, method: Method) -> MeshError:
        self._counters.internal_errors += 1
        error_id = secrets.token_hex(4)
        _LOG.error("call.failed", method=method.path, error_id=error_id, exc_info=error)
        return MeshError(
            grpc.StatusCode.INTERNAL,
            error_reason_pb2.ERROR_REASON_INTERNAL,
            f"{method.name} failed by a defect of the service; its log has it under {error_id}",
            metadata={"error_id": error_id},
        )


async def _let_go(requests: Any) -> None:
    """Closes the reader of a call's messages: gRPC's own is a circle that would keep the last message until it is collected."""
    reader = requests.__aiter__() if hasattr(requests, "__aiter__") else None
    if reader is not None and hasattr(reader, "aclose"):
        with contextlib.suppress(RuntimeError):  # somebody still reads; then it ends with the call
            await reader.aclose()


def _forget_frames(error: BaseException | None) -> None:
    """Empties the frames of an error, and of those that led to it."""
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__context__


_CHECKS_ITSELF: Final = "checks_requests_itself"


def checks_requests_itself(behaviour: B) -> B:
    """Marks a servicer's method that answers a message which breaks its contract instead of ending its stream."""
    setattr(behaviour, _CHECKS_ITSELF, True)
    return behaviour


class ValidationInterceptor(WrappingInterceptor):
    """Refuses requests that break the rules of their contract, each message of a stream too."""

    def wrap(self, behaviour: Behaviour, method: Method) -> Behaviour:  # noqa: D102 - described by its parent
        if getattr(behaviour, _CHECKS_ITSELF, False):
            return behaviour
        if method.request_streaming:
            return _with_request(behaviour, method, _checked_stream)
        return _with_request(behaviour, method, _checked)


class DeadlineInterceptor(WrappingInterceptor):
    """Gives a call the deadline of its contract when its caller set none, and ends what outlives its deadline."""

    def wrap(self, behaviour: Behaviour, method: Method) -> Behaviour:  # noqa: D102 - described by its parent
        timeout_s = method.timeout_s
        if timeout_s is None or method.response_streaming:
            return behaviour

        async def call(request: Any, context: Any) -> Any:
            if context.time_remaining() is not None:
                return await behaviour(request, context)
            limit = asyncio.timeout(timeout_s)
            try:
                async with limit:
                    return await behaviour(request, context)
            except TimeoutError:
                if not limit.expired():
                    raise
                raise _late(method, timeout_s) from None

        return call


def method_of(path: str) -> Method | None:
    """What the contract says about an RPC; None for one that is not of `minhos_api`."""
    service, _, name = path.removeprefix("/").partition("/")
    if not service.startswith(ROOT_PACKAGE):
        return None
    try:
        return contract(service).methods.get(name)
    except KeyError:
        return None


def _late(method: Method, timeout_s: float) -> MeshError:
    return MeshError(
        grpc.StatusCode.DEADLINE_EXCEEDED,
        error_reason_pb2.ERROR_REASON_DEPENDENCY_UNAVAILABLE,
        f"{method.name} took longer than its deadline of {timeout_s:g} s",
        metadata={"method": method.path, "deadline": f"{timeout_s:g}s"},
    )


def _with_request(behaviour: Behaviour, method: Method, look: Callable[[Any], Any]) -> Behaviour:
    if method.response_streaming:

        async def stream(request: Any, context: Any) -> AsyncIterator[Any]:
            async for message in _messages(behaviour, look(request), context):
                yield message

        return stream

    async def call(request: Any, context: Any) -> Any:
        return await behaviour(look(request), context)

    return call


def _checked(request: Any) -> Any:
    if isinstance(request, Message):
        check(request)
    return request


async def _checked_stream(requests: AsyncIterator[Any]) -> AsyncIterator[Any]:
    async for request in requests:
        yield _checked(request)


async def _messages(behaviour: Behaviour, request: Any, context: Any) -> AsyncIterator[Any]:
    """What a streaming behaviour sends, closing it when the reader is gone."""
    made = behaviour(request, context)
    if inspect.isawaitable(made):
        await made  # it wrote to the context itself
        return
    try:
        async for message in made:
            yield message
    finally:
        await made.aclose()


def _behaviour(handler: Handler) -> Behaviour:
    found: Behaviour = handler.unary_unary or handler.unary_stream or handler.stream_unary or handler.stream_stream
    return found


def _serializer(handler: Handler) -> Callable[[Any], bytes]:
    """Lets a servicer send what it has encoded already."""
    inner = handler.response_serializer

    def serialize(message: Any) -> bytes:
        encoded: bytes = message if type(message) is bytes else inner(message)
        return encoded

    return serialize


def _deserializer(handler: Handler, method: Method) -> Callable[[bytes], Any]:
    """The servicer's own way to read the requests of a method (`request_readers` by RPC name), else the generated one."""
    servicer = getattr(_behaviour(handler), "__self__", None)
    reader: Callable[[bytes], Any] = getattr(servicer, "request_readers", {}).get(
        method.name, handler.request_deserializer
    )
    return reader


def _rebuilt(handler: Handler, behaviour: Behaviour, method: Method) -> Handler:
    makers = {
        (False, False): grpc.unary_unary_rpc_method_handler,
        (False, True): grpc.unary_stream_rpc_method_handler,
        (True, False): grpc.stream_unary_rpc_method_handler,
        (True, True): grpc.stream_stream_rpc_method_handler,
    }
    maker: Callable[..., Handler] = makers[(handler.request_streaming, handler.response_streaming)]
    return maker(behaviour, _deserializer(handler, method), _serializer(handler))
