"""Decides which records a feed writes by now: a random walk at a rate, or a recording at a speed."""

from __future__ import annotations

import enum
from typing import Protocol

import numpy as np

from minhos_mesh.sierra_files.layout import Records, empty_records
from minhos_mesh.sierra_simulator.domain.recording import Recording
from minhos_mesh.sierra_simulator.domain.walk import RandomWalk, WalkBlock, WalkState

CHUNK = 4096
"""Most records that are written at once."""

SLOWEST_TICKS_PER_S = 0.1
FASTEST_TICKS_PER_S = 10_000.0


class FeedKind(enum.Enum):
    """What a simulator writes."""

    RANDOM_WALK = "RANDOM_WALK"
    REPLAY = "REPLAY"


class SpeedRefused(ValueError):
    """Expected: a speed outside of what the feed allows; the text names both."""

    field = "speed"
    """Field of the request that is about it."""

    def __init__(self, speed: float, what: str, allowed: str) -> None:
        self.seen, self.allowed = f"{speed:g}", allowed
        super().__init__(f"speed {speed:g} is refused: {what} has {allowed}")


class Feed(Protocol):
    """What the simulator asks of a feed. Times are wall-clock nanoseconds since the Unix epoch."""

    @property
    def kind(self) -> FeedKind:
        """What it is."""

    @property
    def speed(self) -> float:
        """Ticks a second of a random walk; of a recording, how many times faster than it happened (0 = at once)."""

    @property
    def total(self) -> int | None:
        """Records of the recording; None for a feed without end."""

    def due(self, now_ns: int) -> Records:
        """The next records that are due, at most CHUNK; each record once."""

    def next_due_ns(self, now_ns: int) -> int | None:
        """When the next record is due (now or earlier: at once); None when the feed has ended."""

    def set_speed(self, speed: float, now_ns: int) -> None:
        """Changes the speed from now on. Raises SpeedRefused."""

    def resume(self, now_ns: int) -> None:
        """Goes on from now after a pause, without making up for it."""

    def seek(self, index: int, now_ns: int) -> None:
        """Goes on behind the first `index` records of the file, where it is a recording; a random walk knows no way back."""


def check_rate(ticks_per_s: float) -> None:
    """Raises SpeedRefused unless a random walk may have this rate."""
    if not SLOWEST_TICKS_PER_S <= ticks_per_s <= FASTEST_TICKS_PER_S:
        allowed = f"{SLOWEST_TICKS_PER_S:g} to {FASTEST_TICKS_PER_S:g} ticks a second"
        raise SpeedRefused(ticks_per_s, "a random walk", allowed)


class RandomWalkFeed:
    """A random walk in wall-clock time."""

    kind = FeedKind.RANDOM_WALK
    total: int | None = None

    def __init__(self, walk: RandomWalk, state: WalkState, ticks_per_s: float) -> None:
        """Continues a walk from a state. Raises SpeedRefused."""
        check_rate(ticks_per_s)
        self._walk = walk
        self._speed = ticks_per_s
        self._taken = 0
        self._start(state)

    @property
    def speed(self) -> float:
        """Ticks a second."""
        return self._speed

    def due(self, now_ns: int) -> Records:
        """Records up to now, at most CHUNK."""
        ready: list[Records] = []
        room = CHUNK
        while room > 0:
            last = int(np.searchsorted(self._block.times_us, now_ns // 1000, side="right"))
            until = min(last, self._taken + room)
            if until > self._taken:
                ready.append(self._block.records[self._taken : until])
                room -= until - self._taken
                self._taken = until
            if self._taken < len(self._block.records):
                break
            self._start(self._block.end)
        return np.concatenate(ready) if ready else empty_records(0)

    def next_due_ns(self, now_ns: int) -> int | None:
        """Time of the next trade."""
        return int(self._block.times_us[self._taken]) * 1000

    def set_speed(self, speed: float, now_ns: int) -> None:
        """Changes the rate from the last trade on. Raises SpeedRefused."""
        check_rate(speed)
        self._speed = speed
        self.resume(now_ns)

    def resume(self, now_ns: int) -> None:
        """Goes on from now; the price stands where it was."""
        state = self._block.state_after(self._taken, self._before)
        now_us = max(now_ns // 1000, state.time_us)
        self._start(WalkState(now_us, state.stamp_us, state.mid_ticks, state.block))

    def seek(self, index: int, now_ns: int) -> None:
        """Changes nothing: what was written is gone."""

    def _start(self, state: WalkState) -> None:
        self._before = state
        self._block: WalkBlock = self._walk.draw(state, 1e6 / self._speed)
        self._taken = 0


class ReplayFeed:
    """A recording, its times kept as they are."""

    kind = FeedKind.REPLAY

    def __init__(self, recording: Recording, speed: float, start_index: int, now_ns: int) -> None:
        """Replays from an index on; `speed` 0 is as fast as it can be. Raises SpeedRefused."""
        self._recording = recording
        self._index = start_index
        self._speed = 0.0
        self.set_speed(speed, now_ns)

    @property
    def speed(self) -> float:
        """Times faster than it happened; 0 is as fast as it can be."""
        return self._speed

    @property
    def total(self) -> int | None:
        """Records of all passes of the recording; None when they never end."""
        return self._recording.total

    def due(self, now_ns: int) -> Records:
        """Records whose time has come, at most CHUNK and of one pass; a new pass begins at once."""
        found = self._recording.read(self._index, CHUNK)
        if self._speed > 0:
            limit_us = self._event_zero_us + (now_ns - self._wall_zero_ns) / 1000 * self._speed
            found = found[: int(np.searchsorted(found["time_us"], limit_us, side="right"))]
        self._index += len(found)
        if len(found) and self._recording.begins_pass(self._index):
            self.resume(now_ns)
        return found

    def next_due_ns(self, now_ns: int) -> int | None:
        """When the next record's time comes; now when there is no pace."""
        if self.total is not None and self._index >= self.total:
            return None
        if self._speed <= 0:
            return now_ns
        ahead_us = self._recording.time_us(self._index) - self._event_zero_us
        return self._wall_zero_ns + int(ahead_us * 1000 / self._speed) + 1

    def set_speed(self, speed: float, now_ns: int) -> None:
        """Changes the speed from the next record on. Raises SpeedRefused."""
        if not 0 <= speed <= 1_000_000:
            raise SpeedRefused(speed, "a replay", "0 (as fast as it can be) to 1000000")
        if speed == 0 and self.total is None:
            raise SpeedRefused(speed, "a recording that is played for ever", "more than 0 to 1000000")
        self._speed = speed
        self.resume(now_ns)

    def resume(self, now_ns: int) -> None:
        """Goes on from now with the next record."""
        self._wall_zero_ns = now_ns
        self._event_zero_us = self._recording.time_us(self._index)

    def seek(self, index: int, now_ns: int) -> None:
        """Goes on behind the first `index` records."""
        self._index = index
        self.resume(now_ns)
