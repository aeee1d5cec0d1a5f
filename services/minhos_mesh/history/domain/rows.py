"""Decides how kept ticks are put together: in order of generation and sequence, each one once, what was there first stays."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from minhos_mesh.history.domain.generations import Run
from minhos_mesh.runtime.tick_layout import FIELDS, TICK, TICK_BYTES, TickArray, new_ticks
from minhos_mesh.runtime.trading_sessions import DAY_NS

Ints = npt.NDArray[np.int64]
Epochs = npt.NDArray[np.uint64]
Mask = npt.NDArray[np.bool_]

_BYTES = np.dtype(f"V{TICK_BYTES}")
_COMPARED = tuple(name for name, _, _ in FIELDS if name != "receive_time_ns")
"""A source that sends again is received at another time; what it says is the same."""


@dataclass(frozen=True, slots=True)
class Rows:
    """Ticks with their places, as columns of equal length."""

    epoch: Epochs
    sequence: Ints
    ticks: TickArray
    """Structured array with the layout of the wire."""

    @classmethod
    def none(cls) -> Self:
        """No rows."""
        return cls(np.zeros(0, np.uint64), np.zeros(0, np.int64), new_ticks(0))

    @classmethod
    def run(cls, epoch: int, first_sequence: int, ticks: TickArray) -> Self:
        """A contiguous run."""
        sequence = np.arange(first_sequence, first_sequence + len(ticks), dtype=np.int64)
        return cls(np.full(len(ticks), epoch, np.uint64), sequence, ticks)

    def __len__(self) -> int:
        return len(self.sequence)

    def part(self, where: slice | Mask | Ints) -> Rows:
        """Some of them."""
        if isinstance(where, slice):
            return Rows(self.epoch[where], self.sequence[where], self.ticks[where])
        if where.dtype == np.bool_ and where.all():
            return self
        return Rows(self.epoch[where], self.sequence[where], taken(self.ticks, where))

    def days(self) -> Iterator[tuple[int, Rows]]:
        """The rows of each UTC day, counted from 1970, by event time."""
        numbers = self.ticks["event_time_ns"] // DAY_NS
        falls = bool((numbers[1:] < numbers[:-1]).any())
        for number in np.unique(numbers).tolist():
            if falls:
                yield int(number), self.part(numbers == number)
            else:
                begin, end = np.searchsorted(numbers, [number, number + 1]).tolist()
                yield int(number), self.part(slice(begin, end))

    def runs(self) -> list[Run]:
        """The contiguous runs of sequences, in the order in which they stand."""
        found = []
        times = self.ticks["event_time_ns"]
        for begin, end in self.stretches():
            found.append(
                Run(
                    int(self.epoch[begin]),
                    int(self.sequence[begin]),
                    int(self.sequence[end - 1]),
                    int(times[begin]),
                    int(times[end - 1]),
                )
            )
        return found

    def stretches(self) -> list[tuple[int, int]]:
        """Where contiguous runs begin and end (exclusive)."""
        if not len(self):
            return []
        breaks = (np.diff(self.sequence) != 1) | (self.epoch[1:] != self.epoch[:-1])
        cuts = (np.flatnonzero(breaks) + 1).tolist()
        return list(zip([0, *cuts], [*cuts, len(self)], strict=True))


class Digest:
    """A checksum of all values of rows, whatever the file around them looks like and however they were cut."""

    def __init__(self) -> None:
        self._columns = [hashlib.blake2b(digest_size=16) for _ in range(2 + len(FIELDS))]

    def add(self, rows: Rows) -> None:
        """Takes the rows that follow."""
        for hashed, column in zip(self._columns, _columns(rows), strict=True):
            hashed.update(np.ascontiguousarray(column).view(np.uint8).data)

    def text(self) -> str:
        """The checksum of all that was added."""
        return hashlib.blake2b(b"".join(each.digest() for each in self._columns), digest_size=16).hexdigest()


def former_digest(rows: Rows) -> str:
    """The checksum of files of format 1, for which all rows of a day must be in memory."""
    hashed = hashlib.blake2b(digest_size=16)
    for column in _columns(rows):
        hashed.update(np.ascontiguousarray(column).tobytes())
    return hashed.hexdigest()


def _columns(rows: Rows) -> Iterator[npt.NDArray[Any]]:
    yield from (rows.epoch, rows.sequence, *(rows.ticks[name] for name, _, _ in FIELDS))


@dataclass(frozen=True, slots=True)
class Merged:
    """What became of rows that were put to others."""

    rows: Rows
    added: int
    """Rows that were not there before."""
    known: int
    """Rows that were there, and are the same."""
    contradicting: int
    """Rows whose place was taken by something else, which stays."""


def taken(ticks: TickArray, where: Mask | Ints) -> TickArray:
    """Some of these ticks, copied as the bytes that they are: field by field it takes ten times as long."""
    some: TickArray = ticks.view(_BYTES)[where].view(TICK)
    return some


def merged(held: Rows, more: Rows) -> Merged:
    """Puts rows together: generations in order of their first time, then by sequence; of two at one place the held one stays."""
    both = joined([held, more])
    if len(both.stretches()) <= 1:
        return Merged(both, len(more), 0, 0)
    place = np.lexsort((both.sequence, both.epoch))
    epoch, sequence = both.epoch[place], both.sequence[place]
    again = np.zeros(len(place), np.bool_)
    again[1:] = (epoch[1:] == epoch[:-1]) & (sequence[1:] == sequence[:-1])
    kept = place[~again]
    stands_for = kept[np.cumsum(~again) - 1]
    differs = np.zeros(len(place), np.bool_)
    if again.any():
        doubles, originals = taken(both.ticks, place[again]), taken(both.ticks, stands_for[again])
        differs[again] = np.logical_or.reduce([doubles[name] != originals[name] for name in _COMPARED])
    rows = _in_order(both.part(kept))
    contradicting = int(np.count_nonzero(differs))
    added = len(rows) - len(held)
    return Merged(rows, added, len(more) - added - contradicting, contradicting)


def _in_order(rows: Rows) -> Rows:
    """Rows that are in order of epoch and sequence, by the time at which each generation begins."""
    epochs, begins = np.unique(rows.epoch, return_index=True)
    if len(epochs) == 1:
        return rows
    order = np.lexsort((epochs, rows.ticks["event_time_ns"][begins]))
    ends = np.append(begins[1:], len(rows))
    return joined([rows.part(slice(int(begins[at]), int(ends[at]))) for at in order.tolist()])


def joined(parts: Sequence[Rows]) -> Rows:
    """All rows, one part behind the other."""
    parts = [part for part in parts if len(part)]
    if len(parts) == 1:
        return parts[0]
    if not parts:
        return Rows.none()
    wire = b"".join(part.ticks.view(_BYTES).tobytes() for part in parts)
    ticks = np.frombuffer(wire, TICK)
    return Rows(np.concatenate([p.epoch for p in parts]), np.concatenate([p.sequence for p in parts]), ticks)
