"""Measures how fast a .scid file of 1 GB is read, from memory and from disk, each time in a process of its own."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import numpy as np
from tests.one_service import path_of_code
from tests.performance.mesh_run import MeshFailed
from tests.performance.results import Metric, Reach, Settings

from minhos_mesh.sierra_files.as_ticks import as_ticks
from minhos_mesh.sierra_files.header import write_header
from minhos_mesh.sierra_files.layout import EPOCH_SHIFT_US, HEADER_SIZE, RECORD, Records
from minhos_mesh.sierra_files.reader import ScidFile, read_scid
from minhos_mesh.sierra_files.ticks import tick_columns

RECORDS: Final = 25 * (1 << 20)
"""1.05 GB."""
BLOCK: Final = 1 << 20
DECODED: Final = 32_768
"""Records that are turned into ticks at once, as `minhos data import` does."""
TICK_E9: Final = 250_000_000
START_US: Final = EPOCH_SHIFT_US + 1_780_000_000_000_000
REFERENCE: Final = "numpy.fromfile"


def trades(count: int, seed: int = 5) -> Records:
    """Single trades with their quotes around a price that wanders; times begin at 0."""
    random = np.random.default_rng(seed)
    records = np.zeros(count, RECORD)
    price = (94_000 + np.cumsum(random.integers(-1, 2, count))) / 4
    records["close"] = price
    records["low"], records["high"] = price - 0.25, price
    records["num_trades"] = 1
    records["total_volume"] = random.integers(1, 9, count)
    sold = random.integers(0, 2, count, np.uint32)
    records["bid_volume"] = records["total_volume"] * sold
    records["ask_volume"] = records["total_volume"] - records["bid_volume"]
    records["time_us"] = np.cumsum(random.integers(1, 900, count))
    return records


def write_file(path: Path) -> None:
    """The file that is read."""
    block = trades(BLOCK)
    length_us = int(block["time_us"][-1])
    block["time_us"] += START_US
    with path.open("wb") as file:
        file.write(write_header())
        for _ in range(RECORDS // BLOCK):
            file.write(block.tobytes())
            block["time_us"] += length_us
        file.flush()
        os.fsync(file.fileno())


def _in_pieces(path: Path) -> int:
    with ScidFile(path) as file:
        return sum(len(piece) for piece in file.chunks())


def _decoded(path: Path) -> int:
    with ScidFile(path) as file:
        return sum(len(as_ticks(tick_columns(piece, TICK_E9), None)) for piece in file.chunks(DECODED))


def _new_memory(path: Path) -> int:
    touched = np.empty(path.stat().st_size - HEADER_SIZE, np.uint8)
    touched[:] = 1
    return len(touched) // RECORD.itemsize


WAYS: Final[dict[str, Callable[[Path], int]]] = {
    "pieces": _in_pieces,
    "whole": lambda path: len(read_scid(path)),
    "fromfile": lambda path: len(np.fromfile(path, RECORD, offset=HEADER_SIZE)),
    "decoded": _decoded,
    "memory": _new_memory,
}


async def read(settings: Settings) -> Sequence[Metric]:
    """Every way once a round, from memory and from disk; who is first changes from round to round."""
    path = settings.folder / "NQZ26-CME.scid"
    write_file(path)
    seen: dict[tuple[str, str], list[float]] = {}
    orders = [(way, place) for place in ("memory", "disk") for way in WAYS]
    for number in range(settings.rounds):
        for way, place in orders[::-1] if number % 2 else orders:
            seen.setdefault((way, place), []).append(await _timed(way, path, place))
        settings.say(f"round {number + 1}: " + ", ".join(f"{w} ({p}) {v[-1]:.0f}" for (w, p), v in seen.items()))
    path.unlink()
    return _metrics(seen)


async def _timed(way: str, path: Path, place: str) -> float:
    """Millions of records a second, in a process that has done nothing else."""
    child = await asyncio.create_subprocess_exec(
        sys.executable, str(Path(__file__)), way, str(path), place, stdout=asyncio.subprocess.PIPE, env=path_of_code()
    )
    said, _ = await child.communicate()
    if child.returncode != 0:
        raise MeshFailed(f"reading by {way!r} ended with {child.returncode}")
    told = json.loads(said)
    if told["records"] != RECORDS:
        raise MeshFailed(f"reading by {way!r} gave {told['records']} of {RECORDS} records")
    return RECORDS / float(told["seconds"]) / 1e6


def _metrics(seen: dict[tuple[str, str], list[float]]) -> list[Metric]:
    unit, reach, found = "M records/s", Reach(20.0, at_most=False), []
    for place in ("memory", "disk"):
        fromfile = f"{REFERENCE} of the whole file, from {place}", seen["fromfile", place]
        found.append(Metric(f"read in pieces, from {place}", unit, seen["pieces", place], *fromfile, reach))
        found.append(Metric(f"read into one array, from {place}", unit, seen["whole", place], *fromfile))
        found.append(Metric(f"read and turned into ticks, from {place}", unit, seen["decoded", place], *fromfile))
    found.append(Metric("the same bytes of memory, touched for the first time", unit, seen["memory", "memory"]))
    return found


def _main(way: str, path: Path, place: str) -> None:
    with path.open("rb") as file:
        if place == "disk":
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        else:
            while file.read(1 << 20):
                pass
    begun = time.perf_counter()
    records = WAYS[way](path)
    print(json.dumps({"seconds": time.perf_counter() - begun, "records": records}))


if __name__ == "__main__":
    _main(sys.argv[1], Path(sys.argv[2]), sys.argv[3])
