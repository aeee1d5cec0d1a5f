"""Each rule by itself: the smallest change that breaks it, and the change next to it that does not."""

from __future__ import annotations

import pytest
from tests.unit.compatibility.conftest import Compile

from minhos_mesh.compatibility.compare import compare

# (rule, old, new, element, old text, new text)
BREAKS = [
    ("FIELD_NO_DELETE_UNLESS_NUMBER_RESERVED", "message M { int32 a = 1; }", 'message M { reserved "a"; }', "M.a", "a = 1", "gone, number 1 not reserved"),
    ("FIELD_NO_DELETE_UNLESS_NAME_RESERVED", "message M { int32 a = 1; }", "message M { reserved 1; }", "M.a", "a = 1", "gone, name a not reserved"),
    ("FIELD_SAME_NAME", 'message M { int32 a = 1 [json_name="j"]; }', 'message M { int32 b = 1 [json_name="j"]; }', "M.b", "a", "b"),
    ("FIELD_SAME_JSON_NAME", "message M { int32 a_b = 1; }", 'message M { int32 a_b = 1 [json_name="a_b"]; }', "M.a_b", "aB", "a_b"),
    ("FIELD_WIRE_JSON_COMPATIBLE_TYPE", "message M { int32 a = 1; }", "message M { int64 a = 1; }", "M.a", "int32", "int64"),
    ("FIELD_WIRE_JSON_COMPATIBLE_TYPE", "message M { string a = 1; }", "message M { bytes a = 1; }", "M.a", "string", "bytes"),
    ("FIELD_WIRE_JSON_COMPATIBLE_TYPE", "message M { N a = 1; } message N {} message O {}", "message M { O a = 1; } message N {} message O {}", "M.a", "shop.v1.N", "shop.v1.O"),
    ("FIELD_WIRE_JSON_COMPATIBLE_TYPE", "message M { map<string, int32> a = 1; }", "message M { map<string, string> a = 1; }", "M.AEntry.value", "int32", "string"),
    ("FIELD_WIRE_JSON_COMPATIBLE_TYPE", "enum E { Z = 0; A = 1; } message M { E e = 1; message I { enum E { Y = 0; } } }", "enum E { Z = 0; A = 1; } message M { I.E e = 1; message I { enum E { Y = 0; } } }", "M.e", "shop.v1.E", "shop.v1.M.I.E"),
    ("FIELD_WIRE_JSON_COMPATIBLE_CARDINALITY", "message M { int32 a = 1; }", "message M { repeated int32 a = 1; }", "M.a", "implicit", "repeated"),
    ("FIELD_WIRE_JSON_COMPATIBLE_CARDINALITY", "message M { repeated AEntry a = 1; message AEntry { string key = 1; int32 value = 2; } }", "message M { map<string, int32> a = 1; }", "M.a", "repeated", "map"),
    ("FIELD_SAME_ONEOF", "message M { int32 a = 1; oneof o { int32 b = 2; } }", "message M { oneof o { int32 a = 1; int32 b = 2; } }", "M.a", "in no oneof", "in oneof o"),
    ("FIELD_SAME_ONEOF", "message M { oneof o { int32 a = 1; } }", "message M { oneof p { int32 a = 1; } }", "M.a", "in oneof o", "in oneof p"),
    ("ENUM_VALUE_NO_DELETE_UNLESS_NUMBER_RESERVED", "enum E { Z = 0; A = 1; }", 'enum E { Z = 0; reserved "A"; }', "E.A", "A = 1", "gone, number 1 not reserved"),
    ("ENUM_VALUE_NO_DELETE_UNLESS_NAME_RESERVED", "enum E { Z = 0; A = 1; }", "enum E { Z = 0; reserved 1; }", "E.A", "A = 1", "gone, name A not reserved"),
    ("ENUM_VALUE_SAME_NAME", "enum E { Z = 0; A = 1; }", "enum E { Z = 0; B = 1; }", "E.A", "A = 1", "B = 1"),
    ("RESERVED_MESSAGE_NO_DELETE", "message M { reserved 4 to 9; }", "message M { reserved 4, 6 to 9; }", "M", "reserved 4 to 9", "5 no longer reserved"),
    ("RESERVED_MESSAGE_NO_DELETE", "message M { reserved 4 to max; }", "message M { reserved 4 to 8; }", "M", "reserved 4 to max", "9 to max no longer reserved"),
    ("RESERVED_MESSAGE_NO_DELETE", 'message M { reserved "x"; }', "message M { }", "M", "reserved x", "x no longer reserved"),
    ("RESERVED_ENUM_NO_DELETE", "enum E { Z = 0; reserved 7; }", "enum E { Z = 0; }", "E", "reserved 7", "7 no longer reserved"),
    ("RPC_NO_DELETE", "message M {} service S { rpc A(M) returns (M); }", "message M {} service S { }", "S.A", "(shop.v1.M) returns (shop.v1.M)", "gone"),
    ("RPC_SAME_REQUEST_TYPE", "message M {} message N {} service S { rpc A(M) returns (M); }", "message M {} message N {} service S { rpc A(N) returns (M); }", "S.A", "shop.v1.M", "shop.v1.N"),
    ("RPC_SAME_RESPONSE_TYPE", "message M {} message N {} service S { rpc A(M) returns (M); }", "message M {} message N {} service S { rpc A(M) returns (N); }", "S.A", "shop.v1.M", "shop.v1.N"),
    ("RPC_SAME_CLIENT_STREAMING", "message M {} service S { rpc A(M) returns (M); }", "message M {} service S { rpc A(stream M) returns (M); }", "S.A", "unary", "streaming"),
    ("RPC_SAME_SERVER_STREAMING", "message M {} service S { rpc A(M) returns (stream M); }", "message M {} service S { rpc A(M) returns (M); }", "S.A", "streaming", "unary"),
    ("RPC_SAME_IDEMPOTENCY_LEVEL", "message M {} service S { rpc A(M) returns (M) { option idempotency_level = IDEMPOTENT; } }", "message M {} service S { rpc A(M) returns (M); }", "S.A", "IDEMPOTENT", "IDEMPOTENCY_UNKNOWN"),
    ("PACKAGE_SERVICE_NO_DELETE", "message M {} service S { rpc A(M) returns (M); }", "message M {}", "S", "1 methods", "gone"),
    ("RPC_SAME_ACCESS", "message M {} service S { rpc A(M) returns (M) { option (minhos_api.mesh.v1.method).access = ACCESS_READ; } }", "message M {} service S { rpc A(M) returns (M) { option (minhos_api.mesh.v1.method).access = ACCESS_OPERATE; } }", "S.A", "READ", "OPERATE"),
    ("RPC_HEARTBEAT_NOT_SLOWER", "message M {} service S { rpc A(M) returns (stream M) { option (minhos_api.mesh.v1.method).heartbeat_interval = {seconds: 1}; } }", "message M {} service S { rpc A(M) returns (stream M) { option (minhos_api.mesh.v1.method).heartbeat_interval = {seconds: 5}; } }", "S.A", "every 1 s", "every 5 s"),
    ("CONTRACT_PUBLISHES_NO_DELETE", 'message M {} service S { option (minhos_api.mesh.v1.contract).publishes = "shop.opened"; }', "message M {} service S { }", "S", "publishes shop.opened", "gone"),
    ("EVENT_SAME_TYPE", 'message M { option (minhos_api.mesh.v1.event) = {type: "shop.opened", version: 1}; }', 'message M { option (minhos_api.mesh.v1.event) = {type: "shop.opened", version: 2}; }', "M", "shop.opened v1", "shop.opened v2"),
]  # fmt: skip

HARMLESS = [
    ("a field is deleted with both reserved", "message M { int32 a = 1; }", 'message M { reserved 1; reserved "a"; }'),
    ("int32 and uint32 are one on the wire and in JSON", "message M { int32 a = 1; sfixed64 b = 2; }", "message M { uint32 a = 1; fixed64 b = 2; }"),
    ("presence is seen now", "message M { int32 a = 1; }", "message M { optional int32 a = 1; }"),
    ("reserved ranges are written otherwise", "message M { reserved 4 to 9; }", "message M { reserved 4, 5 to 6, 7 to 10; }"),
    ("a value gets a second name", "enum E { Z = 0; A = 1; }", "enum E { option allow_alias = true; Z = 0; A = 1; B = 1; }"),
    ("a value is deleted with both reserved", "enum E { Z = 0; A = 1; }", 'enum E { Z = 0; reserved 1; reserved "A"; }'),
    ("an enum moves and grows", "enum E { Z = 0; } message M { E e = 1; message I { enum E { Z = 0; } } }", "enum E { Z = 0; } message M { I.E e = 1; message I { enum E { Z = 0; B = 2; } } }"),
    ("more of everything", "enum E { Z = 0; } message M { int32 a = 1; } service S { rpc A(M) returns (M); }", "enum E { Z = 0; B = 1; } message M { int32 a = 1; string b = 2; } message N {} service S { rpc A(M) returns (M); rpc B(N) returns (N); } service T {}"),
    ("a faster heartbeat", "message M {} service S { rpc A(M) returns (stream M) { option (minhos_api.mesh.v1.method).heartbeat_interval = {seconds: 5}; } }", "message M {} service S { rpc A(M) returns (stream M) { option (minhos_api.mesh.v1.method).heartbeat_interval = {seconds: 1}; } }"),
    ("another deadline is the caller's business", "message M {} service S { rpc A(M) returns (M) { option (minhos_api.mesh.v1.method).default_timeout = {seconds: 5}; } }", "message M {} service S { rpc A(M) returns (M) { option (minhos_api.mesh.v1.method).default_timeout = {seconds: 1}; } }"),
    ("an unused message is deleted", "message M {} message N {}", "message M {}"),
]  # fmt: skip

PROTO2 = 'syntax = "proto2"; package shop.v1;\n'
PROTO3 = 'syntax = "proto3"; package shop.v1;\n'

FILES = [
    ("FILE_SAME_PACKAGE", "message M {}", PROTO3, "message M {}", PROTO3.replace("v1", "v2"), "shop.v1", "shop.v2"),
    ("MESSAGE_SAME_JSON_FORMAT", "message M {}", PROTO3, "message M {}", PROTO2, "canonical JSON", "best effort"),
    ("ENUM_SAME_JSON_FORMAT", "enum E { Z = 0; }", PROTO3, "enum E { Z = 0; }", PROTO2, "canonical JSON", "best effort"),
    ("FIELD_SAME_DEFAULT", "message M { optional int32 a = 1 [default = 1]; }", PROTO2, "message M { optional int32 a = 1 [default = 2]; }", PROTO2, "1", "2"),
    ("FIELD_SAME_DEFAULT", 'message M { optional string a = 1 [default = "x"]; }', PROTO2, "message M { optional string a = 1; }", PROTO2, "x", ""),
    ("FIELD_SAME_DEFAULT", "enum E { A = 1; B = 2; } message M { optional E a = 1; }", PROTO2, "enum E { A = 1; B = 2; } message M { optional E a = 1 [default = B]; }", PROTO2, "1", "2"),
    ("MESSAGE_SAME_REQUIRED_FIELDS", "message M { }", PROTO2, "message M { required int32 a = 1; }", PROTO2, "not required", "required"),
]  # fmt: skip


@pytest.mark.parametrize(("rule", "old", "new", "element", "was", "now"), BREAKS)
def test_the_smallest_break(rule: str, old: str, new: str, element: str, was: str, now: str, compiled: Compile) -> None:
    found = compare(compiled(old), compiled(new))
    assert [(v.rule, v.file, v.element, v.old, v.new) for v in found] == [
        (rule, "shop.proto", f"shop.v1.{element}", was, now)
    ]


@pytest.mark.parametrize(("_why", "old", "new"), HARMLESS)
def test_what_harms_nobody(_why: str, old: str, new: str, compiled: Compile) -> None:
    assert compare(compiled(old), compiled(new)) == ()


@pytest.mark.parametrize(("rule", "old", "head", "new", "new_head", "was", "now"), FILES)
def test_breaks_that_need_another_syntax_or_package(
    rule: str, old: str, head: str, new: str, new_head: str, was: str, now: str, compiled: Compile
) -> None:
    found = compare(compiled(old, head=head), compiled(new, head=new_head), stricter=False)
    assert [(v.rule, v.old, v.new) for v in found if v.rule == rule] == [(rule, was, now)]


def test_one_set_breaks_nothing_of_itself(compiled: Compile) -> None:
    made = compiled("message M { int32 a = 1; } service S { rpc A(M) returns (M); }")
    assert compare(made, made) == ()
