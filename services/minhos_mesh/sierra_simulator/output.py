"""Decides whether a file of the simulator goes on or begins anew, and writes the marker before the data."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from minhos_mesh.runtime.instruments import spec_for
from minhos_mesh.runtime.symbols import Symbol, current_contract, date_of_ns, parse_symbol, symbol_of_file
from minhos_mesh.sierra_files.header import ScidError
from minhos_mesh.sierra_files.layout import EPOCH_SHIFT_US, SUFFIX, Records, empty_records
from minhos_mesh.sierra_files.marker import Marker, write_marker
from minhos_mesh.sierra_files.reader import ScidFile
from minhos_mesh.sierra_files.ticks import HAS_BID, tick_columns
from minhos_mesh.sierra_files.writer import ScidWriter
from minhos_mesh.sierra_simulator.domain.feeds import CHUNK, Feed, RandomWalkFeed, ReplayFeed
from minhos_mesh.sierra_simulator.domain.regimes import RegimeSchedule
from minhos_mesh.sierra_simulator.domain.walk import RandomWalk, WalkSettings, WalkState
from minhos_mesh.sierra_simulator.settings import MOVEMENTS, START_PRICES_E9, SettingsRefused, SimulatorSettings

RESUME_WITHIN_S = 600
"""A random walk that stood still for longer begins anew, with history up to now."""

_RUN_FILE = ".simulator-run.json"


@dataclass(frozen=True, slots=True)
class _Run:
    """What was being written when the simulator last began a file."""

    run_id: str
    symbol: str
    seed: int
    source: str
    live_us: int


@dataclass(frozen=True, slots=True)
class Output:
    """An open file with the feed that fills it."""

    symbol: Symbol
    writer: ScidWriter
    feed: Feed


def open_output(settings: SimulatorSettings, now_ns: int) -> Output:
    """Begins the file of a feed or goes on with it. Raises SettingsRefused, SymbolError, InstrumentError, ScidError."""
    if settings.replay_file is not None:
        return _open_replay(settings, settings.replay_file, now_ns)
    return _open_walk(settings, now_ns)


def _open_walk(settings: SimulatorSettings, now_ns: int) -> Output:
    symbol = _walk_symbol(settings, now_ns)
    spec = spec_for(symbol, settings.instruments)
    start_e9 = settings.start_price_e9 or START_PRICES_E9.get(symbol.root)
    if start_e9 is None:
        raise SettingsRefused(f"start_price is not set and root {symbol.root} has none: set the price to begin with")
    path = settings.folder / f"{symbol}{SUFFIX}"
    now_us = now_ns // 1000
    kept = _kept_run(path, _Run(settings.run_id, str(symbol), settings.seed, "", 0))
    resumed = None if kept is None else _walk_end(path, spec.tick_e9, now_us)
    live_us = now_us if kept is None or resumed is None else kept.live_us
    schedule = RegimeSchedule((settings.seed, 2), live_us - settings.history_s * 1_000_000, live_us)
    walk_settings = WalkSettings(settings.seed, spec.tick_e9, start_e9, MOVEMENTS.get(symbol.root, 1.0))
    write_marker(settings.folder, Marker())
    if resumed is not None:
        writer = ScidWriter.resume(path)
        walk = RandomWalk(walk_settings, schedule, stream=writer.count)
        return Output(symbol, writer, RandomWalkFeed(walk, resumed, settings.ticks_per_s))
    walk = RandomWalk(walk_settings, schedule)
    history, state = _history(walk, settings, start_e9 / spec.tick_e9, live_us)
    writer = ScidWriter.create(path, history)
    _keep_run(path, _Run(settings.run_id, str(symbol), settings.seed, "", live_us))
    return Output(symbol, writer, RandomWalkFeed(walk, state, settings.ticks_per_s))


def _walk_symbol(settings: SimulatorSettings, now_ns: int) -> Symbol:
    if settings.symbol is not None:
        return parse_symbol(settings.symbol)
    spec = spec_for(Symbol(settings.root, ""), settings.instruments)
    if not spec.tradeable:
        return Symbol(spec.root, spec.exchange)
    return current_contract(spec.root, spec.exchange, date_of_ns(now_ns))


def _history(
    walk: RandomWalk, settings: SimulatorSettings, start_ticks: float, live_us: int
) -> tuple[Records, WalkState]:
    """Records up to the live part, and the state behind the last of them."""
    begin_us = live_us - settings.history_s * 1_000_000
    state = WalkState(begin_us, begin_us, start_ticks)
    written: list[Records] = []
    while state.time_us < live_us:
        block = walk.draw(state, settings.history_gap_s * 1e6)
        past = int(np.searchsorted(block.times_us, live_us, side="left"))
        written.append(block.records[:past])
        if past < len(block.records):
            state = block.state_after(past, state)
            state = WalkState(live_us, state.stamp_us, state.mid_ticks, state.block)
        else:
            state = block.end
    return np.concatenate(written) if written else empty_records(0), state


def _walk_end(path: Path, tick_e9: int, now_us: int) -> WalkState | None:
    """Where the walk in a file stands; None when it is to begin anew."""
    with ScidFile(path) as file:
        last = file.read(max(0, file.count() - 1), 1)
    columns = tick_columns(last, tick_e9)
    if not len(last) or not columns.flags[0] & HAS_BID:
        return None
    stamp_us = int(last["time_us"][0]) - EPOCH_SHIFT_US
    if not -RESUME_WITHIN_S * 1_000_000 < now_us - stamp_us < RESUME_WITHIN_S * 1_000_000:
        return None
    mid_ticks = (int(columns.bid_e9[0]) + int(columns.ask_e9[0])) / 2 / tick_e9
    return WalkState(max(now_us, stamp_us), stamp_us, mid_ticks)


def _open_replay(settings: SimulatorSettings, source: Path, now_ns: int) -> Output:
    symbol = symbol_of_file(source.name)
    spec_for(symbol, settings.instruments)
    path = settings.folder / f"{symbol}{SUFFIX}"
    with ScidFile(source) as file:
        recording = file.read(0, file.count())
    if not len(recording):
        raise SettingsRefused(f"replay_file {source} holds no record: there is nothing to replay")
    if path.exists() and path.samefile(source):
        raise SettingsRefused(f"replay_file {source} is the file that would be written: choose another folder")
    wanted = _Run(settings.run_id, str(symbol), 0, str(source.resolve()), 0)
    write_marker(settings.folder, Marker({path.name: len(recording)}))
    written = 0 if _kept_run(path, wanted) is None else _common_length(path, recording)
    writer = ScidWriter.resume(path) if written else ScidWriter.create(path)
    _keep_run(path, wanted)
    return Output(symbol, writer, ReplayFeed(recording, settings.replay_speed, written, now_ns))


def _common_length(path: Path, recording: Records) -> int:
    """Records of the recording that the file already holds; 0 when it holds something else."""
    with ScidFile(path) as file:
        count = file.count()
        if count > len(recording):
            return 0
        for index in range(0, count, CHUNK):
            found = file.read(index, min(CHUNK, count - index))
            if found.tobytes() != recording[index : index + len(found)].tobytes():
                return 0
    return count


def _kept_run(path: Path, wanted: _Run) -> _Run | None:
    """The run that wrote the file, when it is the wanted one and the file is there."""
    try:
        kept = _Run(**json.loads((path.parent / _RUN_FILE).read_text(encoding="utf-8")))
        with ScidFile(path):
            pass
    except (OSError, ValueError, TypeError, ScidError):
        return None
    same = (kept.run_id, kept.symbol, kept.seed, kept.source)
    return kept if same == (wanted.run_id, wanted.symbol, wanted.seed, wanted.source) else None


def _keep_run(path: Path, run: _Run) -> None:
    fresh = path.parent / f"{_RUN_FILE}.new"
    fresh.write_text(json.dumps(asdict(run)), encoding="utf-8")
    fresh.replace(path.parent / _RUN_FILE)
