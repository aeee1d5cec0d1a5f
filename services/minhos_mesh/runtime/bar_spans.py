"""Decides what a bar can span: seconds, a number of trades, or a number of contracts, and how people write it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

DAY_SECONDS: Final = 86_400
LARGEST: Final = 1_000_000_000
"""Most trades or contracts of one bar."""

_TEXT = re.compile(r"^(\d{1,10})\s*([a-z]+)$")
_SECONDS = {"s": 1, "m": 60, "min": 60, "h": 3_600, "d": DAY_SECONDS}
_EXAMPLES = "1s, 5m (minutes), 1h, 1d, 500t (trades) or 1000v (contracts)"


class Measure(StrEnum):
    """What is counted until a bar is full."""

    SECONDS = "seconds"
    TRADES = "trades"
    VOLUME = "volume"


class SpanError(ValueError):
    """Expected: a span that no bar can have; the text says what was seen and what is allowed."""


@dataclass(frozen=True, slots=True)
class BarSpan:
    """What one bar spans."""

    measure: Measure
    size: int
    """Seconds (1 to 86,400, which is a whole session), trades or contracts."""

    def __post_init__(self) -> None:
        largest = DAY_SECONDS if self.measure is Measure.SECONDS else LARGEST
        if not 1 <= self.size <= largest:
            raise SpanError(f"a bar of {self.size} {self.measure}: allowed are 1 to {largest} {self.measure}")

    def __str__(self) -> str:
        if self.measure is not Measure.SECONDS:
            return f"{self.size}{'t' if self.measure is Measure.TRADES else 'v'}"
        for unit in ("d", "h", "m"):
            if self.size % _SECONDS[unit] == 0:
                return f"{self.size // _SECONDS[unit]}{unit}"
        return f"{self.size}s"


def parse_span(text: str) -> BarSpan:
    """Reads `30s`, `5m`, `1h`, `1d`, `500t` or `1000v`, in capitals too save `1M`, which is a month elsewhere. Raises SpanError."""
    if text.strip().endswith("M"):
        raise SpanError(
            f"bars of {text!r} are not understood: M is a month elsewhere, and no bar spans one; write {_EXAMPLES}"
        )
    match = _TEXT.match(text.strip().lower())
    if match is None or match[2] not in (*_SECONDS, "t", "v"):
        raise SpanError(f"bars of {text!r} are not understood: write {_EXAMPLES}")
    count, unit = int(match[1]), match[2]
    if unit in _SECONDS:
        return BarSpan(Measure.SECONDS, count * _SECONDS[unit])
    return BarSpan(Measure.TRADES if unit == "t" else Measure.VOLUME, count)


MINUTE: Final = BarSpan(Measure.SECONDS, 60)
