"""Decides how many ticks of a symbol are held: the newest ones, in a block of memory that never grows."""

from __future__ import annotations

import numpy as np

from minhos_mesh.runtime.tick_layout import TICK, TICK_BYTES, TickArray


class TickRing:
    """The newest `capacity` ticks in the layout of the wire, found by sequence (from 1 without holes)."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.newest = 0
        """Sequence of the newest tick held; 0 when none is."""
        rows = np.zeros(capacity * TICK_BYTES, np.uint8)
        self._memory = rows.data
        self._ticks: TickArray = rows.view(TICK)

    @property
    def oldest(self) -> int:
        """Sequence of the oldest tick held; `newest` + 1 when none is."""
        return max(1, self.newest - self.capacity + 1)

    def clear(self) -> None:
        """Forgets all ticks; the next one gets sequence 1."""
        self.newest = 0

    def append(self, ticks: TickArray) -> None:
        """Takes at most `capacity` ticks that carry the tags of the wire; the oldest give way."""
        self.append_wire(np.ascontiguousarray(ticks).view(np.uint8).data)

    def append_wire(self, wire: bytes | memoryview) -> None:
        """The same for ticks as they stand in a batch."""
        count = len(wire) // TICK_BYTES
        if count > self.capacity:
            raise ValueError(f"{count} ticks at once do not fit in a ring of {self.capacity}")
        start = self.newest % self.capacity * TICK_BYTES
        head = min(len(wire), len(self._memory) - start)
        self._memory[start : start + head] = wire[:head]
        if head < len(wire):
            self._memory[: len(wire) - head] = wire[head:]
        self.newest += count

    def append_one(self, wire: bytes) -> None:
        """The same for one tick."""
        start = self.newest % self.capacity * TICK_BYTES
        self._memory[start : start + TICK_BYTES] = wire
        self.newest += 1

    def views(self, first: int, last: int) -> list[TickArray]:
        """The ticks of a range of sequences as one or two views of the ring; IndexError when it is not held whole."""
        start, stop = self._places(first, last)
        if start < stop:
            return [self._ticks[start:stop]]
        return [self._ticks[start:], self._ticks[:stop]]

    def _places(self, first: int, last: int) -> tuple[int, int]:
        if first < self.oldest or last > self.newest or first > last:
            raise IndexError(f"sequences {first}..{last} are not held: held are {self.oldest}..{self.newest}")
        return (first - 1) % self.capacity, (last - 1) % self.capacity + 1

    def parts(self, first: int, last: int) -> tuple[memoryview, ...]:
        """The same as `wire` without a copy, in one or two parts; what is held when they are read is what counts."""
        start, stop = self._places(first, last)
        if start < stop:
            return (self._memory[start * TICK_BYTES : stop * TICK_BYTES],)
        return (self._memory[start * TICK_BYTES :], self._memory[: stop * TICK_BYTES])

    def wire(self, first: int, last: int) -> bytes:
        """The ticks of a range of sequences as they stand in a batch; IndexError when it is not held whole."""
        start, stop = self._places(first, last)
        if start < stop:
            return bytes(self._memory[start * TICK_BYTES : stop * TICK_BYTES])
        return b"".join((self._memory[start * TICK_BYTES :], self._memory[: stop * TICK_BYTES]))
