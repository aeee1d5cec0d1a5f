"""Decides what the simulator may be told: which market or recording, how fast, and where to write."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from minhos_mesh.runtime.instruments import DEFAULT_INSTRUMENTS, InstrumentSpec
from minhos_mesh.runtime.money import E9
from minhos_mesh.sierra_simulator.domain.feeds import FeedKind, check_rate
from minhos_mesh.sierra_simulator.domain.gaps import Gap

START_PRICES_E9: Mapping[str, int] = {
    "NQ": 23_500 * E9,
    "MNQ": 23_500 * E9,
    "ES": 6_500 * E9,
    "MES": 6_500 * E9,
    "YM": 46_000 * E9,
    "RTY": 2_400 * E9,
    "VIX": 17 * E9,
}
"""Where a simulated market begins, by root, in 1e-9 units; invented, like all that follows from it."""

DEFAULT_ROOT = "NQ"
DAY_S = 86_400


class SettingsRefused(ValueError):
    """Expected: a setting of the simulator is wrong; the text names it, what was seen and what is allowed."""


@dataclass(frozen=True, slots=True)
class SimulatorSettings:
    """What the simulator writes; checked when it is made. Raises SettingsRefused."""

    folder: Path
    """Folder of the growing files."""
    feed: FeedKind = FeedKind.RANDOM_WALK
    symbol: str | None = None
    """Canonical symbol of the random walk; None is the contract of `root` that is current when the simulator starts."""
    root: str = DEFAULT_ROOT
    seed: int = 1
    ticks_per_s: float = 10.0
    """Trades a second of the random walk while it is live."""
    history_s: int = DAY_S
    """Seconds of history that are written before the live part."""
    history_gap_s: float = 2.0
    """Mean seconds between two trades of the history."""
    start_price_e9: int | None = None
    """Price at which the history of a new market begins; None takes the root's default."""
    replay_file: Path | None = None
    """Recording to replay; needed by REPLAY."""
    replay_speed: float = 0.0
    """Times faster than it happened; 0 is as fast as it can be."""
    passes: int = 1
    """How often a recording is played; 0 is for ever."""
    gaps: Sequence[Gap] = ()
    """Times in which nothing is written."""
    depth_levels: int = 0
    """Levels of each side of the order book of a random walk; 0 writes none."""
    keep_depth_days: int = 2
    run_id: str = ""
    """Names the run of the mesh: another run replays its recording from the beginning; a walk goes on in any run."""
    instruments: Mapping[str, InstrumentSpec] = field(default_factory=lambda: DEFAULT_INSTRUMENTS)

    def __post_init__(self) -> None:
        """Checks every value."""
        if self.seed < 0:
            raise SettingsRefused(f"seed is {self.seed}: allowed is 0 or more")
        try:
            check_rate(self.ticks_per_s)
        except ValueError as error:
            raise SettingsRefused(str(error)) from None
        if not 0 <= self.history_s <= 30 * DAY_S:
            raise SettingsRefused(f"history_s is {self.history_s}: allowed is 0 to {30 * DAY_S}")
        if not 0.01 <= self.history_gap_s <= 3600:
            raise SettingsRefused(f"history_gap_s is {self.history_gap_s:g}: allowed is 0.01 to 3600")
        if not 0 <= self.replay_speed <= 1_000_000:
            raise SettingsRefused(f"replay_speed is {self.replay_speed:g}: allowed is 0 (at once) to 1000000")
        if not 0 <= self.depth_levels <= 50:
            raise SettingsRefused(f"depth_levels is {self.depth_levels}: allowed is 0 to 50")
        if self.passes == 0 and self.replay_speed == 0:
            raise SettingsRefused("loops is 0 and speed is max: a recording that is played for ever needs a speed")
        if self.feed is FeedKind.REPLAY and self.replay_file is None:
            raise SettingsRefused("feed is REPLAY and replay_file is not set: name the .scid file to replay")
