"""Measures market data: each section is one function that gives its metrics."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from tests.performance.market_flood import FLOOD
from tests.performance.market_growth import GROWTH
from tests.performance.market_memory import MEMORY
from tests.performance.market_pace import PACE
from tests.performance.results import Benchmark, Metric, Settings

Section = Callable[[Settings], Awaitable[Sequence[Metric]]]

SECTIONS: Final[dict[str, Section]] = {section.__name__: section for section in (*FLOOD, *PACE, *GROWTH, *MEMORY)}
"""In the order in which they run."""


async def run(settings: Settings) -> Sequence[Metric]:
    """Runs the sections that are asked for, one after another."""
    metrics: list[Metric] = []
    for name in settings.sections or SECTIONS:
        settings.say(name)
        metrics.extend(await SECTIONS[name](settings))
    return metrics


BENCHMARK: Final = Benchmark(
    "market", "ticks to their readers beside pyzmq, nats-py and raw gRPC: rate, latency, CPU, growth", 3, run,
    tuple(SECTIONS),
)  # fmt: skip
