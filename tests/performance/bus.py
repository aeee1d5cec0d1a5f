"""Measures the event bus: each section is one function that gives its metrics; more may be added here."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from tests.performance.bus_deliver import DELIVER
from tests.performance.bus_growth import GROWTH
from tests.performance.bus_publish import PUBLISH
from tests.performance.bus_slow import SLOW
from tests.performance.results import Benchmark, Metric, Settings

Section = Callable[[Settings], Awaitable[Sequence[Metric]]]

SECTIONS: Final[dict[str, Section]] = {section.__name__: section for section in (*PUBLISH, *DELIVER, *SLOW, *GROWTH)}
"""In the order in which they run."""


async def run(settings: Settings) -> Sequence[Metric]:
    """Runs the sections that are asked for, one after another."""
    metrics: list[Metric] = []
    for name in settings.sections or SECTIONS:
        settings.say(name)
        metrics.extend(await SECTIONS[name](settings))
    return metrics


BENCHMARK: Final = Benchmark(
    "bus", "durable publishing, delivery, replay and slow readers of the event bus", 3, run, tuple(SECTIONS)
)
