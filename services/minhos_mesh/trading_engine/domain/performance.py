"""Decides how trading is judged, from the fills alone: round trips, win rate, average win and loss, Sharpe, drawdown."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace

from minhos_mesh.trading_engine.domain.orders import Fill
from minhos_mesh.trading_engine.domain.positions import Booking, Position, book_fill


@dataclass(frozen=True, slots=True, kw_only=True)
class Performance:
    """Running sums over the fills. A trade is a round trip of one symbol: from flat until flat again, or until a flip.

    Money in 1e-9 of the currency, after commissions.
    """

    fills: int = 0
    trades: int = 0
    wins: int = 0
    losses: int = 0
    won_e9: int = 0
    lost_e9: int = 0
    """Sum of the losing trades, negative or 0."""
    squares_e18: int = 0
    """Sum of the squared results of the trades."""
    gross_e9: int = 0
    commission_e9: int = 0
    peak_e9: int = 0
    max_drawdown_e9: int = 0
    last_fill_ns: int | None = None
    open_trades: tuple[tuple[str, int], ...] = ()
    """Per symbol the result so far of the round trip that is open."""

    @property
    def net_e9(self) -> int:
        """Realized P&L of everything less all commission."""
        return self.gross_e9 - self.commission_e9

    @property
    def win_rate(self) -> float | None:
        """Winning trades among all closed ones, 0..1; None without a closed trade."""
        return self.wins / self.trades if self.trades else None

    @property
    def average_win_e9(self) -> int | None:
        """Mean result of the winning trades, rounded down to 1e-9; None without one."""
        return self.won_e9 // self.wins if self.wins else None

    @property
    def average_loss_e9(self) -> int | None:
        """Mean result of the losing trades, a negative number, rounded towards 0; None without one."""
        return -(-self.lost_e9 // self.losses) if self.losses else None

    @property
    def sharpe_ratio(self) -> float | None:
        """Mean over sample deviation of the results per trade, not annualised; None below two trades or without spread."""
        if self.trades < 2:
            return None
        total = self.won_e9 + self.lost_e9
        spread = self.trades * self.squares_e18 - total * total
        if spread <= 0:
            return None
        return total * math.sqrt(self.trades - 1) / math.sqrt(self.trades * spread)


def add_booking(performance: Performance, booking: Booking) -> Performance:
    """Add what one fill did to the running sums."""
    symbol = booking.position.symbol
    open_trades = dict(performance.open_trades)
    running_e9 = open_trades.pop(symbol, 0) + booking.realized_e9 - booking.closing_commission_e9
    after = replace(
        performance,
        fills=performance.fills + 1,
        gross_e9=performance.gross_e9 + booking.realized_e9,
        commission_e9=performance.commission_e9 + booking.fill.commission_e9,
        last_fill_ns=max(performance.last_fill_ns or 0, booking.fill.at_ns),
    )
    if booking.ended_trade:
        after = _close_trade(after, running_e9)
        running_e9 = 0
    if booking.position.quantity != 0:
        open_trades[symbol] = running_e9 - booking.opening_commission_e9
    peak_e9 = max(after.peak_e9, after.net_e9)
    return replace(
        after,
        peak_e9=peak_e9,
        max_drawdown_e9=max(after.max_drawdown_e9, peak_e9 - after.net_e9),
        open_trades=tuple(sorted(open_trades.items())),
    )


def _close_trade(performance: Performance, result_e9: int) -> Performance:
    return replace(
        performance,
        trades=performance.trades + 1,
        wins=performance.wins + (result_e9 > 0),
        losses=performance.losses + (result_e9 < 0),
        won_e9=performance.won_e9 + max(0, result_e9),
        lost_e9=performance.lost_e9 + min(0, result_e9),
        squares_e18=performance.squares_e18 + result_e9 * result_e9,
    )


def measure(fills: Iterable[tuple[Fill, int]]) -> tuple[Performance, dict[str, Position]]:
    """Fold fills, each with the multiplier of its symbol in 1e-9 units, into performance and positions by symbol."""
    performance = Performance()
    positions: dict[str, Position] = {}
    for version, (fill, multiplier_e9) in enumerate(fills, start=1):
        before = positions.get(fill.symbol) or Position(symbol=fill.symbol, multiplier_e9=multiplier_e9)
        booking = book_fill(before, fill, version=version)
        performance = add_booking(performance, booking)
        positions[fill.symbol] = booking.position
    return performance, positions
