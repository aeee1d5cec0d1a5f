"""Decides what a symbol is: its canonical text, its month and expiry, and which contract of a root is current on a date."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

MONTH_LETTERS = "FGHJKMNQUVXZ"
"""Contract month letters, January first."""

QUARTER_MONTHS = (3, 6, 9, 12)
"""Months of the quarterly cycle H, M, U, Z."""

ROLL_DAYS_BEFORE_EXPIRY = 10
"""Days before expiry at which the next contract of the cycle becomes the current one."""

_FUTURE = re.compile(r"^([A-Z0-9]{1,8}?)([FGHJKMNQUVXZ])(\d{2})[-_](?:FUT[-_])?([A-Z]{2,8})$")
_PLAIN = re.compile(r"^\$?([A-Z][A-Z0-9]{0,11})[-_]([A-Z]{2,8})$")
_LIKE_A_MONTH = re.compile(r"[A-Z]\d{2}$")
_FRIDAY = 4


class SymbolError(ValueError):
    """A text that is no symbol, or a question that this symbol cannot answer (an index has no expiry)."""


@dataclass(frozen=True, slots=True)
class Symbol:
    """One tradeable or quoted name: a future with month and year, or an index without either."""

    root: str
    """Product, for example NQ."""
    exchange: str
    """Exchange suffix, for example CME."""
    month: int | None = None
    """Contract month 1..12; None for an index."""
    year: int | None = None
    """Four-digit contract year; None for an index."""

    @property
    def is_future(self) -> bool:
        """True when the symbol names a contract month."""
        return self.month is not None

    @property
    def contract(self) -> str:
        """Root with month letter and two-digit year; the root alone for an index."""
        if self.month is None or self.year is None:
            return self.root
        return f"{self.root}{MONTH_LETTERS[self.month - 1]}{self.year % 100:02d}"

    def __str__(self) -> str:
        return f"{self.contract}-{self.exchange}"


def parse_symbol(text: str) -> Symbol:
    """Reads a canonical symbol or one of its aliases (lower case, `_` for `-`, `_FUT_` before the exchange).

    Raises SymbolError naming what was seen and what is allowed. Two-digit years are 2000 to 2099.
    """
    cleaned = text.strip().upper()
    future = _FUTURE.match(cleaned)
    if future is not None:
        root, letter, year, exchange = future.groups()
        return Symbol(root, exchange, MONTH_LETTERS.index(letter) + 1, 2000 + int(year))
    plain = _PLAIN.match(cleaned)
    if plain is not None and not _LIKE_A_MONTH.search(plain.group(1)):
        return Symbol(plain.group(1), plain.group(2))
    raise SymbolError(
        f"symbol {text!r} is not understood: expected ROOT + month letter ({MONTH_LETTERS}) + two-digit year + "
        "-EXCHANGE for a future, or ROOT-EXCHANGE for an index"
    )


def symbol_of_file(name: str) -> Symbol:
    """Symbol that a data file is named after (`<symbol>.scid`, any folder). Raises SymbolError."""
    leaf = re.split(r"[\\/]", name)[-1]
    stem, dot, extension = leaf.rpartition(".")
    if not dot or not extension:
        raise SymbolError(f"file name {leaf!r} has no extension: expected <symbol>.scid")
    return parse_symbol(stem)


def third_friday(year: int, month: int) -> date:
    """Third Friday of a month."""
    first = date(year, month, 1)
    return first + timedelta(days=(_FRIDAY - first.weekday()) % 7 + 14)


def expiry_date(symbol: Symbol) -> date:
    """Expiry of a future: the third Friday of its month. Raises SymbolError for an index."""
    if symbol.month is None or symbol.year is None:
        raise SymbolError(f"symbol {symbol} is no future: it has no expiry")
    return third_friday(symbol.year, symbol.month)


def roll_date(symbol: Symbol) -> date:
    """First date on which the next quarterly contract is the current one. Raises SymbolError for an index."""
    return expiry_date(symbol) - timedelta(days=ROLL_DAYS_BEFORE_EXPIRY)


def current_contract(root: str, exchange: str, on: date) -> Symbol:
    """Quarterly contract of a root that is current on a date: the first whose roll date lies after that date."""
    for year in (on.year, on.year + 1):
        for month in QUARTER_MONTHS:
            candidate = Symbol(root, exchange, month, year)
            if roll_date(candidate) > on:
                return candidate
    raise SymbolError(f"no quarterly contract of {root} is current on {on.isoformat()}")


def next_contract(symbol: Symbol) -> Symbol:
    """Quarterly contract that follows a future. Raises SymbolError for an index."""
    if symbol.month is None or symbol.year is None:
        raise SymbolError(f"symbol {symbol} is no future: it has no next contract")
    later = [month for month in QUARTER_MONTHS if month > symbol.month]
    if later:
        return Symbol(symbol.root, symbol.exchange, later[0], symbol.year)
    return Symbol(symbol.root, symbol.exchange, QUARTER_MONTHS[0], symbol.year + 1)


def date_of_ns(time_ns: int) -> date:
    """Calendar date in UTC of a time in nanoseconds since the Unix epoch."""
    return datetime.fromtimestamp(time_ns // 1_000_000_000, UTC).date()
