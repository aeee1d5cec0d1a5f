"""Decides how the process works that reads and packs history for market data: one question after the other, over pipes.

What history needs is large (Arrow, calendars: 100 MB and a second to load), so no service loads it. This process is started
when the first question comes and ends with its standard input. A question is a length and JSON; an answer is frames
of a kind, a length and a body, the last of which is `DONE` or `FAILED`.
"""

from __future__ import annotations

import json
import os
import struct
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from datetime import date
from importlib.abc import MetaPathFinder
from pathlib import Path
from typing import Any, BinaryIO, Final

import numpy as np

from minhos_mesh.history.archive import Archive, Chunk
from minhos_mesh.history.asking import (
    BarsWanted,
    Bookmark,
    SessionRule,
    bars,
    days_held,
    series_for,
    session_so_far,
)
from minhos_mesh.history.calendars import sessions_over
from minhos_mesh.history.domain.series import HistoryError, NotHeld, Series
from minhos_mesh.history.packing import Written, expire, pack
from minhos_mesh.history.places import HistoryPlaces
from minhos_mesh.runtime.bar_spans import parse_span
from minhos_mesh.runtime.bars import Bar
from minhos_mesh.runtime.tick_layout import ticks_from
from minhos_mesh.runtime.trading_sessions import ListedSessions, Session
from minhos_mesh.sierra_files.daily import DailyBar

FRAME: Final = struct.Struct("<BI")
LENGTH: Final = struct.Struct("<I")
PLACE: Final = struct.Struct("<QQ")
"""Epoch and first sequence, before the ticks of a frame."""
TOLD, TICKS, DONE, FAILED = 1, 2, 3, 4
_BARS_AT_ONCE: Final = 1_000

Frame = tuple[int, bytes]
Question = Mapping[str, Any]


def main() -> int:
    """Answers until standard input ends."""
    os.nice(5)
    _load_arrow()
    told = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints goes to the log, not between the frames
    while (question := _question(sys.stdin.buffer)) is not None:
        for kind, body in _answer(question):
            told.write(FRAME.pack(kind, len(body)))
            told.write(body)
        told.flush()
    return 0


class _Hidden(MetaPathFinder):
    """While it stands first among the finders, there is no pandas."""

    def find_spec(self, fullname: str, _path: object = None, _target: object = None) -> None:
        if fullname == "pandas":
            raise ImportError(fullname)


def _load_arrow() -> None:
    """Loads Arrow so that it does not load pandas for itself, which takes longer than most answers; only calendars need it."""
    hidden = _Hidden()
    sys.meta_path.insert(0, hidden)
    try:
        import pyarrow as pa

        pa.array(np.zeros(1))  # here it looks for pandas, once
    finally:
        sys.meta_path.remove(hidden)


def _question(stream: BinaryIO) -> Question | None:
    head = stream.read(LENGTH.size)
    if len(head) < LENGTH.size:
        return None
    question: Question = json.loads(stream.read(*LENGTH.unpack(head)))
    return question


def _answer(question: Question) -> Iterator[Frame]:
    try:
        yield from _ANSWERS[question["ask"]](HistoryPlaces(Path(question["root"])), question)
        yield DONE, b""
    except HistoryError as error:
        yield FAILED, _json({"kind": type(error).__name__, "text": str(error)})


def _series_of(places: HistoryPlaces, question: Question) -> Series:
    return series_for(places, question["symbol"], question["provenance"], question["fed"])


def _bars(places: HistoryPlaces, question: Question) -> Iterator[Frame]:
    series, bookmark = _series_of(places, question), question["bookmark"]
    wanted = BarsWanted(
        parse_span(question["span"]), question["exchange"], question["start_ns"], question["end_ns"],
        None if question["rule"] is None else SessionRule(question["rule"]), question["limit"],
        None if bookmark is None else Bookmark(*bookmark),
    )  # fmt: skip
    found = bars(places, series, wanted)
    yield (
        TOLD,
        _json(
            {
                "series": [series.provenance, series.symbol],
                "rule": found.rule,
                "outside": found.outside,
                "next": None if found.next is None else [found.next.session_open_ns, found.next.bars],
                "bars": [_bar(bar) | _of_file(found.daily.get(bar.trading_day)) for bar in found.bars],
            }
        ),
    )


def _bar(bar: Bar) -> dict[str, Any]:
    return {**asdict(bar), "span": str(bar.span), "trading_day": bar.trading_day.isoformat()}


def _of_file(day: DailyBar | None) -> dict[str, Any]:
    if day is None:
        return {}
    return {"of_file": True, "open_interest": day.open_interest, "volume_unknown": day.volume is None}


def bar_told(told: Mapping[str, Any]) -> Bar:
    """A bar as the process that reads history tells it."""
    return Bar(**{**told, "span": parse_span(told["span"]), "trading_day": date.fromisoformat(told["trading_day"])})


def _session_bars(places: HistoryPlaces, question: Question) -> Iterator[Frame]:
    archive = Archive(places, _series_of(places, question))
    day, open_ns, close_ns = question["session"]
    session = Session(date.fromisoformat(day), open_ns, close_ns)
    found = session_so_far(
        archive, parse_span(question["span"]), session, question["epoch"], question["through"], question["most"]
    )
    for at in range(0, len(found.bars), _BARS_AT_ONCE):
        yield TOLD, _json({"bars": [_bar(bar) for bar in found.bars[at : at + _BARS_AT_ONCE]]})
    open_bar = None if found.open_bar is None else _bar(found.open_bar)
    yield TOLD, _json({"open_bar": open_bar, "lost_through": found.lost_through})


def _calendar(_places: HistoryPlaces, question: Question) -> Iterator[Frame]:
    sessions = sessions_over(question["exchange"], question["first_ns"], question["last_ns"])
    listed = sessions if isinstance(sessions, ListedSessions) else None
    if listed is None:
        yield TOLD, _json({"sessions": None})
        return
    each = (listed[place] for place in range(len(listed)))
    yield TOLD, _json({"sessions": [[one.day.isoformat(), one.open_ns, one.close_ns] for one in each]})


def _sequences(places: HistoryPlaces, question: Question) -> Iterator[Frame]:
    series = _series_of(places, question)
    archive = Archive(places, series)
    newest = max(archive.runs(), key=lambda run: (run.last_ns, run.epoch), default=None)
    if newest is None:
        raise NotHeld(f"no ticks of {series} are held, only daily bars")
    yield (
        TOLD,
        _json(
            {
                "series": [series.provenance, series.symbol],
                "known": len(archive.held(question["epoch"])) > 0,
                "newest": [newest.epoch, newest.last_sequence],
                "oldest": [newest.epoch, min(first for first, _ in archive.held(newest.epoch))],
            }
        ),
    )
    yield from map(_chunk, archive.sequences(question["epoch"], question["first"], question["last"]))


def _times(places: HistoryPlaces, question: Question) -> Iterator[Frame]:
    series, after = _series_of(places, question), question["after"]
    archive = Archive(places, series)
    yield TOLD, _json({"series": [series.provenance, series.symbol]})
    told = archive.times(question["start_ns"], question["end_ns"], None if after is None else tuple(after))
    yield from map(_chunk, told)


def _chunk(chunk: Chunk) -> Frame:
    return TICKS, PLACE.pack(chunk.epoch, chunk.first_sequence) + ticks_from(chunk.ticks).tobytes()


def _held(places: HistoryPlaces, question: Question) -> Iterator[Frame]:
    symbol, provenance = question["symbol"], question["provenance"]

    def wanted(series: Series) -> bool:
        return symbol in {None, series.symbol} and provenance in {None, series.provenance}

    for each in days_held(places, wanted):
        yield TOLD, _json({**asdict(each), "day": each.day.isoformat()})


def _pack(places: HistoryPlaces, question: Question) -> Iterator[Frame]:
    """Packs series after series; what goes wrong with one is told and holds none of the others up."""
    for series in places.series():
        written, removed = Written(), 0
        try:
            written = pack(places, series)
            removed = expire(places, series, question["keep_days"])
        except HistoryError as error:
            written.broken.append(str(error))
        if written.days or removed or written.broken:
            yield TOLD, _json({"series": str(series), **asdict(written), "removed": removed})


_ANSWERS: Final[Mapping[str, Callable[[HistoryPlaces, Question], Iterator[Frame]]]] = {
    "bars": _bars, "sequences": _sequences, "times": _times, "held": _held, "pack": _pack,
    "session_bars": _session_bars, "calendar": _calendar,
}  # fmt: skip


def _json(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


if __name__ == "__main__":
    sys.exit(main())
