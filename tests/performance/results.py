"""Decides what every benchmark gives: metrics with a value per round, beside a reference, and whether the reach is met."""

from __future__ import annotations

import statistics
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Reach:
    """What a metric must come to: a bound of its value, or of its ratio to the reference."""

    bound: float
    at_most: bool = True
    """Whether the bound is the most that is allowed; otherwise the least."""
    of_ratio: bool = False

    def text(self, unit: str) -> str:
        """The reach for people."""
        sign = ("<" if self.at_most else ">=") if not self.of_ratio else ("<=" if self.at_most else ">=")
        return f"{sign} {self.bound:g} {'x' if self.of_ratio else unit}"

    def met(self, value: float, ratio: float | None) -> bool | None:
        """Whether it is reached; None where there is no ratio to tell."""
        seen = ratio if self.of_ratio else value
        if seen is None:
            return None
        if not self.at_most:
            return seen >= self.bound
        return seen <= self.bound if self.of_ratio else seen < self.bound


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric: a value for each round, and for each round one of the reference."""

    name: str
    unit: str
    values: Sequence[float]
    reference: str | None = None
    """What it stands beside."""
    reference_values: Sequence[float] = ()
    reach: Reach | None = None
    over_all: float | None = None
    """The value over all rounds taken together, for a tail that one round is too short for; the median is not taken then."""
    reference_over_all: float | None = None
    """The same of the reference."""

    @property
    def value(self) -> float:
        """Median of the rounds."""
        return statistics.median(self.values) if self.over_all is None else self.over_all

    @property
    def reference_value(self) -> float | None:
        """Median of the reference's rounds."""
        if self.reference_over_all is not None:
            return self.reference_over_all
        return statistics.median(self.reference_values) if self.reference_values else None

    @property
    def ratio(self) -> float | None:
        """Value through reference."""
        reference = self.reference_value
        return self.value / reference if reference else None

    @property
    def met(self) -> bool | None:
        """Whether the reach is met; None without a reach."""
        return None if self.reach is None else self.reach.met(self.value, self.ratio)

    def as_json(self) -> dict[str, Any]:
        """One entry of `results`."""
        return {
            "metric": self.name,
            "value": _short(self.value),
            "unit": self.unit,
            "reference": self.reference,
            "reference_value": _short(self.reference_value),
            "ratio": _short(self.ratio),
            "reach": None if self.reach is None else self.reach.text(self.unit),
            "met": self.met,
            "rounds": len(self.values),
            "spread": [_short(min(self.values)), _short(max(self.values))],
            "reference_spread": (
                [_short(min(self.reference_values)), _short(max(self.reference_values))]
                if self.reference_values
                else None
            ),
        }


@dataclass(frozen=True, slots=True)
class Settings:
    """What a run is asked for."""

    rounds: int
    folder: Path
    """An empty folder for everything that the run writes."""
    say: Callable[[str], None]
    """Where a line of progress goes."""
    sections: Sequence[str] = ()
    """The parts of the benchmark that are asked for; all when empty."""
    long: bool = False
    """Whether what takes many minutes is asked for too."""


@dataclass(frozen=True, slots=True)
class Benchmark:
    """One benchmark; its module gives it the name BENCHMARK."""

    name: str
    about: str
    """One sentence."""
    rounds: int
    """Rounds when none are asked for."""
    run: Callable[[Settings], Awaitable[Sequence[Metric]]]
    sections: Sequence[str] = ()
    """Parts that can be asked for alone."""


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least this share of the values does not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, max(0, -(-int(share * 10_000) * len(ordered) // 10_000) - 1))]


def _short(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.5g}")
