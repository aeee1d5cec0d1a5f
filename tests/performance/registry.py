"""Measures the registry as a control plane: each section is one function that gives its metrics; more may be added here."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from tests.performance.registry_etcd import ETCD
from tests.performance.registry_mesh import DEATHS
from tests.performance.registry_rotation import ROTATION
from tests.performance.registry_scale import SCALE
from tests.performance.registry_startup import startup
from tests.performance.results import Benchmark, Metric, Settings

Section = Callable[[Settings], Awaitable[Sequence[Metric]]]

SECTIONS: Final[tuple[Section, ...]] = (*ROTATION, *DEATHS, *SCALE, *ETCD, startup)
"""In the order in which they run."""


async def run(settings: Settings) -> Sequence[Metric]:
    """Runs all sections, one after another."""
    metrics: list[Metric] = []
    for section in SECTIONS:
        settings.say(f"{section.__module__.rpartition('.')[2]}: {section.__name__}")
        metrics.extend(await section(settings))
    return metrics


BENCHMARK: Final = Benchmark("registry", "how fast calls follow instances that come, crash, freeze and leave", 20, run)
