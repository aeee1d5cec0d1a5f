"""Decides what may be forgotten: what is beyond the limits, and of that only what no durable consumer still needs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from minhos_mesh.event_bus.domain.patterns import matches_any
from minhos_mesh.event_bus.domain.records import TypeCount

LARGEST_STEP: Final = 256
"""Events removed in one transaction, so that publishing waits for it a few milliseconds at the most."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Beyond what events are forgotten; None is without limit. `unacked_...` are those beyond which even a consumer that
    has not acknowledged them loses them. Times in ns.
    """

    max_age_ns: int | None = None
    max_bytes: int | None = None
    max_events: int | None = None
    """Of each type."""
    max_events_of: Mapping[str, int] = field(default_factory=dict)
    """Of the types that are named here, instead of `max_events`."""
    unacked_max_age_ns: int | None = None
    unacked_max_bytes: int | None = None
    keep_ns: int = 0
    """Nothing younger is forgotten, whatever the limits."""

    def events_of(self, event_type: str) -> int | None:
        """How many events of a type are kept."""
        return self.max_events_of.get(event_type, self.max_events)


@dataclass(frozen=True, slots=True)
class Need:
    """The types (patterns) that a consumer wants, and from which sequence on it still needs them."""

    consumer: str
    types: tuple[str, ...]
    first: int


@dataclass(frozen=True, slots=True)
class Marks:
    """Sequences that the clock leads to: the first one not too old, the first one still needed by the unacked limit, and
    the first one too young to go; and the oldest one held.
    """

    aged: int
    unacked_aged: int
    young: int
    oldest: int = 0


@dataclass(frozen=True, slots=True)
class Step:
    """One removal: of each type up to which sequence, and how many events at the most."""

    through: Mapping[str, int]
    events: int
    takes_unacked: bool = False


def floors(counts: Sequence[TypeCount], needs: Iterable[Need]) -> dict[str, int]:
    """By type the first sequence that some consumer needs; types that nobody waits for are left out."""
    found: dict[str, int] = {}
    for need in needs:
        for count in counts:
            if matches_any(need.types, count.type):
                found[count.type] = min(need.first, found.get(count.type, need.first))
    return found


def steps(counts: Sequence[TypeCount], limits: Limits, marks: Marks, floor: Mapping[str, int]) -> list[Step]:
    """What is to be removed now, most pressing first; each only as far as it was looked at when the counts were taken."""
    held = [count for count in counts if count.held]
    free = {count.type: min(marks.young, floor.get(count.type, marks.young)) - 1 for count in held}
    found = [
        *_by_age(held, limits.unacked_max_age_ns, marks.unacked_aged, {}, marks, takes_unacked=True),
        *_by_bytes(held, limits.unacked_max_bytes, dict.fromkeys(free, marks.young - 1), takes_unacked=True),
        *_by_age(held, limits.max_age_ns, marks.aged, floor, marks),
        *_by_bytes(held, limits.max_bytes, free),
    ]
    for count in held:
        kept = limits.events_of(count.type)
        if kept is not None and count.held > kept:
            found.append(Step({count.type: free[count.type]}, min(count.held - kept, LARGEST_STEP)))
    return [step for step in found if any(last > 0 for last in step.through.values())]


def waits_for(counts: Sequence[TypeCount], limits: Limits, marks: Marks, needs: Iterable[Need]) -> list[str]:
    """The consumers that need events which are beyond the limits, by name."""
    over = sum(count.held_bytes for count in counts) - (limits.max_bytes or 0) if limits.max_bytes is not None else 0
    total = max(sum(count.held for count in counts), 1)
    mean = sum(count.held_bytes for count in counts) / total
    crowded = {
        c.type for c in counts if (kept := limits.events_of(c.type)) is not None and c.held > kept + LARGEST_STEP
    }
    found: list[str] = []
    for need in needs:
        wanted = [count for count in counts if matches_any(need.types, count.type)]
        old = limits.max_age_ns is not None and max(need.first, marks.oldest) < marks.aged
        old = old and any(count.held for count in wanted)
        full = over > LARGEST_STEP * mean and need.first < marks.young
        many = need.first < marks.young and any(count.type in crowded for count in wanted)
        if old or full or many:
            found.append(need.consumer)
    return sorted(found)


def _by_age(
    held: Sequence[TypeCount],
    limit: int | None,
    aged: int,
    floor: Mapping[str, int],
    marks: Marks,
    *,
    takes_unacked: bool = False,
) -> list[Step]:
    if limit is None:
        return []
    first = min(aged, marks.young)
    through = {count.type: min(first, floor.get(count.type, first)) - 1 for count in held}
    return [Step(through, LARGEST_STEP, takes_unacked)]


def _by_bytes(
    held: Sequence[TypeCount], limit: int | None, through: Mapping[str, int], *, takes_unacked: bool = False
) -> list[Step]:
    size = sum(count.held_bytes for count in held)
    if limit is None or size <= limit:
        return []
    mean = max(size // max(sum(count.held for count in held), 1), 1)
    return [Step(through, min(-(-(size - limit) // mean), LARGEST_STEP), takes_unacked)]
