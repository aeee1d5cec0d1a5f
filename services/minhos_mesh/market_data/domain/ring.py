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
        self._rows = np.zeros((capacity, TICK_BYTES), np.uint8)
        self._ticks: TickArray = self._rows.reshape(-1).view(TICK)

    @property
    def oldest(self) -> int:
        """Sequence of the oldest tick held; `newest` + 1 when none is."""
        return max(1, self.newest - self.capacity + 1)

    def clear(self) -> None:
        """Forgets all ticks; the next one gets sequence 1."""
        self.newest = 0

    def append(self, ticks: TickArray) -> None:
        """Takes at most `capacity` ticks that carry the tags of the wire; the oldest give way."""
        count = len(ticks)
        if count > self.capacity:
            raise ValueError(f"{count} ticks at once do not fit in a ring of {self.capacity}")
        rows = np.frombuffer(ticks.tobytes(), np.uint8).reshape(count, TICK_BYTES)
        at = self.newest % self.capacity
        head = min(count, self.capacity - at)
        self._rows[at : at + head] = rows[:head]
        if head < count:
            self._rows[: count - head] = rows[head:]
        self.newest += count

    def views(self, first: int, last: int) -> list[TickArray]:
        """The ticks of a range of sequences as one or two views of the ring; IndexError when it is not held whole."""
        if first < self.oldest or last > self.newest or first > last:
            raise IndexError(f"sequences {first}..{last} are not held: held are {self.oldest}..{self.newest}")
        start, stop = (first - 1) % self.capacity, (last - 1) % self.capacity + 1
        if start < stop:
            return [self._ticks[start:stop]]
        return [self._ticks[start:], self._ticks[:stop]]

    def wire(self, first: int, last: int) -> bytes:
        """The ticks of a range of sequences as they stand in a batch; IndexError when it is not held whole."""
        return b"".join(view.tobytes() for view in self.views(first, last))
