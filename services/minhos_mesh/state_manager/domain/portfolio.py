"""Decides what the fill events amount to: positions, realized profit and loss, and the days it fell on.

The rules are those of the trading engine, which owns the original: average cost by the shared position arithmetic, money
from points by one multiplication.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from minhos_mesh.matching.order import Side
from minhos_mesh.matching.position import Position, apply_fill, round_half_even
from minhos_mesh.runtime.money import multiply_e9
from minhos_mesh.state_manager.domain.errors import FillUnusable


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """A position as its owner told it; `version` is the number of the account's fills up to its last one."""

    symbol: str
    quantity: int
    cost_e9: int
    realized_e9: int
    commission_e9: int
    version: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Trade:
    """One fill as an event told it. Prices and money in 1e-9 units, times in ns since the Unix epoch.

    `version` orders the fills of an account, whatever order their events come in.
    """

    fill_id: str
    order_id: str
    venue_order_id: str
    symbol: str
    buy: bool
    quantity: int
    cumulative_quantity: int
    price_e9: int
    commission_e9: int
    fill_ns: int
    provenance: int
    market_sequence: int | None
    multiplier_e9: int
    version: int

    def check(self) -> None:
        """Raises FillUnusable when it cannot be booked."""
        for name, wrong in (
            ("fill_id", not self.fill_id),
            ("symbol", not self.symbol),
            ("quantity", self.quantity < 1),
            ("multiplier_e9", self.multiplier_e9 < 1),
            ("cumulative_quantity", self.cumulative_quantity < self.quantity),
        ):
            if wrong:
                raise FillUnusable(f"fill {self.fill_id!r}: {name} is {getattr(self, name)!r}, it cannot be booked")


@dataclass(frozen=True, slots=True, kw_only=True)
class Holding:
    """What the fills of one symbol amount to; `book` holds realized profit in points times contracts."""

    symbol: str
    multiplier_e9: int = 0
    book: Position = field(default_factory=Position)
    version: int = 0
    updated_ns: int = 0
    fills: int = 0

    @property
    def average_price_e9(self) -> int | None:
        """Average entry price, rounded half to even; None when flat."""
        return None if self.book.quantity == 0 else round_half_even(self.book.cost_e9, self.book.quantity)

    @property
    def realized_e9(self) -> int:
        """Realized profit and loss before commission, in 1e-9 of the currency."""
        return multiply_e9(self.book.realized_pnl_e9, self.multiplier_e9)

    def equals(self, told: Told) -> bool:
        """Whether the owner told the same, which only says something when both are of the same version."""
        mine = (self.book.quantity, self.book.cost_e9, self.realized_e9, self.book.commission_e9)
        return mine == (told.quantity, told.cost_e9, told.realized_e9, told.commission_e9)


@dataclass(frozen=True, slots=True, kw_only=True)
class Day:
    """What fell on one day of UTC, by the time of the fills."""

    date: str
    realized_e9: int = 0
    commission_e9: int = 0
    fills: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Portfolio:
    """All holdings in alphabetical order of symbol, and days, the newest first."""

    holdings: tuple[Holding, ...] = ()
    days: tuple[Day, ...] = ()
    through_sequence: int = 0


def booked(holding: Holding, trade: Trade) -> tuple[Holding, int]:
    """The holding after a fill, and by how much its realized profit and loss changed."""
    side = Side.BUY if trade.buy else Side.SELL
    after = replace(
        holding,
        multiplier_e9=trade.multiplier_e9,
        book=apply_fill(holding.book, side, trade.quantity, trade.price_e9, 1, trade.commission_e9),
        version=max(holding.version, trade.version),
        updated_ns=max(holding.updated_ns, trade.fill_ns),
        fills=holding.fills + 1,
    )
    return after, after.realized_e9 - holding.realized_e9


def rebooked(symbol: str, trades: Iterable[Trade]) -> tuple[Holding, tuple[int, ...]]:
    """The holding that fills in the order of their versions lead to, and the realized change of each."""
    holding, realized = Holding(symbol=symbol), []
    for trade in trades:
        holding, change = booked(holding, trade)
        realized.append(change)
    return holding, tuple(realized)


def day_of(fill_ns: int) -> str:
    """The day of UTC that a time is in, `YYYY-MM-DD`."""
    return datetime.fromtimestamp(fill_ns // 1_000_000_000, UTC).strftime("%Y-%m-%d")


def contradictions(holdings: Mapping[str, Holding], told: Iterable[Told]) -> tuple[str, ...]:
    """Symbols whose holding is of the version that the owner told, and is not what it told."""
    wrong = [
        item.symbol
        for item in told
        if (mine := holdings.get(item.symbol)) is not None and mine.version == item.version and not mine.equals(item)
    ]
    return tuple(sorted(wrong))
