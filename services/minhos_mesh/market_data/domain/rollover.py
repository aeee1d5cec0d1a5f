"""Decides which contract a name means at a time, and when the next one becomes current: by rule, for every year.

The roll instant is midnight UTC at the beginning of the roll date, which is the third Friday of the contract's month less
ten days. Up to that instant the contract is current, from it on the next one of the cycle March, June, September, December.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Final

from minhos_mesh.runtime.instruments import InstrumentSpec
from minhos_mesh.runtime.symbols import (
    Symbol,
    SymbolError,
    current_contract,
    date_of_ns,
    expiry_date,
    next_contract,
    parse_symbol,
    roll_date,
)

NS: Final = 1_000_000_000
DAY_NS: Final = 86_400 * NS
ALERT_DAYS: Final = (1, 3, 7, 15, 30)
"""Days before a roll at which people are told."""
FORMER_DAY: Final = 5
"""Day of the month of expiry at which the configuration of the former system said to roll; no rule of it used that."""
LAST_NS: Final = int(datetime(2099, 1, 1, tzinfo=UTC).timestamp()) * NS
"""Symbols have two digits for the year: later times have no contract."""


class InstrumentUnknown(LookupError):
    """Expected: a text that names no instrument of this mesh."""

    def __init__(self, symbol: str, known: Mapping[str, InstrumentSpec], why: str = "") -> None:
        self.symbol, self.known = symbol, ", ".join(sorted(known))
        near = difflib.get_close_matches(symbol.upper(), sorted(known), n=1, cutoff=0.4)
        self.nearest = near[0] if near else None
        hint = f"; was {self.nearest} meant?" if near else ""
        super().__init__(f"instrument {symbol!r} is not known{why}: known are {self.known}{hint}")


class TimeOutOfReach(ValueError):
    """Expected: a time for which no contract can be named."""

    def __init__(self, seen_ns: int) -> None:
        self.field, self.allowed = "at_time", "1970-01-01 to 2098-12-31"
        self.seen = f"{seen_ns / NS:.0f} s since 1970"
        super().__init__(f"at_time is {self.seen}: contracts are known from {self.allowed}")


@dataclass(frozen=True, slots=True)
class Roll:
    """The life of one contract as the current one, and how it ends."""

    symbol: Symbol
    current_from_ns: int
    """First instant at which it is current."""
    roll_ns: int
    """First instant at which the next one is."""
    expiry: date
    next: Symbol
    former: date
    """When the configuration of the former system would have rolled; shown for comparison, never used."""

    def left_ns(self, at_ns: int) -> int:
        """Time until the roll; 0 when it has passed."""
        return max(0, self.roll_ns - at_ns)

    def alert_days(self, at_ns: int) -> int | None:
        """The nearest of `ALERT_DAYS` that has been reached; None while there is more time, and once it has rolled."""
        left = self.roll_ns - at_ns
        return next((days for days in ALERT_DAYS if 0 < left <= days * DAY_NS), None)


@dataclass(frozen=True, slots=True)
class Resolved:
    """What a text means at a time."""

    symbol: Symbol
    spec: InstrumentSpec
    by_rule: bool
    """Whether the text names the product only, so that the contract follows from the time."""
    roll: Roll | None
    """None for an index, which has no contracts."""


def rolls_over(spec: InstrumentSpec) -> bool:
    """Whether an instrument has contracts; an index has none."""
    return spec.tradeable


def resolve(text: str, at_ns: int, specs: Mapping[str, InstrumentSpec]) -> Resolved:
    """What a symbol, an alias, a product (`NQ`) or a product with its exchange means at a time.

    A contract named in full means itself at any time. Raises InstrumentUnknown, TimeOutOfReach.
    """
    if not 0 <= at_ns < LAST_NS:
        raise TimeOutOfReach(at_ns)
    named = _named(text, specs)
    spec = specs.get(named.root)
    if spec is None:
        raise InstrumentUnknown(text, specs)
    if spec.exchange != named.exchange:
        raise InstrumentUnknown(text, specs, f" ({named.root} trades at {spec.exchange})")
    if not rolls_over(spec):
        if named.is_future:
            raise InstrumentUnknown(text, specs, f" ({named.root} is an index without contracts)")
        return Resolved(named, spec, by_rule=False, roll=None)
    symbol = named if named.is_future else current_contract(named.root, named.exchange, date_of_ns(at_ns))
    return Resolved(symbol, spec, by_rule=not named.is_future, roll=roll_of(symbol))


def _named(text: str, specs: Mapping[str, InstrumentSpec]) -> Symbol:
    root = specs.get(text.strip().upper())
    if root is not None:
        return Symbol(root.root, root.exchange)
    try:
        return parse_symbol(text)
    except SymbolError:
        raise InstrumentUnknown(text, specs) from None


def roll_of(symbol: Symbol) -> Roll:
    """When a contract is current. Raises SymbolError for an index."""
    expiry = expiry_date(symbol)
    return Roll(
        symbol, _midnight_ns(_former_roll(symbol)), _midnight_ns(roll_date(symbol)), expiry, next_contract(symbol),
        expiry.replace(day=FORMER_DAY),
    )  # fmt: skip


def _former_roll(symbol: Symbol) -> date:
    """Roll date of the quarterly contract before this one."""
    assert symbol.month is not None and symbol.year is not None, "a contract has month and year"  # noqa: PT018 - one fact
    month = symbol.month - 3 + (-symbol.month % 3)
    before = Symbol(symbol.root, symbol.exchange, month or 12, symbol.year - (month == 0))
    return roll_date(before)


def schedule(spec: InstrumentSpec, at_ns: int, count: int) -> list[Roll]:
    """The contract that is current at a time and those that follow, `count` of them; none for an index."""
    if not rolls_over(spec):
        return []
    if not 0 <= at_ns < LAST_NS:
        raise TimeOutOfReach(at_ns)
    rolls = [roll_of(current_contract(spec.root, spec.exchange, date_of_ns(at_ns)))]
    while len(rolls) < count and rolls[-1].roll_ns < LAST_NS:
        rolls.append(roll_of(rolls[-1].next))
    return rolls


def _midnight_ns(day: date) -> int:
    return int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp()) * NS
