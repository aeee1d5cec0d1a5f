"""Decides how numbers of the wire become exact prices, quantities and times, and the other way round."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Final

from minhos_mesh.dtc.errors import ValueUnreadable
from minhos_mesh.runtime.money import E9, LARGEST_PRICE_E9, format_e9

LARGEST_QUANTITY: Final = 1_000_000_000
"""Contracts; a quantity beyond it is none."""

_GRID_TOLERANCE: Final = Fraction(1, 20)
"""Part of a tick by which a number may be off and still be that tick; single precision needs the most of it."""
_POWER_TOLERANCE: Final = 1e-5
_PLAUSIBLE: Final = 2
_NS_LIMIT: Final = 9_000_000_000_000_000_000


@dataclass(frozen=True, slots=True)
class PriceScale:
    """How an instrument's prices stand on the wire."""

    tick_e9: int
    """Price step in 1e-9 units."""
    multiplier: Fraction = Fraction(1)
    """DisplayPriceMultiplier, exact: with it unscaled prices become those that people see."""

    def __post_init__(self) -> None:
        if self.tick_e9 < 1 or self.multiplier <= 0:
            raise ValueError(f"tick_e9 is {self.tick_e9} and multiplier {self.multiplier}: allowed is above 0")


@dataclass(frozen=True, slots=True)
class WirePrice:
    """A price as it was received."""

    price_e9: int
    """In 1e-9 units; a whole number of ticks when on_grid."""
    on_grid: bool
    """False for a price between two ticks, which stands as it came, rounded to 1e-9."""


def exact_multiplier(raw: float | None) -> Fraction:
    """The exact factor behind a DisplayPriceMultiplier of single precision: a power of ten, or a short fraction.

    Unset and 0 are 1. Raises ValueUnreadable for a number that is no factor.
    """
    if raw is None or raw == 0:
        return Fraction(1)
    if not (math.isfinite(raw) and 1e-9 <= raw <= 1e9):
        raise ValueUnreadable("DisplayPriceMultiplier", raw, "0.000000001 to 1000000000")
    power = round(math.log10(raw))
    exact = Fraction(10) ** power
    if abs(Fraction(raw) / exact - 1) < _POWER_TOLERANCE:
        return exact
    return Fraction(raw).limit_denominator(100_000)


def tick_of(min_price_increment: float | None, multiplier: Fraction = Fraction(1)) -> int | None:
    """The tick in 1e-9 units from a MinPriceIncrement of single precision; None when the server does not know it."""
    if min_price_increment is None or not (1e-9 <= min_price_increment <= 1e6):
        return None
    exact = Fraction(min_price_increment).limit_denominator(1_000_000) * multiplier * E9
    return int(exact) if exact.denominator == 1 and exact > 0 else None


def wire_price(raw: float | None, scale: PriceScale, member: str, *, scaled: bool = True) -> WirePrice | None:
    """A price exactly in 1e-9 units; None when unset. `scaled` False: it still needs the instrument's multiplier.

    A number that single or double precision cannot tell from a whole number of ticks is that number of ticks. Raises
    ValueUnreadable for what is no price at all.
    """
    if raw is None:
        return None
    if not math.isfinite(raw) or abs(raw) > 1e18:
        raise ValueUnreadable(member, raw, f"a price up to {format_e9(LARGEST_PRICE_E9)}")
    steps = round(raw * E9 / scale.tick_e9)
    if (scaled or scale.multiplier == 1) and steps * scale.tick_e9 / E9 == raw and abs(raw) * E9 <= LARGEST_PRICE_E9:
        return WirePrice(steps * scale.tick_e9, on_grid=True)  # The double nearest to that price: nothing to weigh.
    exact = Fraction(raw) * E9 * (1 if scaled else scale.multiplier)
    if abs(exact) > LARGEST_PRICE_E9:
        raise ValueUnreadable(member, raw, f"a price up to {format_e9(LARGEST_PRICE_E9)}")
    steps = round(exact / scale.tick_e9)
    if abs(exact - steps * scale.tick_e9) <= scale.tick_e9 * _GRID_TOLERANCE:
        return WirePrice(steps * scale.tick_e9, on_grid=True)
    return WirePrice(round(exact), on_grid=False)


def fill_price(raw: float | None, scale: PriceScale, member: str, reference_e9: int | None = None) -> WirePrice | None:
    """The price of a fill, which some trading services send without the multiplier and others with it.

    `reference_e9` is a price that the instrument had about then: the reading within a factor of two of it counts.
    Without one the multiplier is applied, as the protocol says. Raises ValueUnreadable when neither reading is near.
    """
    if scale.multiplier == 1 or reference_e9 is None:
        return wire_price(raw, scale, member, scaled=False)
    if raw is None:
        return None
    for scaled in (True, False):
        reading = _reading(raw, scale, member, scaled)
        if reading is not None and _near(reading.price_e9, reference_e9):
            return reading
    raise ValueUnreadable(member, raw, f"a price near {format_e9(reference_e9)}, with the multiplier or without it")


def _reading(raw: float, scale: PriceScale, member: str, scaled: bool) -> WirePrice | None:
    try:
        return wire_price(raw, scale, member, scaled=scaled)
    except ValueUnreadable:
        return None


def price_to_wire(price_e9: int | None) -> float | None:
    """The double nearest to a price in 1e-9 units; orders are sent in the prices that people see."""
    return None if price_e9 is None else price_e9 / E9


def contracts(raw: float | None, member: str) -> int | None:
    """A whole number of contracts, negative for a short position; None when unset. Raises ValueUnreadable."""
    if raw is None:
        return None
    if not abs(raw) <= LARGEST_QUANTITY or raw != round(raw):
        raise ValueUnreadable(member, raw, "a whole number of contracts")
    return int(raw)


def money_e9(raw: float | None, member: str) -> int | None:
    """An amount of money rounded to 1e-9 units by its decimal text; None when unset. Raises ValueUnreadable."""
    if raw is None:
        return None
    if not math.isfinite(raw) or abs(raw) > 9e9:
        raise ValueUnreadable(member, raw, "an amount up to 9000000000")
    return round(Fraction(repr(raw)) * E9)


def time_ns(raw: float, member: str, *, per_second: int = 1) -> int | None:
    """A time in ns since the Unix epoch from a count of 1, 1,000 or 1,000,000 units per second; None for 0."""
    if not math.isfinite(raw) or raw < 0 or raw * (1_000_000_000 // per_second) > _NS_LIMIT:
        raise ValueUnreadable(member, raw, "a time after 1970 and before 2255")
    if raw == 0:
        return None
    return round(Fraction(raw) * 1_000_000_000 / per_second) if per_second > 1 else _seconds_ns(raw)


def _seconds_ns(raw: float) -> int:
    """Whole microseconds of a double of seconds: it holds no more in our times."""
    return round(Fraction(raw) * 1_000_000) * 1_000


def _near(price_e9: int, reference_e9: int) -> bool:
    low, high = sorted((abs(reference_e9), abs(price_e9)))
    return price_e9 * reference_e9 > 0 and high <= _PLAUSIBLE * low
