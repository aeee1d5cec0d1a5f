"""Decides how findings become one direction with a confidence, a target and a stop, and when it is worth telling."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from minhos_mesh.ai_brain.domain import analyses
from minhos_mesh.ai_brain.domain.findings import Action, Analysis, Decision, Finding, MarketView
from minhos_mesh.ai_brain.domain.indicators import Indicators

WEIGHTS: Final = {
    Analysis.TREND: 0.40,
    Analysis.MOMENTUM: 0.25,
    Analysis.PATTERN: 0.25,
    Analysis.VOLUME: 0.10,
    Analysis.VOLATILITY: 0.0,
}
"""Share of each analysis in the score."""

CLEAR: Final = 0.2
"""A score nearer to 0 is HOLD."""
HIGHEST_CONFIDENCE: Final = 0.95
_STOP_SWINGS, _TARGET_SWINGS = 2, 4
_MIN_STOP_TICKS: Final = 4


@dataclass(frozen=True, slots=True)
class Told:
    """What was last told about a symbol."""

    action: Action
    band: int


def look(indicators: Indicators, price_e9: int) -> MarketView:
    """Everything that is seen with this price as the newest. Call only when the indicators are ready."""
    readings = indicators.read(price_e9)
    trend, momentum = analyses.trend(readings), analyses.momentum(readings)
    pattern = analyses.pattern(readings)
    volatility = analyses.volatility(readings)
    direction = trend.score + momentum.score + pattern.score
    findings = (trend, momentum, pattern, analyses.volume(readings, direction), volatility)
    lows, highs = indicators.levels()
    return MarketView(
        findings=tuple(sorted(findings, key=_weight, reverse=True)),
        score=analyses.clamp(sum(WEIGHTS[finding.analysis] * finding.score for finding in findings)),
        damping={"HIGH": 0.85, "LOW": 0.95}.get(volatility.code, 1.0),
        bars_used=indicators.bars,
        price_e9=price_e9,
        swing_e9=readings.swing_e9,
        support_e9=max((low for low in lows if low < price_e9), default=None),
        resistance_e9=min((high for high in highs if high > price_e9), default=None),
    )


def decide(view: MarketView, tick_e9: int) -> Decision:
    """The direction of the score; confidence grows from 0.5 at no score to 1 at full score, damped and capped."""
    if abs(view.score) < CLEAR:
        return Decision(Action.HOLD, round(1.0 - abs(view.score), 4), None, None, view)
    sign = 1 if view.score > 0 else -1
    confidence = min(HIGHEST_CONFIDENCE, (0.5 + 0.5 * abs(view.score)) * view.damping)
    stop = max(_STOP_SWINGS * view.swing_e9, _MIN_STOP_TICKS * tick_e9)
    return Decision(
        Action.BUY if sign > 0 else Action.SELL,
        round(confidence, 4),
        on_tick(view.price_e9 + sign * max(_TARGET_SWINGS * view.swing_e9, 2 * stop), tick_e9),
        on_tick(view.price_e9 - sign * stop, tick_e9),
        view,
    )


def band(confidence: float, thresholds: tuple[float, ...]) -> int:
    """How many of the rising thresholds the confidence has reached."""
    return sum(confidence >= threshold for threshold in thresholds)


def worth_telling(decision: Decision, last: Told | None, thresholds: tuple[float, ...]) -> Told | None:
    """What is told now, or None: a decision is told when its direction is new or its confidence reaches a higher band.

    Below the first threshold nothing is told, and what was told last still stands: the same direction is not told again
    when it comes back.
    """
    reached = band(decision.confidence, thresholds)
    if decision.action is Action.HOLD or reached == 0:
        return None
    told = Told(decision.action, reached)
    return None if last is not None and last.action is told.action and last.band >= told.band else told


def on_tick(price_e9: int, tick_e9: int) -> int:
    """The nearest price on the tick, half up."""
    return (price_e9 + tick_e9 // 2) // tick_e9 * tick_e9


def _weight(finding: Finding) -> float:
    return abs(WEIGHTS[finding.analysis] * finding.score)
