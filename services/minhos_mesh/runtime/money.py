"""Decides how money and prices are read, shown and checked: exact integers of 1e-9 inside, plain decimals for people."""

from __future__ import annotations

import re
from typing import Final

E9: Final = 1_000_000_000
"""Units of 1e-9 in one point, or in one unit of a currency."""

INT64_MAX: Final = 2**63 - 1

LARGEST_PRICE_E9: Final = 10_000_000 * E9
"""No instrument of this system trades above ten million points; a price beyond it is off by its scale."""

_DECIMAL: Final = re.compile(r"([+-]?)([0-9]+)(?:\.([0-9]+))?\Z")
_SHIFTS: Final = (9, -9, 6, -6, 3, -3, 7, -7, 2, -2, 8, -8, 4, -4, 5, -5, 1, -1)


class MoneyError(ValueError):
    """Expected: a price or an amount cannot be used. Names the field, what was seen and, if known, what was meant."""

    def __init__(self, field: str, seen: str, problem: str, *, probably_meant: str | None = None) -> None:
        self.field = field
        self.seen = seen
        self.problem = problem
        self.probably_meant = probably_meant
        hint = "" if probably_meant is None else f"; probably meant {probably_meant}"
        super().__init__(f"{field}: {problem} (seen {seen}){hint}")


class OffScale(MoneyError):
    """Expected: a price is off by a power of ten, most often by the factor 1e9 between points and 1e-9 units."""

    def __init__(self, field: str, seen_e9: int, problem: str, *, probably_meant_e9: int | None) -> None:
        self.probably_meant_e9 = probably_meant_e9
        self.meant = probably_meant_e9
        """The same under the name that it has in the metadata of errors."""
        meant = None if probably_meant_e9 is None else f"{format_e9(probably_meant_e9)} ({field} = {probably_meant_e9})"
        super().__init__(field, f"{seen_e9}, which is {format_e9(seen_e9)}", problem, probably_meant=meant)


class OffTick(MoneyError):
    """Expected: a price is between two ticks of its instrument; both neighbours are named."""

    def __init__(self, field: str, price_e9: int, tick_e9: int) -> None:
        self.below_e9 = price_e9 // tick_e9 * tick_e9
        self.above_e9 = self.below_e9 + tick_e9
        problem = (
            f"is not a multiple of the tick {format_e9(tick_e9)}, "
            f"the nearest are {format_e9(self.below_e9)} and {format_e9(self.above_e9)}"
        )
        super().__init__(field, format_e9(price_e9), problem)


def parse_e9(text: str, *, field: str) -> int:
    """Read decimal text such as "23500.25" exactly into units of 1e-9.

    Raises MoneyError for anything but digits with at most one point, for more than nine decimals that are not zero,
    and for a value that an int64 cannot hold (with what was probably meant, when 1e-9 units were typed).
    """
    match = _DECIMAL.match(text.strip())
    if match is None:
        raise _unreadable(text, field)
    sign, whole, decimals = match.group(1), match.group(2), (match.group(3) or "").rstrip("0")
    if len(decimals) > 9:
        raise MoneyError(field, repr(text), "has more than nine decimals, and 0.000000001 is the smallest unit")
    if len(whole) > 40:
        raise MoneyError(field, f"{len(whole)} digits", f"is beyond {format_e9(INT64_MAX)}")
    magnitude = int(whole) * E9 + int(decimals.ljust(9, "0"))
    if magnitude > INT64_MAX:
        meant = format_e9(int(whole)) if not decimals and int(whole) <= INT64_MAX else None
        raise MoneyError(field, repr(text), f"is beyond {format_e9(INT64_MAX)}", probably_meant=meant)
    return -magnitude if sign == "-" else magnitude


def _unreadable(text: str, field: str) -> MoneyError:
    """Say why the text is no decimal number, and offer the number in it when the reading is certain."""
    if not text.strip():
        return MoneyError(field, repr(text), "is empty, a decimal number such as 23500.25 is needed")
    bare = text.strip().replace(",", "").replace("_", "").replace(" ", "").lstrip("$")
    grouped = re.fullmatch(r"\$?[+-]?[0-9]{1,3}([,_ ][0-9]{3})+(\.[0-9]+)?", text.strip()) is not None
    meant = bare if grouped or (text.strip().startswith("$") and _DECIMAL.match(bare)) else None
    problem = "is not a decimal number such as 23500.25 (no signs of grouping, currency or exponent)"
    return MoneyError(field, repr(text), problem, probably_meant=meant)


def format_e9(value_e9: int, *, at_least: int = 2) -> str:
    """Show units of 1e-9 as the exact decimal text, with no more zeros than `at_least` decimals ask for."""
    whole, rest = divmod(abs(value_e9), E9)
    decimals = f"{rest:09d}".rstrip("0").ljust(at_least, "0")
    text = f"{whole}.{decimals}" if decimals else str(whole)
    return f"-{text}" if value_e9 < 0 else text


def multiply_e9(left_e9: int, right_e9: int) -> int:
    """Multiply two values of 1e-9 units; what is below 1e-9 is rounded half away from zero (exact on whole numbers)."""
    product = left_e9 * right_e9
    rounded = (abs(product) + E9 // 2) // E9
    return -rounded if product < 0 else rounded


def divide_half_even(total: int, count: int) -> int:
    """Divide by a number that is not 0; an exact half goes to the even neighbour. For averages that people see."""
    if count < 0:
        total, count = -total, -count
    quotient, rest = divmod(total, count)
    return quotient + (2 * rest > count or (2 * rest == count and quotient % 2 == 1))


def check_tick(price_e9: int, tick_e9: int, *, field: str) -> None:
    """Accept only a whole number of ticks. Raises OffTick with both neighbours."""
    if price_e9 % tick_e9:
        raise OffTick(field, price_e9, tick_e9)


def nearest_tick_e9(price_e9: int, tick_e9: int) -> int:
    """Give the whole number of ticks nearest to a price; exactly between two, the higher one."""
    return (price_e9 + tick_e9 // 2) // tick_e9 * tick_e9


def check_scale(price_e9: int, *, field: str, tick_e9: int, reference_e9: int | None = None) -> None:
    """Refuse a price whose scale is wrong, with the value that was probably meant.

    `reference_e9` is a recent price of the instrument, when one is known: then any power of ten is recognised. Without
    it only what no price can be is refused: below one tick, or above ten million points. Raises OffScale.
    """
    if price_e9 == 0:
        return
    if reference_e9 is not None and reference_e9 > 0:
        _check_against_reference(price_e9, field, tick_e9, reference_e9)
    if abs(price_e9) < tick_e9:
        meant = _if_plausible(price_e9 * E9, tick_e9)
        problem = "is below one tick: prices are given in units of 1e-9, and this looks like plain points"
        raise OffScale(field, price_e9, problem, probably_meant_e9=meant)
    if abs(price_e9) > LARGEST_PRICE_E9:
        meant = _if_plausible(price_e9 // E9, tick_e9)
        problem = "is above ten million points: this looks scaled by 1e9 once too often"
        raise OffScale(field, price_e9, problem, probably_meant_e9=meant)


def _check_against_reference(price_e9: int, field: str, tick_e9: int, reference_e9: int) -> None:
    """Refuse a price that a power of ten brings close to the reference and that is far from it as it stands."""
    if 4 * price_e9 >= reference_e9 and price_e9 <= 4 * reference_e9:
        return
    for shift in _SHIFTS:
        power: int = 10 ** abs(shift)
        meant = price_e9 * power if shift > 0 else price_e9 // power
        if reference_e9 // 2 <= meant <= reference_e9 * 2:
            factor = f"1e{-shift}" if shift < 0 else f"1e-{shift}"
            problem = f"is off by a factor of {factor} against the last price {format_e9(reference_e9)}"
            raise OffScale(field, price_e9, problem, probably_meant_e9=nearest_tick_e9(meant, tick_e9))


def _if_plausible(price_e9: int, tick_e9: int) -> int | None:
    """Give back a corrected price only when it could be a price of the instrument."""
    if tick_e9 <= price_e9 <= LARGEST_PRICE_E9:
        return nearest_tick_e9(price_e9, tick_e9)
    return None
