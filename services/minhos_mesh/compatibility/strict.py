"""Decides when the validation rules of a message refuse senders that know its old form; buf does not look at these."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from buf.validate import validate_pb2
from minhos_mesh.compatibility import fields, rules
from minhos_mesh.compatibility.symbols import Field, Message, Symbols
from minhos_mesh.compatibility.types import place_of
from minhos_mesh.compatibility.violation import Violation, broken

FIELD: Final = "FIELD_RULE_NOT_STRICTER"
MESSAGE: Final = "MESSAGE_RULE_NOT_STRICTER"
ONEOF: Final = "ONEOF_RULE_NOT_STRICTER"
ADDED: Final = "FIELD_NO_ADD_REQUIRED"


def compare(old: Message, new: Message, before: Symbols, after: Symbols) -> Iterator[Violation]:
    """Rules of a message that is sent by callers and became stricter."""
    file, known = new.file.name, {field.number: field for field in old.proto.field}
    for field in new.proto.field:
        element, after_rules = f"{new.name}.{field.name}", rules_of(field)
        there = _has_presence(new, field, after)
        if field.number not in known:
            if rules.refuses_nothing_given(after_rules, presence=there):
                yield broken(ADDED, file, element, "no such field", "refused when it is not sent")
            continue
        before_rules = rules_of(known[field.number])
        for was, now in rules.stricter(before_rules, after_rules):
            yield broken(FIELD, file, element, was, now)
        was_there = _has_presence(old, known[field.number], before)
        newly_checked = was_there and not there and not before_rules.required
        if newly_checked and rules.refuses_nothing_given(after_rules, presence=False):
            yield broken(FIELD, file, element, "not checked when it is unset", "checked when it is unset")
    yield from _message_rules(old, new)
    yield from _oneofs(old, new)


def rules_of(field: Field) -> validate_pb2.FieldRules:
    """The rules that stand on a field."""
    return field.options.Extensions[validate_pb2.field]


def _has_presence(message: Message, field: Field, symbols: Symbols) -> bool:
    return fields.cardinality(place_of(message, field, symbols)) in {"optional", "required"}


def _message_rules(old: Message, new: Message) -> Iterator[Violation]:
    before, after = (each.proto.options.Extensions[validate_pb2.message] for each in (old, new))
    for was, now in rules.added_expressions(before, after):
        yield broken(MESSAGE, new.file.name, new.name, was, now)
    known = {tuple(sorted(each.fields)): each.required for each in before.oneof}
    for each in after.oneof:
        key = tuple(sorted(each.fields))
        names = ", ".join(key)
        if key not in known:
            yield broken(MESSAGE, new.file.name, new.name, rules.NO_RULE, f"at most one of {names}")
        if each.required and not known.get(key, False):
            yield broken(MESSAGE, new.file.name, new.name, rules.NO_RULE, f"one of {names} required")


def _oneofs(old: Message, new: Message) -> Iterator[Violation]:
    known = {each.name: each.options.Extensions[validate_pb2.oneof].required for each in old.proto.oneof_decl}
    for each in new.proto.oneof_decl:
        if each.options.Extensions[validate_pb2.oneof].required and not known.get(each.name, False):
            yield broken(ONEOF, new.file.name, f"{new.name}.{each.name}", "not required", "required")
