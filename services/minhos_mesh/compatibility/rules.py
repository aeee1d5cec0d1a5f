"""Decides when the validation rules of one field refuse what the old rules let pass."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from buf.validate import validate_pb2

Change = tuple[str, str]
"""The old rule and the new, as a contract writes them."""
NO_RULE: Final = "no such rule"

_NUMBERS: Final = frozenset(
    {"float", "double", "int32", "int64", "uint32", "uint64", "sint32", "sint64"}
    | {"fixed32", "fixed64", "sfixed32", "sfixed64"}
)
_LOWEST: Final = ("min_len", "min_bytes", "min_items", "min_pairs")
_HIGHEST: Final = ("max_len", "max_bytes", "max_items", "max_pairs")
_EXACT: Final = ("const", "len", "len_bytes", "pattern", "not_contains", "lt_now", "gt_now", "within")
_LONGEST_PATTERN: Final = 300
_FLAGS: Final = ("defined_only", "unique", "finite")
_PARTS: Final = ("prefix", "suffix", "contains")


def effective(rules: validate_pb2.FieldRules) -> validate_pb2.FieldRules:
    """The rules that are applied: none when the field says that all of them are ignored."""
    return validate_pb2.FieldRules() if rules.ignore == validate_pb2.IGNORE_ALWAYS else rules


def stricter(old: validate_pb2.FieldRules, new: validate_pb2.FieldRules, path: str = "") -> Iterator[Change]:
    """Every rule of the new set that refuses, or may refuse, what the old set let pass."""
    before, after = effective(old), effective(new)
    if after.required and not before.required:
        yield NO_RULE, f"{path}required = true"
    yield from added_expressions(before, after, path)
    kind = after.WhichOneof("type")
    if kind is None:
        return
    yield from _typed(_old_of_kind(before, kind), getattr(after, kind), f"{path}{kind}")
    zero = validate_pb2.IGNORE_IF_ZERO_VALUE
    same = before.WhichOneof("type") == kind and getattr(before, kind) == getattr(after, kind)
    if before.ignore == zero and after.ignore != zero and same:
        yield f"{path}ignore = IGNORE_IF_ZERO_VALUE", NO_RULE


def added_expressions(old: Any, new: Any, path: str = "") -> Iterator[Change]:
    """CEL rules of the new set that the old one does not have; what they refuse cannot be told from here."""
    known = {*old.cel_expression, *(rule.expression for rule in old.cel)}
    for rule in new.cel:
        if rule.expression not in known:
            yield NO_RULE, f"{path}cel {rule.id}: {rule.expression}"
    for expression in new.cel_expression:
        if expression not in known:
            yield NO_RULE, f"{path}cel: {expression}"


def _old_of_kind(old: validate_pb2.FieldRules, kind: str) -> Any:
    """The old rules of that type; numbers of another type are compared as numbers."""
    was = old.WhichOneof("type")
    if was is not None and (was == kind or {was, kind} <= _NUMBERS):
        return getattr(old, was)
    return getattr(validate_pb2.FieldRules(), kind)


def _typed(old: Any, new: Any, path: str) -> Iterator[Change]:
    names = new.DESCRIPTOR.fields_by_name
    for name in (*_EXACT, *_FLAGS, *_PARTS, *_LOWEST, *_HIGHEST):
        if name in names and _given(new, name) and _refuses_more(old, new, name):
            yield _text(old, name, path), _text(new, name, path)
    if "gte" in names:
        yield from _spans(old, new, path)
    if "in" in names:
        yield from _lists(old, new, path)
    if "well_known" in new.DESCRIPTOR.oneofs_by_name:
        yield from _formats(old, new, path)
    for name in ("items", "keys", "values"):
        if name in names:
            yield from stricter(getattr(old, name), getattr(new, name), f"{path}.{name}.")


def _refuses_more(old: Any, new: Any, name: str) -> bool:
    if name in _EXACT:
        return not _given(old, name) or getattr(old, name) != getattr(new, name)
    if name in _FLAGS:
        return bool(getattr(new, name)) and not getattr(old, name)
    return not _implied(old, new, name) if name in _PARTS else _tighter(old, new, name)


def _tighter(old: Any, new: Any, name: str) -> bool:
    after = getattr(new, name)
    if name in _HIGHEST:
        return not _given(old, name) or after < getattr(old, name)
    return bool(after > (getattr(old, name) if _given(old, name) else 0))


def _implied(old: Any, new: Any, name: str) -> bool:
    """Whether the old part already asked for all of the new one."""
    if not _given(old, name):
        return not getattr(new, name)
    before, after = getattr(old, name), getattr(new, name)
    checks = {"prefix": before.startswith, "suffix": before.endswith, "contains": lambda part: part in before}
    return bool(checks[name](after))


@dataclass(frozen=True, slots=True)
class _Span:
    """Numbers between two bounds; each bound with whether it is itself left out."""

    low: tuple[float, bool] | None
    high: tuple[float, bool] | None

    @property
    def inverted(self) -> bool:
        """Whether it allows what lies outside of the bounds instead."""
        return self.low is not None and self.high is not None and self.high[0] < self.low[0]


def _spans(old: Any, new: Any, path: str) -> Iterator[Change]:
    before, after = _span(old), _span(new)
    if before == after:
        return
    names = ("gt", "gte", "lt", "lte")
    if before.inverted or after.inverted:
        texts = [", ".join(_text(rules, n, path) for n in names if _given(rules, n)) for rules in (old, new)]
        if texts[1]:
            yield texts[0] or NO_RULE, texts[1]
        return
    if after.low is not None and (before.low is None or after.low > before.low):
        yield _first(old, names[:2], path), _first(new, names[:2], path)
    if after.high is not None and (before.high is None or _upper(after.high) < _upper(before.high)):
        yield _first(old, names[2:], path), _first(new, names[2:], path)


def _span(rules: Any) -> _Span:
    low = next(((_number(rules, name), name == "gt") for name in ("gt", "gte") if _given(rules, name)), None)
    high = next(((_number(rules, name), name == "lt") for name in ("lt", "lte") if _given(rules, name)), None)
    return _Span(low, high)


def _upper(bound: tuple[float, bool]) -> tuple[float, bool]:
    return bound[0], not bound[1]


def _number(rules: Any, name: str) -> float:
    value = getattr(rules, name)
    if hasattr(value, "seconds"):
        return int(value.seconds) * 10**9 + int(value.nanos)
    return value  # type: ignore[no-any-return] # a number of the rules' own type


def _lists(old: Any, new: Any, path: str) -> Iterator[Change]:
    allowed, before = [_key(each) for each in getattr(new, "in")], [_key(each) for each in getattr(old, "in")]
    if allowed and (not before or not set(before) <= set(allowed)):
        yield _listed(before, f"{path}.in"), _listed(allowed, f"{path}.in")
    refused, known = [_key(each) for each in new.not_in], {_key(each) for each in old.not_in}
    if not set(refused) <= known:
        yield _listed(sorted(known), f"{path}.not_in"), _listed(refused, f"{path}.not_in")


def _key(value: Any) -> Any:
    return value.SerializeToString() if hasattr(value, "SerializeToString") else value


def _listed(values: Sequence[Any], path: str) -> str:
    return f"{path} = [{', '.join(str(value) for value in values)}]" if values else NO_RULE


def _formats(old: Any, new: Any, path: str) -> Iterator[Change]:
    name = new.WhichOneof("well_known")
    if name is not None and getattr(new, name) and getattr(old, name) != getattr(new, name):
        was = old.WhichOneof("well_known")
        yield (_text(old, was, path) if was else NO_RULE), _text(new, name, path)


def _given(rules: Any, name: str) -> bool:
    return name in rules.DESCRIPTOR.fields_by_name and rules.HasField(name)


def _first(rules: Any, names: Sequence[str], path: str) -> str:
    return next((_text(rules, name, path) for name in names if _given(rules, name)), NO_RULE)


def _text(rules: Any, name: str, path: str) -> str:
    if not _given(rules, name):
        return NO_RULE
    value = getattr(rules, name)
    if hasattr(value, "seconds"):
        value = f"{_number(rules, name) / 1e9:g} s"
    elif isinstance(value, bool):
        value = str(value).lower()
    return f"{path}.{name} = {value}"


def refuses_nothing_given(rules: validate_pb2.FieldRules, *, presence: bool) -> bool:
    """Whether who does not know the field, and so leaves it away, would be refused; assumed where it cannot be told."""
    after = effective(rules)
    if after.required:
        return True
    if presence or after.ignore == validate_pb2.IGNORE_IF_ZERO_VALUE:
        return False
    kind = after.WhichOneof("type")
    return bool(after.cel or after.cel_expression) or (kind is not None and _refuses_zero(getattr(after, kind)))


def _refuses_zero(rules: Any) -> bool:
    zero = next((type(v)() for v in _values(rules)), None)
    if any(_given(rules, name) and getattr(rules, name) > 0 for name in (*_LOWEST, "len", "len_bytes")):
        return True
    if any(_given(rules, name) for name in _PARTS) or (_given(rules, "const") and rules.const):
        return True
    if _given(rules, "pattern") and not _matches_nothing(rules.pattern):
        return True
    if "well_known" in rules.DESCRIPTOR.oneofs_by_name and rules.WhichOneof("well_known"):
        return True
    if "in" in rules.DESCRIPTOR.fields_by_name:
        allowed = list(getattr(rules, "in"))
        if (allowed and zero not in allowed) or zero in list(rules.not_in):
            return True
    span = _span(rules) if "gte" in rules.DESCRIPTOR.fields_by_name else _Span(None, None)
    over = span.low is None or span.low < (0, True)
    under = span.high is None or _upper(span.high) >= (0, True)
    return not (over or under) if span.inverted else not (over and under)


def _matches_nothing(pattern: str) -> bool:
    """Whether a pattern lets the empty text pass. Patterns with groups are not tried: a hostile one could take for ever."""
    if "(" in pattern or "|" in pattern or len(pattern) > _LONGEST_PATTERN:
        return False
    try:
        return re.search(pattern, "") is not None
    except re.error:
        return False


def _values(rules: Any) -> Iterator[Any]:
    if "in" in rules.DESCRIPTOR.fields_by_name:
        yield from getattr(rules, "in")
        yield from rules.not_in
