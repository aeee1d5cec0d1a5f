"""Numbers of the findings against a computation from the definitions."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from minhos_mesh.ai_brain.domain import analyses
from minhos_mesh.ai_brain.domain.decide import WEIGHTS, look
from minhos_mesh.ai_brain.domain.findings import Analysis, Finding
from minhos_mesh.ai_brain.domain.indicators import E9, Indicators, Periods, Readings, Span
from minhos_mesh.runtime.bars import BarBuilder
from minhos_mesh.runtime.tick_layout import TickArray

Walk = Callable[..., TickArray]
POINT = 1_000_000_000


def spans(ticks: TickArray) -> list[Span]:
    bars = BarBuilder().add(ticks, 1)
    return [Span(bar.high_e9, bar.low_e9, bar.close_e9, bar.volume) for bar in bars]


def fed(closed: list[Span], periods: Periods) -> Indicators:
    made = Indicators(periods)
    for span in closed:
        made.close_bar(span)
    return made


def wilder_rsi(closes: list[float], period: int) -> float:
    """New Concepts in Technical Trading Systems (1978): mean of the first changes, then smoothed by 1/period."""
    changes = np.diff(closes)
    gains, losses = np.maximum(changes, 0), np.maximum(-changes, 0)
    gain, loss = gains[:period].mean(), losses[:period].mean()
    for up, down in zip(gains[period:], losses[period:], strict=True):
        gain, loss = (gain * (period - 1) + up) / period, (loss * (period - 1) + down) / period
    return 100.0 if loss == 0 else float(100 - 100 / (1 + gain / loss))


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_readings_agree_with_their_definitions(walk: Walk, seed: int) -> None:
    periods = Periods(fast=5, slow=20, rsi=14, volatility=20, volume=12, pattern=16)
    closed = spans(walk(18_000, seed))
    price_e9 = closed[-1].close_e9 + 3 * POINT
    made = fed(closed, periods)
    for asked in (closed[-1].high_e9, closed[-1].low_e9):
        made.read(asked)
    readings = made.read(price_e9)
    closes = [span.close_e9 / E9 for span in closed] + [price_e9 / E9]
    assert readings.fast == pytest.approx(statistics.fmean(closes[-5:]))
    assert readings.slow == pytest.approx(statistics.fmean(closes[-20:]))
    assert len(closed) > 400
    assert readings.rsi == pytest.approx(wilder_rsi(closes, 14), abs=1e-6)
    assert readings.deviation == pytest.approx(statistics.pstdev(np.diff(closes)[-20:]))
    assert readings.volume == closed[-1].volume
    assert readings.usual_volume == pytest.approx(statistics.fmean(span.volume for span in closed[-12:]))
    assert readings.highest_e9 == max(span.high_e9 for span in closed[-16:])
    assert readings.lowest_e9 == min(span.low_e9 for span in closed[-16:])
    assert readings.swing_e9 == sum(span.high_e9 - span.low_e9 for span in closed[-16:]) // 16


def test_asking_changes_nothing_of_what_a_later_bar_finds(walk: Walk) -> None:
    closed = spans(walk(6_000))
    asked, quiet = Indicators(Periods()), Indicators(Periods())
    for span in closed:
        if asked.ready:
            asked.read(span.high_e9)
            asked.read(span.low_e9)
        asked.close_bar(span)
        quiet.close_bar(span)
    assert asked.read(closed[-1].close_e9) == quiet.read(closed[-1].close_e9)


def test_memory_is_bounded(walk: Walk) -> None:
    closed = spans(walk(3_000)) * 60
    made = fed(closed, Periods())
    assert made.bars == len(closed) > 5_000
    for indicator in (made._fast, made._slow, made._rsi, made._deviation):
        assert len(indicator.input_values) <= 1_025
        assert len(indicator.output_values) <= 1_025
    assert len(made._rsi.avg_gain) <= 1_030
    assert len(made._deviations) <= 512
    assert len(made._spans) <= 20


def test_letting_go_of_old_values_does_not_touch_long_averages(walk: Walk) -> None:
    closed = spans(walk(3_000)) * 50
    made = fed(closed, Periods(slow=1_200, pattern=20))
    for last in (3_000, 3_600, 4_000, len(closed)):
        made = fed(closed[:last], Periods(slow=1_200, pattern=20))
        readings = made.read(closed[last - 1].close_e9)
        closes = [span.close_e9 / E9 for span in closed[:last]] + [closed[last - 1].close_e9 / E9]
        assert readings.slow == pytest.approx(statistics.fmean(closes[-1_200:]))


def readings(**changed: float) -> Readings:
    values: dict[str, Any] = {
        "fast": 100.0, "slow": 100.0, "rsi": 50.0, "deviation": 2.0, "usual_deviation": 2.0, "volume": 100,
        "usual_volume": 100.0, "highest_e9": 110 * POINT, "lowest_e9": 90 * POINT, "swing_e9": 4 * POINT,
        "price_e9": 100 * POINT,
    }  # fmt: skip
    return Readings(**{**values, **changed})


@pytest.mark.parametrize(
    ("finding", "code", "score"),
    [
        (analyses.trend(readings(fast=101.0)), "FAST_ABOVE_SLOW", 0.5),
        (analyses.trend(readings(fast=90.0)), "FAST_BELOW_SLOW", -1.0),
        (analyses.trend(readings(deviation=0.0, usual_deviation=0.0, fast=101.0)), "FLAT", 0.0),
        (analyses.momentum(readings(rsi=60.0)), "RISING", 0.5),
        (analyses.momentum(readings(rsi=25.0)), "FALLING", -1.0),
        (analyses.momentum(readings(rsi=50.0)), "NEUTRAL", 0.0),
        (analyses.momentum(readings(rsi=93.0)), "OVERBOUGHT", -0.25),
        (analyses.momentum(readings(rsi=5.0)), "OVERSOLD", 0.25),
        (analyses.volatility(readings(deviation=4.0)), "HIGH", 0.0),
        (analyses.volatility(readings(deviation=1.0)), "LOW", 0.0),
        (analyses.volatility(readings()), "USUAL", 0.0),
        (analyses.volume(readings(volume=160), 0.7), "RISING", 1.0),
        (analyses.volume(readings(volume=160), -0.7), "RISING", -1.0),
        (analyses.volume(readings(volume=40), 0.7), "FALLING", -0.5),
        (analyses.volume(readings(usual_volume=0.0, volume=0), 0.0), "USUAL", 0.0),
        (analyses.pattern(readings(price_e9=111 * POINT)), "BREAKOUT", 1.0),
        (analyses.pattern(readings(price_e9=89 * POINT)), "BREAKDOWN", -1.0),
        (analyses.pattern(readings(price_e9=105 * POINT)), "IN_RANGE", 0.4),
        (analyses.pattern(readings(highest_e9=100 * POINT, lowest_e9=100 * POINT)), "IN_RANGE", 0.0),
    ],
)
def test_each_finding_has_its_code_and_score(finding: Finding, code: str, score: float) -> None:
    assert finding.code == code
    assert finding.score == pytest.approx(score)
    assert finding.message


def test_support_and_resistance_are_the_nearest_turns_around_the_price() -> None:
    lows = [100, 96, 100, 94, 100, 98, 100, 99]
    closed = [Span((low + 6) * POINT, low * POINT, (low + 3) * POINT, 10) for low in lows * 4]
    made = fed(closed, Periods(pattern=20))
    seen = look(made, 100 * POINT)
    assert seen.support_e9 == 99 * POINT
    assert seen.resistance_e9 == 106 * POINT
    far_above = look(made, 200 * POINT)
    assert (far_above.support_e9, far_above.resistance_e9) == (99 * POINT, None)
    assert {finding.analysis for finding in seen.findings} == set(Analysis)
    assert seen.score == pytest.approx(sum(_share(finding) for finding in seen.findings))


def _share(finding: Finding) -> float:
    return WEIGHTS[finding.analysis] * finding.score
