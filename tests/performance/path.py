"""Measures the way of a tick through brain, engine, risk and venue to the delivered fill event, beside one raw call."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from tests.performance.bare import BareServer, bare_servers, time_of_calls
from tests.performance.bare_chain import Chain, bare_chain, trips_ms
from tests.performance.mesh_run import MeshFailed, running_mesh
from tests.performance.path_market import TurningMarket, history
from tests.performance.path_probe import STAGES, Probe, Way, probing
from tests.performance.results import Benchmark, Metric, Reach, Settings, percentile
from tests.performance.tick_source import write_empty_file

from minhos_mesh.runtime.clients import Clients
from minhos_mesh.runtime.config import load_saved
from minhos_mesh.runtime.context import ServiceContext

TICKS_PER_S: Final = 500
STEP_S: Final = 60 / 115
"""How often the brain looks, and so how often a tick leads to a trade; risk refuses the same order within a second."""
ROUND_S: Final = 27.0
WARM_S: Final = 6.0
CALLS: Final = 1_000
TRIPS: Final = 20
REFERENCE: Final = "one raw grpc.aio unary call"
CHAIN: Final = "a bare chain: as many messages and commits, at the same pace"
SHARE: Final = 0.8
"""A round in which fewer of the turning ticks led to a fill is no measurement."""
CONFIG: Final = f"""
[feed]
kind = "none"
[brain]
step_s = {STEP_S:.9f}
min_confidence = 0.5
[engine]
mode = "FULL_AUTO"
auto_threshold = 0.5
[risk]
max_orders_per_minute = 1000000
max_daily_loss = "1000000000"
max_drawdown = "1000000000"
max_exposure = "1000000000"
[paper_venue]
initial_cash = "1000000000"
"""


async def run(settings: Settings) -> Sequence[Metric]:
    """Alternates ticks through the mesh and calls to a bare server; a first round of each does not count."""
    seen = _Seen()
    data_dir = settings.folder / "mesh"
    write_empty_file(data_dir)
    async with (
        bare_servers(1) as (bare,),
        bare_chain(settings.folder) as chain,
        running_mesh(data_dir, CONFIG) as mesh,
    ):
        await mesh.stop("sierra_client")
        config = load_saved(mesh.paths.config_file)
        clients = Clients(await mesh.addresses())
        context = ServiceContext("benchmark", "benchmark-1", config, mesh.paths, clients)
        try:
            async with probing(context, config.primary()) as probe:
                await _measure(probe, bare, chain, settings, seen)
        finally:
            await clients.close()
    return _metrics(seen)


@dataclass(slots=True)
class _Seen:
    """What each round gave; times in ms."""

    ways: list[list[Way]] = field(default_factory=list)
    raw: list[list[float]] = field(default_factory=list)
    trips: list[list[float]] = field(default_factory=list)


async def _measure(probe: Probe, bare: BareServer, chain: Chain, settings: Settings, seen: _Seen) -> None:
    market = TurningMarket(round(STEP_S * 1e9))
    await probe.send(history(time.time_ns()), [])
    for number in range(settings.rounds + 1):
        before = await time_of_calls(bare, CALLS // 2)
        await probe.run(market, TICKS_PER_S, ROUND_S if number else WARM_S)
        await probe.settle()
        calls = before + await time_of_calls(bare, CALLS // 2)
        trips = await trips_ms(chain, TRIPS, STEP_S)
        turned, ways = len(probe.ways), probe.take_done()
        if not ways or (number and len(ways) < SHARE * turned):
            raise MeshFailed(
                f"only {len(ways)} of {turned} ticks that turn the brain over led to a fill;"
                f" {probe.refused} orders were refused: {probe.refusal or 'none'}"
            )
        totals = [way.total_ms for way in ways]
        settings.say(
            f"{f'round {number}' if number else 'warm up'}: {len(ways)} fills of {turned} turns,"
            f" p50 {percentile(totals, 0.5):.2f} ms, p99 {percentile(totals, 0.99):.2f} ms;"
            f" raw call {percentile(calls, 0.5):.3f} ms, bare chain {percentile(trips, 0.5):.2f} ms"
        )
        if number:
            seen.ways.append(ways)
            seen.raw.append(calls)
            seen.trips.append(trips)


def _metrics(seen: _Seen) -> list[Metric]:
    rounds, raw, trips = seen.ways, seen.raw, seen.trips
    totals = [[way.total_ms for way in ways] for ways in rounds]
    halves = [percentile(calls, 0.5) for calls in raw]
    metrics = [
        Metric(
            "tick in -> fill event out, p50",
            "ms",
            [percentile(of, 0.5) for of in totals],
            f"{REFERENCE}, p50",
            halves,
            Reach(6.0),
        ),
        Metric(
            "tick in -> fill event out, p99 of all rounds",
            "ms",
            [percentile(of, 0.99) for of in totals],
            f"{REFERENCE}, p99 of all rounds",
            [percentile(calls, 0.99) for calls in raw],
            Reach(25.0),
            over_all=percentile([one for of in totals for one in of], 0.99),
            reference_over_all=percentile([one for calls in raw for one in calls], 0.99),
        ),
        Metric(
            "the same beside the least that is possible, p50",
            "ms",
            [percentile(of, 0.5) for of in totals],
            f"{CHAIN}, p50",
            [percentile(of, 0.5) for of in trips],
        ),
        Metric(
            "the same beside the least that is possible, p99 of all rounds",
            "ms",
            [percentile(of, 0.99) for of in totals],
            f"{CHAIN}, p99 of all rounds",
            [percentile(of, 0.99) for of in trips],
            over_all=percentile([one for of in totals for one in of], 0.99),
            reference_over_all=percentile([one for of in trips for one in of], 0.99),
        ),
    ]
    stages_of = [[stages for way in ways if (stages := way.stages_ms()) is not None] for ways in rounds]
    for index, name in enumerate(STAGES):
        values = [statistics.median(stages[index] for stages in of) for of in stages_of if of]
        if values:
            metrics.append(Metric(f"  {name}, p50", "ms", values, f"{REFERENCE}, p50", halves))
    return metrics


BENCHMARK: Final = Benchmark("path", "tick in to fill event out at 500 ticks/s through the whole mesh", 5, run)
