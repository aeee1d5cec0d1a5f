"""What an analysis finds and what a decision is made of."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass


class Analysis(enum.Enum):
    """Kind of an analysis."""

    TREND = "TREND"
    MOMENTUM = "MOMENTUM"
    VOLATILITY = "VOLATILITY"
    VOLUME = "VOLUME"
    PATTERN = "PATTERN"


class Action(enum.Enum):
    """What a decision says to do."""

    BUY = "BUY"
    SELL = "SELL"
    HOLD = "HOLD"


@dataclass(frozen=True, slots=True)
class Finding:
    """One finding of one analysis."""

    analysis: Analysis
    code: str
    """Machine-readable, for example `FAST_ABOVE_SLOW`."""
    message: str
    """One sentence with the numbers."""
    score: float
    """Direction and strength, -1 (sell) to 1 (buy)."""
    values: Mapping[str, float]
    """Numbers behind it."""


@dataclass(frozen=True, slots=True)
class MarketView:
    """Everything that is seen in a market at one instant."""

    findings: tuple[Finding, ...]
    """One per analysis."""
    score: float
    """Weighted sum of the scores, -1 to 1."""
    damping: float
    """Factor of the confidence by volatility, 0 to 1."""
    bars_used: int
    """Closed bars behind it."""
    price_e9: int
    """Last price."""
    swing_e9: int
    """Usual range of one bar, in 1e-9 units of price."""
    support_e9: int | None
    """Nearest low of the last bars below the price."""
    resistance_e9: int | None
    """Nearest high of the last bars above the price."""


@dataclass(frozen=True, slots=True)
class Decision:
    """One direction with its confidence."""

    action: Action
    confidence: float
    """0 to 1."""
    target_e9: int | None
    """Where the price is expected to go; None for HOLD."""
    stop_e9: int | None
    """Where the decision would be wrong; None for HOLD."""
    view: MarketView
    """What it was made of, the weightiest finding first."""


class InsufficientData(Exception):
    """Expected: there are too few closed bars to say anything."""

    def __init__(self, symbol: str, bars: int, needed: int) -> None:
        super().__init__(f"{symbol} has {bars} closed bars: {needed} are needed for an analysis")
        self.symbol, self.bars, self.needed = symbol, bars, needed


class StalePrice(Exception):
    """Expected: the newest price is too old to decide on."""

    def __init__(self, symbol: str, age_s: float, allowed_s: float) -> None:
        super().__init__(f"the newest price of {symbol} is {age_s:.1f} s old: at most {allowed_s:g} s is allowed")
        self.symbol, self.age_s, self.allowed_s = symbol, round(age_s, 1), allowed_s
