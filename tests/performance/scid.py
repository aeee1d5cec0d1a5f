"""Measures .scid files: how fast they are read, and how soon a tick that is appended reaches a reader of the mesh."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from tests.performance.results import Benchmark, Metric, Settings
from tests.performance.scid_read import read
from tests.performance.scid_tail import tail

SECTIONS: Final[dict[str, Callable[[Settings], Awaitable[Sequence[Metric]]]]] = {"read": read, "tail": tail}


async def run(settings: Settings) -> Sequence[Metric]:
    """Runs the sections that are asked for, one after another."""
    metrics: list[Metric] = []
    for name in settings.sections or SECTIONS:
        settings.say(name)
        metrics.extend(await SECTIONS[name](settings))
    return metrics


BENCHMARK: Final = Benchmark(
    "scid", "reading .scid files of 1 GB, and from a record that is appended to its tick delivered", 3, run,
    tuple(SECTIONS),
)  # fmt: skip
