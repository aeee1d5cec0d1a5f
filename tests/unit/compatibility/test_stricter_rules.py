"""Validation rules that became stricter: buf does not see them, and senders of the old contract are refused by them."""

from __future__ import annotations

import pytest
from tests.unit.compatibility.conftest import Compile

from minhos_mesh.compatibility.compare import compare


def field(kind: str, rules: str = "") -> str:
    return f"message M {{ {kind} a = 1{f' [{rules}]' if rules else ''}; }}"


def rule(text: str) -> str:
    return f"(buf.validate.field).{text}"


# (field type, old rules, new rules, the rule that is told; None when it is no stricter)
FIELD_RULES = [
    ("string", "string.min_len = 1", "string.min_len = 3", "string.min_len = 3"),
    ("string", "string.min_len = 3", "string.min_len = 1", None),
    ("string", "", "string.min_len = 1", "string.min_len = 1"),
    ("string", "string.min_len = 1", "", None),
    ("string", "string.max_len = 64", "string.max_len = 32", "string.max_len = 32"),
    ("string", "string.max_len = 32", "string.max_len = 64", None),
    ("string", 'string.pattern = "^a$"', 'string.pattern = "^b$"', "string.pattern = ^b$"),
    ("string", 'string.pattern = "^a$"', "", None),
    ("string", 'string.prefix = "ab"', 'string.prefix = "a"', None),
    ("string", 'string.prefix = "a"', 'string.prefix = "ab"', "string.prefix = ab"),
    ("string", "", "string.uuid = true", "string.uuid = true"),
    ("string", "string.uuid = true", "string.email = true", "string.email = true"),
    ("string", "", 'string = {in: ["a", "b"]}', "string.in = [a, b]"),
    ("string", 'string = {in: ["a", "b"]}', 'string = {in: ["a"]}', "string.in = [a]"),
    ("string", 'string = {in: ["a"]}', 'string = {in: ["a", "b"]}', None),
    ("string", 'string = {not_in: ["a"]}', 'string = {not_in: ["a", "b"]}', "string.not_in = [a, b]"),
    ("string", "string.len = 3", "string.len = 4", "string.len = 4"),
    ("string", "", 'string.const = "x"', "string.const = x"),
    ("bytes", "bytes.max_len = 9", "bytes.max_len = 8", "bytes.max_len = 8"),
    ("int64", "int64.gte = 0", "int64.gte = 1", "int64.gte = 1"),
    ("int64", "int64.gte = 1", "int64.gt = 1", "int64.gt = 1"),
    ("int64", "int64.gt = 1", "int64.gte = 1", None),
    ("int64", "int64.lte = 9", "int64.lt = 9", "int64.lt = 9"),
    ("int64", "int64.lt = 9", "int64.lte = 9", None),
    ("int64", "int64.lte = 9", "int64.lte = 5", "int64.lte = 5"),
    ("int64", "int64 = {gte: 0, lte: 9}", "int64 = {gt: 9, lt: 0}", "int64.gt = 9, int64.lt = 0"),
    ("double", "", "double.finite = true", "double.finite = true"),
    ("E", "", "enum.defined_only = true", "enum.defined_only = true"),
    ("E", "enum.defined_only = true", "", None),
    ("E", "enum = {not_in: [0]}", "enum = {not_in: [0, 1]}", "enum.not_in = [0, 1]"),
    ("M", "", "required = true", "required = true"),
    ("M", "required = true", "", None),
    ("repeated int32", "repeated.max_items = 9", "repeated.max_items = 8", "repeated.max_items = 8"),
    ("repeated int32", "", "repeated.unique = true", "repeated.unique = true"),
    ("repeated int32", "", "repeated.items.int32.gte = 1", "repeated.items.int32.gte = 1"),
    ("map<string, int32>", "", "map.keys.string.min_len = 1", "map.keys.string.min_len = 1"),
    ("map<string, int32>", "map.max_pairs = 9", "map.max_pairs = 3", "map.max_pairs = 3"),
    ("int32", "", 'cel = {id: "even", expression: "this % 2 == 0"}', "cel even: this % 2 == 0"),
    ("int32", 'cel = {id: "x", expression: "this > 0"}', 'cel = {id: "y", expression: "this > 0"}', None),
    ("google.protobuf.Duration", "duration.lte = {seconds: 9}", "duration.lte = {seconds: 5}", "duration.lte = 5 s"),
    ("google.protobuf.Duration", "duration.gt = {seconds: 0}", "duration.gte = {seconds: 0}", None),
    ("google.protobuf.Timestamp", "", "timestamp.gt_now = true", "timestamp.gt_now = true"),
]  # fmt: skip

MORE = 'import "google/protobuf/duration.proto"; import "google/protobuf/timestamp.proto"; enum E { Z = 0; Y = 1; }\n'


@pytest.mark.parametrize(("kind", "old", "new", "told"), FIELD_RULES)
def test_a_rule_of_a_field(kind: str, old: str, new: str, told: str | None, compiled: Compile) -> None:
    texts = [MORE + field(kind, rule(rules) if rules else "") for rules in (old, new)]
    found = compare(compiled(texts[0]), compiled(texts[1]))
    expected = [] if told is None else [("FIELD_RULE_NOT_STRICTER", "shop.v1.M.a", told)]
    assert [(v.rule, v.element, v.new) for v in found] == expected


def test_the_old_rule_is_told_too(compiled: Compile) -> None:
    (found,) = compare(
        compiled(field("string", rule("string.max_len = 64"))), compiled(field("string", rule("string.max_len = 32")))
    )
    assert (found.old, found.new) == ("string.max_len = 64", "string.max_len = 32")


OTHERS = [
    ("ONEOF_RULE_NOT_STRICTER", "message M { oneof o { int32 a = 1; } }", "message M { oneof o { option (buf.validate.oneof).required = true; int32 a = 1; } }", "M.o", "required"),
    ("MESSAGE_RULE_NOT_STRICTER", "message M { int32 a = 1; }", 'message M { option (buf.validate.message).cel = {id: "c", expression: "this.a > 0"}; int32 a = 1; }', "M", "cel c: this.a > 0"),
    ("MESSAGE_RULE_NOT_STRICTER", "message M { int32 a = 1; int32 b = 2; }", 'message M { option (buf.validate.message).oneof = {fields: ["a", "b"]}; int32 a = 1; int32 b = 2; }', "M", "at most one of a, b"),
    ("FIELD_NO_ADD_REQUIRED", "message M { }", "message M { M a = 1 [(buf.validate.field).required = true]; }", "M.a", "refused when it is not sent"),
    ("FIELD_NO_ADD_REQUIRED", "message M { }", "message M { int32 a = 1 [(buf.validate.field).int32.gte = 1]; }", "M.a", "refused when it is not sent"),
    ("FIELD_NO_ADD_REQUIRED", "message M { }", 'message M { string a = 1 [(buf.validate.field).string.pattern = "^[a-z]+$"]; }', "M.a", "refused when it is not sent"),
    ("FIELD_RULE_NOT_STRICTER", "message M { optional int32 a = 1 [(buf.validate.field).int32.gte = 1]; }", "message M { int32 a = 1 [(buf.validate.field).int32.gte = 1]; }", "M.a", "checked when it is unset"),
    ("FIELD_RULE_NOT_STRICTER", "message M { int32 a = 1 [(buf.validate.field).int32.gte = 1, (buf.validate.field).ignore = IGNORE_IF_ZERO_VALUE]; }", "message M { int32 a = 1 [(buf.validate.field).int32.gte = 1]; }", "M.a", "no such rule"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "old", "new", "element", "told"), OTHERS)
def test_a_rule_of_something_else(name: str, old: str, new: str, element: str, told: str, compiled: Compile) -> None:
    found = compare(compiled(old), compiled(new))
    assert [(v.rule, v.element, v.new) for v in found] == [(name, f"shop.v1.{element}", told)]


ADMITTED = [
    "message M { int32 a = 1 [(buf.validate.field).int32.gte = 0]; }",
    "message M { optional int32 a = 1 [(buf.validate.field).int32.gte = 1]; }",
    'message M { string a = 1 [(buf.validate.field).string.pattern = "^[a-z]{0,9}$"]; }',
    "message M { int32 a = 1 [(buf.validate.field).int32.gte = 1, (buf.validate.field).ignore = IGNORE_ALWAYS]; }",
    "message M { repeated int32 a = 1 [(buf.validate.field).repeated.max_items = 3]; }",
]


@pytest.mark.parametrize("new", ADMITTED)
def test_a_new_field_that_may_be_left_away_is_an_addition(new: str, compiled: Compile) -> None:
    assert compare(compiled("message M { }"), compiled(new)) == ()


CALL = "service S {{ rpc A(Q) returns (R); }} message Q {{ {0} }} message R {{ {1} }}"
CHECKED = "int32 a = 1 [(buf.validate.field).int32.gte = 1];"


def test_stricter_answers_refuse_nobody_and_stricter_questions_do(compiled: Compile) -> None:
    plain = "int32 a = 1;"
    old = compiled(CALL.format(plain, plain))
    assert compare(old, compiled(CALL.format(plain, CHECKED))) == ()
    (found,) = compare(old, compiled(CALL.format(CHECKED, plain)))
    assert found.element == "shop.v1.Q.a"
    assert compare(old, compiled(CALL.format(CHECKED, plain)), stricter=False) == ()
