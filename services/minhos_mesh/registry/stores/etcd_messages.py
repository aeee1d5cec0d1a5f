"""Decides how etcd's v3 API looks on the wire: the few messages and fields that are used, in a private descriptor pool.

etcd speaks gRPC, and grpc.aio is here already, so no client library is needed: those on PyPI bring generated modules
for the whole API under file names as general as `rpc.proto` into the pool that all of a process shares, and repeat
connection handling that gRPC has. The JSON gateway would double the encoding and give a watch as an HTTP body. A
message needs only the numbers and types of the fields that are used; what etcd sends beside them is skipped.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

_PACKAGE: Final = "minhos.etcd_wire"

_FIELDS: Final = """
Header        revision=3 int64
KeyValue      key=1 bytes, create_revision=2 int64, mod_revision=3 int64, value=5 bytes, lease=6 int64
RangeRequest  key=1 bytes, range_end=2 bytes, limit=3 int64, revision=4 int64, serializable=7 bool
RangeResponse header=1 Header, kvs=2 KeyValue*, more=3 bool
PutRequest    key=1 bytes, value=2 bytes, lease=3 int64
PutResponse   header=1 Header
DeleteRequest key=1 bytes, range_end=2 bytes
DeleteResponse header=1 Header, deleted=2 int64
RequestOp     request_range=1 RangeRequest, request_put=2 PutRequest, request_delete_range=3 DeleteRequest
ResponseOp    response_range=1 RangeResponse, response_put=2 PutResponse, response_delete_range=3 DeleteResponse
Compare       result=1 int32, target=2 int32, key=3 bytes, mod_revision=6 int64, value=7 bytes, lease=8 int64, \
range_end=64 bytes
TxnRequest    compare=1 Compare*, success=2 RequestOp*, failure=3 RequestOp*
TxnResponse   header=1 Header, succeeded=2 bool, responses=3 ResponseOp*
WatchCreate   key=1 bytes, range_end=2 bytes, start_revision=3 int64, progress_notify=4 bool
WatchRequest  create_request=1 WatchCreate
Event         type=1 int32, kv=2 KeyValue
WatchResponse header=1 Header, watch_id=2 int64, created=3 bool, canceled=4 bool, compact_revision=5 int64, \
cancel_reason=6 string, events=11 Event*
GrantRequest  ttl=1 int64, id=2 int64
GrantResponse header=1 Header, id=2 int64, ttl=3 int64, error=4 string
RevokeRequest id=1 int64
RevokeResponse header=1 Header
AliveRequest  id=1 int64
AliveResponse header=1 Header, id=2 int64, ttl=3 int64
StatusRequest
StatusResponse header=1 Header, version=2 string
"""
_SCALARS: Final = {
    "int64": descriptor_pb2.FieldDescriptorProto.TYPE_INT64,
    "int32": descriptor_pb2.FieldDescriptorProto.TYPE_INT32,
    "bytes": descriptor_pb2.FieldDescriptorProto.TYPE_BYTES,
    "bool": descriptor_pb2.FieldDescriptorProto.TYPE_BOOL,
    "string": descriptor_pb2.FieldDescriptorProto.TYPE_STRING,
}
_CHOICES: Final = {
    "RequestOp": ("request_range", "request_put", "request_delete_range"),
    "ResponseOp": ("response_range", "response_put", "response_delete_range"),
    "Compare": ("mod_revision", "value", "lease"),
}
"""Fields of which exactly one is set, so that a zero is sent too."""

EQUAL: Final = 0
"""Result of a comparison that is asked for."""
MOD, LEASE = 2, 4
"""What of a key is compared: the revision of its last change, or the lease that it hangs on."""
DELETED: Final = 1
"""Type of an event that took a key away."""


@dataclass(frozen=True, slots=True)
class Rpc:
    """One method of etcd."""

    path: str
    request: Any
    response: Any


def _file() -> descriptor_pb2.FileDescriptorProto:
    file = descriptor_pb2.FileDescriptorProto(name="minhos/etcd_wire.proto", package=_PACKAGE, syntax="proto3")
    for line in _FIELDS.strip().splitlines():
        name, _, fields = line.partition(" ")
        message = file.message_type.add(name=name)
        choice = _CHOICES.get(name, ())
        if choice:
            message.oneof_decl.add(name="choice")
        for text in filter(None, (part.strip() for part in fields.split(","))):
            _add_field(message, text, choice)
    return file


def _add_field(message: descriptor_pb2.DescriptorProto, text: str, choice: tuple[str, ...]) -> None:
    name, _, rest = text.partition("=")
    number, kind = rest.split()
    field = message.field.add(name=name, number=int(number), label=descriptor_pb2.FieldDescriptorProto.LABEL_OPTIONAL)
    if kind.endswith("*"):
        field.label = descriptor_pb2.FieldDescriptorProto.LABEL_REPEATED
    kind = kind.removesuffix("*")
    if kind in _SCALARS:
        field.type = _SCALARS[kind]
    else:
        field.type = descriptor_pb2.FieldDescriptorProto.TYPE_MESSAGE
        field.type_name = f".{_PACKAGE}.{kind}"
    if name in choice:
        field.oneof_index = 0


_POOL: Final = descriptor_pool.DescriptorPool()
_POOL.Add(_file())


def _class(name: str) -> Any:
    return message_factory.GetMessageClass(_POOL.FindMessageTypeByName(f"{_PACKAGE}.{name}"))


KeyValue: Final = _class("KeyValue")
RangeRequest: Final = _class("RangeRequest")
PutRequest: Final = _class("PutRequest")
DeleteRequest: Final = _class("DeleteRequest")
RequestOp: Final = _class("RequestOp")
Compare: Final = _class("Compare")
WatchRequest: Final = _class("WatchRequest")
AliveRequest: Final = _class("AliveRequest")


def _rpc(path: str, request: str, response: str) -> Rpc:
    return Rpc(f"/etcdserverpb.{path}", _class(request), _class(response))


RANGE: Final = _rpc("KV/Range", "RangeRequest", "RangeResponse")
TXN: Final = _rpc("KV/Txn", "TxnRequest", "TxnResponse")
WATCH: Final = _rpc("Watch/Watch", "WatchRequest", "WatchResponse")
GRANT: Final = _rpc("Lease/LeaseGrant", "GrantRequest", "GrantResponse")
REVOKE: Final = _rpc("Lease/LeaseRevoke", "RevokeRequest", "RevokeResponse")
KEEP_ALIVE: Final = _rpc("Lease/LeaseKeepAlive", "AliveRequest", "AliveResponse")
STATUS: Final = _rpc("Maintenance/Status", "StatusRequest", "StatusResponse")


def put(key: bytes, value: bytes, lease: int = 0) -> Any:
    """One operation of a transaction: write a key."""
    return RequestOp(request_put=PutRequest(key=key, value=value, lease=lease))


def delete(key: bytes) -> Any:
    """One operation of a transaction: take a key away."""
    return RequestOp(request_delete_range=DeleteRequest(key=key))


def read(key: bytes) -> Any:
    """One operation of a transaction: read a key."""
    return RequestOp(request_range=RangeRequest(key=key))


def unchanged(key: bytes, revision: int) -> Any:
    """A condition of a transaction: the key was last changed at this revision; 0 means that it is not there."""
    return Compare(result=EQUAL, target=MOD, key=key, mod_revision=revision)


def empty(prefix: bytes) -> Any:
    """A condition of a transaction: there is no key with this prefix."""
    return Compare(result=EQUAL, target=MOD, key=prefix, range_end=prefix_end(prefix), mod_revision=0)


def hangs_on(key: bytes, lease: int) -> Any:
    """A condition of a transaction: the key is there and goes with this lease."""
    return Compare(result=EQUAL, target=LEASE, key=key, lease=lease)


def prefix_end(prefix: bytes) -> bytes:
    """The end of the range of all keys with a prefix that does not end in byte 255."""
    return prefix[:-1] + bytes((prefix[-1] + 1,))
