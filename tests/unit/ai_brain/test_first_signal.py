"""How soon a newcomer sees a signal on the simulated market."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from minhos_mesh.ai_brain.domain.brain import SymbolBrain
from minhos_mesh.ai_brain.domain.indicators import Periods
from minhos_mesh.runtime.bars import BarBuilder
from minhos_mesh.runtime.config import load
from minhos_mesh.runtime.paths import MeshPaths
from minhos_mesh.runtime.tick_layout import TickArray, new_ticks
from minhos_mesh.sierra_files.layout import Records
from minhos_mesh.sierra_files.reader import ScidFile
from minhos_mesh.sierra_files.ticks import BUY, CONTRACT_FLAGS, SELL, tick_columns
from minhos_mesh.sierra_simulator.bootstrap import settings_of
from minhos_mesh.sierra_simulator.output import open_output

TICK_E9 = 250_000_000
FIRST_START_NS = 1_795_300_000_000_000_000
STARTS = 20


def ticks_of(records: Records) -> TickArray:
    columns, ticks = tick_columns(records, TICK_E9), new_ticks(len(records))
    ticks["event_time_ns"] = columns.time_ns
    ticks["price_e9"], ticks["bid_e9"], ticks["ask_e9"] = columns.price_e9, columns.bid_e9, columns.ask_e9
    ticks["size"], ticks["flags"], ticks["kind"] = columns.size, columns.flags & CONTRACT_FLAGS, 1
    ticks["side"] = np.where(columns.flags & BUY, 1, np.where(columns.flags & SELL, 2, 0))
    return ticks


def told_within_a_minute(folder: Path, seed: int, start_ns: int) -> bool:
    """Whether a signal that is acted on comes in the first minute of the default feed with this seed."""
    config = load(None, environment={}, overrides={"feed": {"seed": seed}})
    paths = MeshPaths(folder)
    paths.create()
    output = open_output(
        settings_of(config.resolved(datetime.fromtimestamp(start_ns / 1e9, UTC)), paths),
        start_ns,
    )
    with ScidFile(output.writer.path) as file:
        history = ticks_of(file.read(0, file.count()))
    output.writer.close()
    live = ticks_of(output.feed.due(start_ns + 60_000_000_000))
    builder = BarBuilder()
    bars = builder.add(history, 1)
    auto = config.engine.auto_threshold
    brain = SymbolBrain("NQ", TICK_E9, Periods(), (config.brain.min_confidence, auto))
    brain.prime(bars[-1_500:], builder.open_bar)
    return any(told.decision.confidence >= auto for told in brain.add(live, len(history) + 1))


def test_nearly_every_start_of_the_default_feed_shows_a_trade_within_a_minute(tmp_path: Path) -> None:
    starts = [(20_260_101 + index, FIRST_START_NS + index * 17_131_000_000_000) for index in range(STARTS)]
    seen = [told_within_a_minute(tmp_path / str(seed), seed, start_ns) for seed, start_ns in starts]
    assert sum(seen) >= 0.95 * STARTS
