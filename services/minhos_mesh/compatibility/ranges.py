"""Decides which reserved numbers and names of an old type are no longer reserved in the new one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

Range = tuple[int, int]
"""First and last number, both included."""

_MAX: Final = {"message": 536_870_911, "enum": 2_147_483_647}


def missing(old: Iterable[Range], new: Iterable[Range]) -> Iterator[tuple[Range, tuple[Range, ...]]]:
    """Each old range that is not covered any more, with the parts that are missing."""
    covered = _joined(new)
    for first, last in old:
        gaps = tuple(_gaps(first, last, covered))
        if gaps:
            yield (first, last), gaps


def covers(ranges: Iterable[Range], number: int) -> bool:
    """Whether a number lies in one of them."""
    return any(first <= number <= last for first, last in ranges)


def text(ranges: Iterable[Range], kind: str) -> str:
    """`4`, `4 to 9` or `4 to max`, with commas."""
    return ", ".join(_text(each, kind) for each in ranges)


def _text(each: Range, kind: str) -> str:
    first, last = each
    if first == last:
        return str(first)
    return f"{first} to max" if last >= _MAX[kind] else f"{first} to {last}"


def _joined(ranges: Iterable[Range]) -> list[Range]:
    joined: list[Range] = []
    for first, last in sorted(ranges):
        if joined and first <= joined[-1][1] + 1:
            joined[-1] = (joined[-1][0], max(last, joined[-1][1]))
        else:
            joined.append((first, last))
    return joined


def _gaps(first: int, last: int, covered: list[Range]) -> Iterator[Range]:
    for begin, end in covered:
        if end < first:
            continue
        if begin > last:
            break
        if first < begin:
            yield first, begin - 1
        first = end + 1
    if first <= last:
        yield first, last
