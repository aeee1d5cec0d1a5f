"""A short recording of our own: hours of a market that swings, with some records that no market makes."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import numpy as np

from minhos_mesh.sierra_files.layout import EPOCH_SHIFT_US, Records, empty_records
from minhos_mesh.sierra_files.writer import ScidWriter

NAME: Final = "MNQZ26-CME.scid"
START: Final = datetime(2026, 10, 5, 14, 0, tzinfo=UTC)
MINUTES: Final = 180
PER_MINUTE: Final = 12
TRADES: Final = MINUTES * PER_MINUTE
BAD: Final = {"a price of nothing": 700, "a price between two ticks": 1_400}
"""Records that hold no tick, by what is wrong with them."""
_TICK: Final = 0.25
_SWING_MINUTES: Final = 40


def make_recording(folder: Path) -> Path:
    """Writes the recording; every call writes the same bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / NAME
    ScidWriter.create(path, market()).close()
    return path


def market() -> Records:
    """One trade every five seconds along a sine with noise."""
    noise = np.random.default_rng(7)
    at = np.arange(TRADES) * (60.0 / PER_MINUTE)
    wave = 20_000 + 80 * np.sin(2 * np.pi * at / 60 / _SWING_MINUTES) + noise.normal(0, 1.5, TRADES)
    price = np.round(wave / _TICK) * _TICK
    buys = noise.random(TRADES) < 0.5
    made = empty_records(TRADES)
    made["time_us"] = EPOCH_SHIFT_US + int(START.timestamp() * 1e6) + (at * 1e6).astype(np.int64) + 1_000
    made["close"] = price
    made["low"], made["high"] = np.where(buys, price - _TICK, price), np.where(buys, price, price + _TICK)
    made["num_trades"] = 1
    made["total_volume"] = noise.integers(1, 9, TRADES)
    made["ask_volume"] = np.where(buys, made["total_volume"], 0)
    made["bid_volume"] = np.where(buys, 0, made["total_volume"])
    made["close"][BAD["a price of nothing"]] = 0
    made["close"][BAD["a price between two ticks"]] += 0.1
    return made
