"""Random and mutated .scid, .dly and .depth files: no crash, no price that is not in the file, memory that does not grow.

`python -m tests.fuzz.sierra_files --cases 100000` reports cases and counts of each kind; `--seed` repeats a run.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Final

import numpy as np

from minhos_mesh.history.domain.validation import Rules, judge
from minhos_mesh.sierra_files.as_ticks import as_ticks
from minhos_mesh.sierra_files.bundles import bundles
from minhos_mesh.sierra_files.daily import parse_daily
from minhos_mesh.sierra_files.depth import read_depth, write_depth_header
from minhos_mesh.sierra_files.depth_book import LARGEST_BOOK, DepthBook
from minhos_mesh.sierra_files.depth_layout import DEPTH_RECORD, END_OF_BATCH
from minhos_mesh.sierra_files.header import ScidError, write_header
from minhos_mesh.sierra_files.layout import EPOCH_SHIFT_US, MARK_FIRST, MARK_LAST, RECORD
from minhos_mesh.sierra_files.reader import ScidFile
from minhos_mesh.sierra_files.ticks import HAS_PRICE, HAS_TIME, tick_columns

QUARTER_E9: Final = 250_000_000
HEADER: Final = "Date, Open, High, Low, Close, Volume, OpenInterest\n"
SEED: Final = 20_261_123


@dataclass(slots=True)
class Report:
    """What became of the cases of one kind."""

    kind: str
    seed: int
    cases: int = 0
    refused: int = 0
    """Files that are none, told by a named error."""
    read: int = 0
    values: int = 0
    """Records, bars or views that were read of the others, each checked."""
    seconds: float = 0.0
    memory_grew_mb: float = 0.0
    """Largest memory of the process above what it was when a tenth of the cases was done."""
    failures: list[str] = field(default_factory=list)


class Wrong(AssertionError):
    """A file gave what is not in it."""


def _check(holds: object, what: str) -> None:
    if not holds:
        raise Wrong(what)


def mutated(valid: bytes, source: random.Random, keep: int) -> bytes:
    """Random bytes in place of some, cut ends, bytes taken out and put in, doubled pieces, or nothing but noise."""
    if source.random() < 0.05:
        return valid[: source.randrange(keep + 1)] + source.randbytes(source.randrange(400))
    data = bytearray(valid)
    low = 0 if source.random() < 0.3 else keep
    for _ in range(source.randrange(1, 3 + len(valid) // 80)):
        data[source.randrange(low, len(data))] = source.choice((0, 1, 0x7F, 0x80, 0xFF, source.randrange(256)))
    way, at = source.randrange(6), source.randrange(low, len(data))
    if way == 0:
        del data[at:]
    elif way == 1:
        del data[at : at + source.randrange(1, 60)]
    elif way == 2:
        data[at:at] = source.randbytes(source.randrange(1, 60))
    elif way == 3:
        data += data[at : at + source.randrange(1, 200)]
    return bytes(data)


def _valid_scid() -> bytes:
    records, place = np.zeros(50, RECORD), np.arange(50)
    records["time_us"] = EPOCH_SHIFT_US + 1_790_000_000_000_000 + place * 1_000
    records["close"] = records["high"] = 100 + place * 0.25
    records["low"] = records["close"] - np.float32(0.25)
    records["num_trades"], records["total_volume"], records["ask_volume"] = 1, place % 5, place % 5
    records["open"].view("<u4")[[3, 20]] = MARK_FIRST
    records["open"].view("<u4")[[6, 25]] = MARK_LAST
    records["open"][30:] = records["close"][30:]
    records["num_trades"][30:] = 7
    return write_header() + records.tobytes()


def _valid_depth() -> bytes:
    records, place = np.zeros(48, DEPTH_RECORD), np.arange(48)
    records["time_us"] = EPOCH_SHIFT_US + 1_790_000_000_000_000 + place * 1_000
    records["command"] = np.where(place % 16 == 0, 1, place % 8)
    records["flags"] = np.where(place % 4 == 3, END_OF_BATCH, 0)
    records["price"], records["quantity"] = 100 + place % 12 * 0.25, place % 9
    return write_depth_header() + records.tobytes()


_DAYS: Final = "".join(
    f"2026/{month:02}/{day:02}, {price}.25, {price + 3}.5, {price - 2}, {price}.75, {price * 3}, {price}\n"
    for month, day, price in ((1, 5, 90), (1, 6, 1_203), (2, 27, 23_400), (12, 31, 7))
)
VALID: Final = {"scid": _valid_scid(), "depth": _valid_depth(), "dly": (HEADER + _DAYS).encode()}
KEPT: Final = {"scid": 56, "depth": 64, "dly": len(HEADER)}


def _scid(path: Path, _data: bytes) -> int:
    with ScidFile(path) as file:
        _check(file.count() * 40 <= max(0, path.stat().st_size - file.header.size), "more records than bytes")
        pieces = [piece.copy() for piece in file.chunks(7)]
        whole = file.read(0, file.count())
    _check(b"".join(piece.tobytes() for piece in pieces) == whole.tobytes(), "pieces are not the whole")
    columns = tick_columns(whole, QUARTER_E9)
    priced = (columns.flags & HAS_PRICE) != 0
    close = whole["close"][priced]
    away = np.abs(columns.price_e9[priced] / 1e9 - close.astype(np.float64))
    _check((away <= np.maximum(0.5e-9, np.spacing(close))).all(), "a price that is not in the file")
    _check((columns.time_ns[(columns.flags & HAS_TIME) != 0] > 0).all(), "a time before 1970")
    ticks = as_ticks(columns, None)
    verdict = judge(ticks, 0, Rules(tick_e9=QUARTER_E9), time.time_ns())
    good = ticks if verdict.accepted is None else ticks[verdict.accepted]
    _check((good["price_e9"] % QUARTER_E9 == 0).all() and (good["price_e9"] > 0).all(), "a price off the grid accepted")
    _check((np.diff(good["event_time_ns"]) >= 0).all(), "accepted times fall")
    _check(len(good) + sum(verdict.rejected.values()) == len(whole), "read is not accepted plus refused")
    bundles(whole)
    return len(whole)


def _depth(path: Path, _data: bytes) -> int:
    records, book, views = read_depth(path), DepthBook(QUARTER_E9), 0
    told = {round(float(price) * 1e9) for price in records["price"].tolist() if 1e-9 <= price < 9e9}
    for view in book.views(records):
        views += 1
        for level in (*view.bids, *view.asks):
            _check(level.price_e9 > 0, "a level without a price")
            near = min((abs(level.price_e9 - price) for price in told), default=None)
            _check(near is not None and near <= max(1, level.price_e9 >> 22), "a level that is not in the file")
        _check(
            [x.price_e9 for x in view.bids] == sorted((x.price_e9 for x in view.bids), reverse=True), "bids unsorted"
        )
        _check([x.price_e9 for x in view.asks] == sorted(x.price_e9 for x in view.asks), "asks unsorted")
    _check(len(book.bids) + len(book.asks) <= 2 * LARGEST_BOOK, "a book without bound")
    return views


def _daily(path: Path, data: bytes) -> int:
    found, before = parse_daily(data, str(path)), None
    text = data.decode("latin-1").replace("+", "")
    for bar in found.bars:
        _check(before is None or bar.day > before, "days do not rise")
        before = bar.day
        low, high = min(bar.open_e9, bar.close_e9), max(bar.open_e9, bar.close_e9)
        _check(0 < bar.low_e9 <= low <= high <= bar.high_e9, "a bar that is none")
        for price_e9 in (bar.open_e9, bar.high_e9, bar.low_e9, bar.close_e9):
            _check(str(price_e9 // 1_000_000_000) in text, "a price that is not in the file")
    return len(found.bars)


KINDS: Final[dict[str, Callable[[Path, bytes], int]]] = {"scid": _scid, "depth": _depth, "dly": _daily}


def run(kind: str, cases: int, folder: Path, seed: int = SEED) -> Report:
    """Tries so many files of one kind."""
    report, source, begun = Report(kind, seed), random.Random(f"{kind}:{seed}"), time.perf_counter()
    path, first_mb = folder / f"NQZ26-CME.{kind}", _memory_mb()
    for case in range(cases):
        data = mutated(VALID[kind], source, KEPT[kind])
        path.write_bytes(data)
        report.cases += 1
        if case == cases // 10:
            first_mb = _memory_mb()
        try:
            report.values += KINDS[kind](path, data)
            report.read += 1
        except ScidError as error:
            report.refused += 1
            if path.name not in str(error):
                report.failures.append(f"case {case}: an error that does not name the file: {error}")
        except Exception as error:  # noqa: BLE001 - whatever it is, it is what is looked for here
            report.failures.append(f"case {case}: {type(error).__name__}: {error}")
    report.memory_grew_mb = round(_memory_mb() - first_mb, 1)
    report.seconds = round(time.perf_counter() - begun, 1)
    return report


def _memory_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1_000


def main(arguments: Sequence[str]) -> int:
    """Runs all kinds; 1 when a case failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz.sierra_files")
    parser.add_argument("--cases", type=int, default=20_000, help="of each kind")
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--kind", choices=sorted(KINDS), action="append")
    parser.add_argument("--json", type=Path, metavar="FILE")
    asked = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="minhos-fuzz-") as folder:
        reports = [run(kind, asked.cases, Path(folder), asked.seed) for kind in asked.kind or KINDS]
    for report in reports:
        print(
            f"{report.kind:<6} {report.cases:>9,} cases  {report.read:>9,} read  {report.refused:>9,} refused"
            f"  {report.values:>11,} values  memory +{report.memory_grew_mb:g} MB  {report.seconds:g} s"
            f"  {len(report.failures)} failures"
        )
        for failure in report.failures[:10]:
            print(f"  {failure}")
    if asked.json is not None:
        asked.json.write_text(json.dumps([asdict(report) for report in reports], indent=1) + "\n", encoding="utf-8")
    return 1 if any(report.failures for report in reports) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
