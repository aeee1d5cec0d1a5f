"""Decides which events a reader asked for: dotted patterns on the type, and one subject or all."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from minhos_mesh.event_bus.domain.errors import InvalidField

_PART: Final = re.compile(r"[a-z0-9_]+|\*")
_ALLOWED: Final = "parts of a-z, 0-9 and _ joined by dots, `*` for one part, `>` at the end for one or more"


@dataclass(frozen=True, slots=True)
class Selection:
    """Types (patterns, all when empty) and subject (exact, all when None) that a reader asked for."""

    types: tuple[str, ...] = ()
    subject: str | None = None

    def matches(self, event_type: str, subject: str) -> bool:
        """Says whether an event of this type and subject is wanted."""
        return (self.subject is None or self.subject == subject) and matches_any(self.types, event_type)


ALL: Final = Selection()


def selection(types: Sequence[str], subject: str | None = None, *, field: str = "types") -> Selection:
    """Checks the patterns; their order and repetition mean nothing. Raises InvalidField naming the pattern."""
    for index, pattern in enumerate(types):
        parts = pattern.split(".")
        if parts[-1] == ">":
            parts.pop()
        if not pattern or not all(_PART.fullmatch(part) for part in parts):
            raise InvalidField(f"{field}[{index}]", pattern, _ALLOWED)
    return Selection(tuple(sorted(set(types))), subject)


@lru_cache(maxsize=4096)
def matches_any(patterns: tuple[str, ...], event_type: str) -> bool:
    """Says whether one of the patterns, or none being given, lets the type pass."""
    return not patterns or any(_matches(pattern.split("."), event_type.split(".")) for pattern in patterns)


def _matches(pattern: list[str], parts: list[str]) -> bool:
    if pattern[-1] == ">":
        head = pattern[:-1]
        return len(parts) > len(head) and _matches_parts(head, parts[: len(head)])
    return len(pattern) == len(parts) and _matches_parts(pattern, parts)


def _matches_parts(pattern: list[str], parts: list[str]) -> bool:
    return all(wanted in ("*", part) for wanted, part in zip(pattern, parts, strict=True))
