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
from minhos_mesh.sierra_files.ticks import HAS_BID, HAS_PRICE, tick_columns
from minhos_mesh.sierra_files.writer import ScidWriter
from minhos_mesh.sierra_simulator.domain.depth import DepthWalk
from minhos_mesh.sierra_simulator.domain.feeds import (
    CHUNK,
    SLOWEST_TICKS_PER_S,
    Feed,
    RandomWalkFeed,
    ReplayFeed,
)
from minhos_mesh.sierra_simulator.domain.products import product_of
from minhos_mesh.sierra_simulator.domain.recording import Recording, RecordingRefused
from minhos_mesh.sierra_simulator.domain.regimes import RegimeSchedule
from minhos_mesh.sierra_simulator.domain.walk import RandomWalk, WalkSettings, WalkState
from minhos_mesh.sierra_simulator.settings import START_PRICES_E9, SettingsRefused, SimulatorSettings

RESUME_WITHIN_S = 600
"""A pause up to this is always filled, however little history is asked for; a file may lie so far ahead of the clock."""

LONGEST_FILE = 4_000_000
"""Records; another run does not go on with a longer file, which all would have to read, but with its newest history."""

_RUN_FILE = ".{symbol}.simulator-run.json"


@dataclass(frozen=True, slots=True)
class _Run:
    """What was being written when a run of the mesh last took up the file of a symbol."""

    run_id: str
    source: str
    """Path of the recording; empty for a random walk."""
    start_us: int = 0
    """Where the run took up the walk, microseconds since the Unix epoch."""
    live_us: int = 0
    """When it went live."""
    stream: int = 0
    """Records that were there before, which tells its random numbers from those of other runs."""


@dataclass(frozen=True, slots=True)
class Output:
    """An open file with the feed that fills it."""

    symbol: Symbol
    writer: ScidWriter
    feed: Feed
    tick_e9: int
    """Price step in 1e-9 units."""
    since_us: int = 0
    """When the gaps of a random walk begin to count, microseconds since the Unix epoch."""
    left_out: int = 0
    """Records of a recording that fall into gaps, of all passes that are counted."""
    book: DepthWalk | None = None
    """The order book that is written beside it; None where there is none."""
    rate: float = 1.0
    """How many ticks it gets of those that are asked for."""


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
    product = product_of(symbol.root, quoted=spec.tradeable)
    anchor = WalkSettings(settings.seed, spec.tick_e9, start_e9, product, symbol.root)
    now_us, kept = now_ns // 1000, _kept_run(path)
    last = None if kept is None or kept.source else _walk_end(path, spec.tick_e9)
    write_marker(settings.folder, Marker())
    if kept is not None and last is not None and _goes_on(path, kept, settings, now_us - last.stamp_us):
        return _go_on(symbol, path, anchor, settings, last, kept, now_us)
    return _begin(symbol, path, anchor, settings, last, now_us)


def _goes_on(path: Path, kept: _Run, settings: SimulatorSettings, pause_us: int) -> bool:
    """Whether the walk of a file goes on in it: its end is not too far from now, and the file not too long."""
    longest_us = max(settings.history_s, RESUME_WITHIN_S) * 1_000_000
    if not -RESUME_WITHIN_S * 1_000_000 < pause_us <= longest_us:
        return False
    with ScidFile(path) as file:
        return kept.run_id == settings.run_id or file.count() <= LONGEST_FILE


def _go_on(
    symbol: Symbol,
    path: Path,
    anchor: WalkSettings,
    settings: SimulatorSettings,
    last: WalkState,
    kept: _Run,
    now_us: int,
) -> Output:
    """Takes up a walk where it stands; the time since its last trade is filled as history is."""
    writer = ScidWriter.resume(path)
    run = kept
    if kept.run_id != settings.run_id:
        run = _Run(settings.run_id, "", last.stamp_us, max(now_us, last.stamp_us), writer.count)
        _keep_run(path, run)
    walk = RandomWalk(anchor, _schedule(settings.seed, run), stream=writer.count)
    filling, state = _history(walk, settings, last, now_us)
    writer.append(filling)
    return _walking(symbol, anchor, settings, writer, RandomWalkFeed(walk, state, _rate(anchor, settings)), run)


def _begin(
    symbol: Symbol, path: Path, anchor: WalkSettings, settings: SimulatorSettings, last: WalkState | None, now_us: int
) -> Output:
    """Begins a file with history up to now; where there was a walk before, at the price at which that one ended."""
    start_us = now_us - settings.history_s * 1_000_000
    kept_records = _newest_history(path, start_us) if last is not None and last.stamp_us <= now_us else empty_records(0)
    if last is not None and len(kept_records):
        state = last
    else:
        mid_ticks = anchor.anchor_price_e9 / anchor.tick_e9 if last is None else last.mid_ticks
        state = WalkState(start_us, start_us, mid_ticks)
    run = _Run(settings.run_id, "", start_us, now_us)
    walk = RandomWalk(anchor, _schedule(settings.seed, run))
    history, state = _history(walk, settings, state, now_us)
    writer = ScidWriter.create(path, np.concatenate([kept_records, history]))
    _keep_run(path, run)
    return _walking(symbol, anchor, settings, writer, RandomWalkFeed(walk, state, _rate(anchor, settings)), run)


def _walking(
    symbol: Symbol, anchor: WalkSettings, settings: SimulatorSettings, writer: ScidWriter, feed: Feed, run: _Run
) -> Output:
    product, book = anchor.product, None
    if settings.depth_levels and product.quoted:
        book = DepthWalk(f"{settings.seed} {symbol.root} {writer.count}", settings.depth_levels, product.shown)
    return Output(symbol, writer, feed, anchor.tick_e9, run.live_us, book=book, rate=product.rate)


def _rate(anchor: WalkSettings, settings: SimulatorSettings) -> float:
    return max(SLOWEST_TICKS_PER_S, settings.ticks_per_s * anchor.product.rate)


def _newest_history(path: Path, start_us: int) -> Records:
    """Records of a file from a time on: what is carried over when the file has become too long."""
    with ScidFile(path) as file:
        first = file.first_index_at(start_us * 1000)
        return np.array(file.read(first, file.count() - first))


def _schedule(seed: int, run: _Run) -> RegimeSchedule:
    return RegimeSchedule((seed, 2, run.stream) if run.stream else (seed, 2), run.start_us, run.live_us)


def _walk_symbol(settings: SimulatorSettings, now_ns: int) -> Symbol:
    if settings.symbol is not None:
        return parse_symbol(settings.symbol)
    spec = spec_for(Symbol(settings.root, ""), settings.instruments)
    if not spec.tradeable:
        return Symbol(spec.root, spec.exchange)
    return current_contract(spec.root, spec.exchange, date_of_ns(now_ns))


def _history(
    walk: RandomWalk, settings: SimulatorSettings, state: WalkState, live_us: int
) -> tuple[Records, WalkState]:
    """Records from a state up to the live part, and the state behind the last of them."""
    written: list[Records] = []
    while state.time_us < live_us:
        block = walk.draw(state, settings.history_gap_s * 1e6 / walk.product.rate)
        past = int(np.searchsorted(block.times_us, live_us, side="left"))
        written.append(block.records[:past])
        if past < len(block.records):
            state = block.state_after(past, state)
            state = WalkState(live_us, state.stamp_us, state.mid_ticks, state.block)
        else:
            state = block.end
    return np.concatenate(written) if written else empty_records(0), state


def _walk_end(path: Path, tick_e9: int) -> WalkState | None:
    """Where the walk in a file stands; None when it holds none."""
    with ScidFile(path) as file:
        last = file.read(max(0, file.count() - 1), 1)
    columns = tick_columns(last, tick_e9)
    if not len(last) or not columns.flags[0] & (HAS_BID | HAS_PRICE):
        return None
    stamp_us = int(last["time_us"][0]) - EPOCH_SHIFT_US
    quoted = bool(columns.flags[0] & HAS_BID)
    bid_e9, ask_e9 = (columns.bid_e9[0], columns.ask_e9[0]) if quoted else (columns.price_e9[0], columns.price_e9[0])
    mid_ticks = (int(bid_e9) + int(ask_e9)) / 2 / tick_e9
    return WalkState(stamp_us, stamp_us, mid_ticks)


def _open_replay(settings: SimulatorSettings, source: Path, now_ns: int) -> Output:
    symbol = symbol_of_file(source.name)
    spec = spec_for(symbol, settings.instruments)
    path = settings.folder / f"{symbol}{SUFFIX}"
    with ScidFile(source) as file:
        records = file.read(0, file.count())
    if not len(records):
        raise SettingsRefused(f"replay_file {source} holds no record: there is nothing to replay")
    if path.exists() and path.samefile(source):
        raise SettingsRefused(f"replay_file {source} is the file that would be written: choose another folder")
    try:
        recording = Recording(records, passes=settings.passes, gaps=settings.gaps)
    except RecordingRefused as refused:
        raise SettingsRefused(f"replay_file {source}: {refused}") from None
    wanted = _Run(settings.run_id, str(source.resolve()))
    write_marker(settings.folder, Marker({} if recording.total is None else {path.name: recording.total}))
    written = _common_length(path, recording) if _kept_run(path) == wanted else 0
    _keep_run(path, wanted)
    writer = ScidWriter.resume(path) if written else ScidWriter.create(path)
    feed = ReplayFeed(recording, settings.replay_speed, written, now_ns)
    return Output(symbol, writer, feed, spec.tick_e9, left_out=recording.left_out * max(1, recording.passes))


def _common_length(path: Path, recording: Recording) -> int:
    """Records of the recording that the file already holds; 0 when it holds something else."""
    with ScidFile(path) as file:
        count, index = file.count(), 0
        if recording.total is not None and count > recording.total:
            return 0
        while index < count:
            wanted = recording.read(index, min(CHUNK, count - index))
            if file.read(index, len(wanted)).tobytes() != wanted.tobytes():
                return 0
            index += len(wanted)
    return count


def _kept_run(path: Path) -> _Run | None:
    """The run that wrote the file last; None when the file is not there or was not written by a simulator."""
    try:
        kept = _Run(**json.loads(_run_file(path).read_text(encoding="utf-8")))
        with ScidFile(path):
            return kept
    except (OSError, ValueError, TypeError, ScidError):
        return None


def _keep_run(path: Path, run: _Run) -> None:
    place = _run_file(path)
    fresh = place.with_name(f"{place.name}.new")
    fresh.write_text(json.dumps(asdict(run)), encoding="utf-8")
    fresh.replace(place)


def _run_file(path: Path) -> Path:
    return path.with_name(_RUN_FILE.format(symbol=path.stem))
