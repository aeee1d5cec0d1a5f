"""Decides what each of the five analyses finds in the readings, in a sentence, a number and a direction."""

from __future__ import annotations

from minhos_mesh.ai_brain.domain.findings import Analysis, Finding
from minhos_mesh.ai_brain.domain.indicators import E9, Readings

STRETCHED_HIGH, STRETCHED_LOW = 88.0, 12.0
"""RSI beyond which a move counts as exhausted and speaks no longer for itself."""


def clamp(value: float, low: float = -1.0, high: float = 1.0) -> float:
    """The value, or the bound that it passes."""
    return max(low, min(high, value))


def trend(readings: Readings) -> Finding:
    """Distance of the fast from the slow average, in deviations of one bar: one whole deviation is full strength."""
    distance = readings.fast - readings.slow
    unit = readings.deviation or readings.usual_deviation
    score = clamp(distance / unit) if unit > 0 else 0.0
    code = "FAST_ABOVE_SLOW" if score > 0 else "FAST_BELOW_SLOW" if score < 0 else "FLAT"
    side = "above" if distance >= 0 else "below"
    return Finding(
        Analysis.TREND,
        code,
        f"fast average {readings.fast:.2f} is {abs(distance):.2f} {side} the slow one at {readings.slow:.2f}",
        score,
        {"fast": readings.fast, "slow": readings.slow, "distance": distance, "deviation": unit},
    )


def momentum(readings: Readings) -> Finding:
    """RSI around 50: 20 points away is full strength; a stretched market speaks against going on."""
    rsi = readings.rsi
    if rsi >= STRETCHED_HIGH:
        code, score = "OVERBOUGHT", -0.25
    elif rsi <= STRETCHED_LOW:
        code, score = "OVERSOLD", 0.25
    else:
        score = clamp((rsi - 50.0) / 20.0)
        code = "RISING" if score > 0 else "FALLING" if score < 0 else "NEUTRAL"
    return Finding(Analysis.MOMENTUM, code, f"RSI is {rsi:.1f}", score, {"rsi": rsi})


def volatility(readings: Readings) -> Finding:
    """Deviation of changes against what is usual; it has no direction and damps the confidence."""
    ratio = readings.deviation / readings.usual_deviation if readings.usual_deviation > 0 else 1.0
    code = "HIGH" if ratio > 1.8 else "LOW" if ratio < 0.6 else "USUAL"
    return Finding(
        Analysis.VOLATILITY,
        code,
        f"prices move {ratio:.2f} times as much as usual ({readings.deviation:.2f} points a bar)",
        0.0,
        {"deviation": readings.deviation, "ratio": ratio},
    )


def volume(readings: Readings, direction: float) -> Finding:
    """Contracts of the last bar against their mean: more than usual speaks for the direction, less against it."""
    ratio = readings.volume / readings.usual_volume if readings.usual_volume > 0 else 1.0
    strength = clamp((ratio - 0.8) / 0.8, -0.5, 1.0)
    sign = (direction > 0) - (direction < 0)
    code = "RISING" if ratio > 1.2 else "FALLING" if ratio < 0.8 else "USUAL"
    return Finding(
        Analysis.VOLUME,
        code,
        f"the last bar traded {readings.volume} contracts, {ratio:.2f} times as many as usual",
        sign * strength,
        {"volume": float(readings.volume), "ratio": ratio},
    )


def pattern(readings: Readings) -> Finding:
    """Where the price stands in the range of the last bars; beyond it is a breakout."""
    high, low, price = readings.highest_e9, readings.lowest_e9, readings.price_e9
    if price > high:
        return _breakout("BREAKOUT", "above the high", high, readings, 1.0)
    if price < low:
        return _breakout("BREAKDOWN", "below the low", low, readings, -1.0)
    place = (price - low) / (high - low) if high > low else 0.5
    return Finding(
        Analysis.PATTERN,
        "IN_RANGE",
        f"price stands at {place:.0%} of the range {low / E9:.2f} to {high / E9:.2f}",
        clamp((place - 0.5) * 1.6),
        {"place": place, "high": high / E9, "low": low / E9},
    )


def _breakout(code: str, where: str, level_e9: int, readings: Readings, score: float) -> Finding:
    return Finding(
        Analysis.PATTERN,
        code,
        f"price {readings.price_e9 / E9:.2f} is {where} {level_e9 / E9:.2f} of the last bars",
        score,
        {"level": level_e9 / E9, "price": readings.price_e9 / E9},
    )
