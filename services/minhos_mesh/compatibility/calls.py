"""Decides when a contract can no longer be called by who knows its old form: methods, types, streams, access, liveness, events."""

from __future__ import annotations

from collections.abc import Iterator

from google.protobuf import descriptor_pb2

from minhos_api.mesh.v1 import contract_options_pb2 as options
from minhos_mesh.compatibility.symbols import Message, Service
from minhos_mesh.compatibility.violation import GONE, Violation, broken

Method = descriptor_pb2.MethodDescriptorProto


def deleted(old: Service, file: str) -> Violation:
    """A contract that is no longer there."""
    return broken("PACKAGE_SERVICE_NO_DELETE", file, old.name, f"{len(old.proto.method)} methods")


def signature(method: Method) -> str:
    """A method as its contract writes it."""
    request, response = method.input_type.lstrip("."), method.output_type.lstrip(".")
    asked = f"stream {request}" if method.client_streaming else request
    return f"({asked}) returns ({f'stream {response}' if method.server_streaming else response})"


def compare(old: Service, new: Service) -> Iterator[Violation]:
    """What breaks between two contracts of the same name on the wire."""
    by_name = {method.name: method for method in new.proto.method}
    for method in old.proto.method:
        element = f"{old.name}.{method.name}"
        if method.name not in by_name:
            yield broken("RPC_NO_DELETE", new.file.name, element, signature(method))
        else:
            yield from _method(new.file.name, element, method, by_name[method.name])


def _method(file: str, element: str, old: Method, new: Method) -> Iterator[Violation]:
    types = (
        ("RPC_SAME_REQUEST_TYPE", old.input_type, new.input_type),
        ("RPC_SAME_RESPONSE_TYPE", old.output_type, new.output_type),
    )
    for rule, before, after in types:
        if before.lstrip(".") != after.lstrip("."):
            yield broken(rule, file, element, before.lstrip("."), after.lstrip("."))
    streams = (
        ("RPC_SAME_CLIENT_STREAMING", old.client_streaming, new.client_streaming),
        ("RPC_SAME_SERVER_STREAMING", old.server_streaming, new.server_streaming),
    )
    for rule, was, streaming in streams:
        if was != streaming:
            yield broken(rule, file, element, *("streaming" if each else "unary" for each in (was, streaming)))
    if old.options.idempotency_level != new.options.idempotency_level:
        level = descriptor_pb2.MethodOptions.IdempotencyLevel.Name
        texts = [level(each.options.idempotency_level) for each in (old, new)]
        yield broken("RPC_SAME_IDEMPOTENCY_LEVEL", file, element, *texts)


def compare_promises(old: Service, new: Service) -> Iterator[Violation]:
    """What a contract of this mesh promises beside its shape and no longer keeps; buf knows nothing of these."""
    by_name = {method.name: method for method in new.proto.method}
    for method in old.proto.method:
        if method.name in by_name:
            yield from _method_promises(new.file.name, f"{old.name}.{method.name}", method, by_name[method.name])
    told = set(new.proto.options.Extensions[options.contract].publishes)
    for event in old.proto.options.Extensions[options.contract].publishes:
        if event not in told:
            yield broken("CONTRACT_PUBLISHES_NO_DELETE", new.file.name, old.name, f"publishes {event}")


def _method_promises(file: str, element: str, old: Method, new: Method) -> Iterator[Violation]:
    before, after = old.options.Extensions[options.method], new.options.Extensions[options.method]
    if before.access != after.access:
        yield broken("RPC_SAME_ACCESS", file, element, access_name(before.access), access_name(after.access))
    if before.WhichOneof("deadline") != "heartbeat_interval":
        return
    spans = [each.heartbeat_interval.seconds * 10**9 + each.heartbeat_interval.nanos for each in (before, after)]
    if after.WhichOneof("deadline") != "heartbeat_interval":
        yield broken("RPC_HEARTBEAT_NOT_SLOWER", file, element, f"every {spans[0] / 1e9:g} s", "no heartbeat")
    elif spans[1] > spans[0]:
        texts = [f"every {span / 1e9:g} s" for span in spans]
        yield broken("RPC_HEARTBEAT_NOT_SLOWER", file, element, *texts)


def access_name(access: int) -> str:
    """`READ` and its like; the number when this build does not know it."""
    value = options.Access.DESCRIPTOR.values_by_number.get(access)
    return value.name.removeprefix("ACCESS_") if value is not None else str(access)


def compare_events(old: Message, new: Message | None, file: str) -> Iterator[Violation]:
    """What breaks between two payloads of one name for who consumes the event."""
    before = old.proto.options.Extensions[options.event]
    if not before.type:
        return
    if new is None:
        yield broken("EVENT_SAME_TYPE", file, old.name, f"{before.type} v{before.version}", GONE)
        return
    after = new.proto.options.Extensions[options.event]
    if (before.type, before.version) != (after.type, after.version):
        now = f"{after.type} v{after.version}" if after.type else "no event"
        yield broken("EVENT_SAME_TYPE", new.file.name, old.name, f"{before.type} v{before.version}", now)
