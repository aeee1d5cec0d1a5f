"""Decides what a run of ticks does to a book: which quote and trade each tick says, and by which clock it counts."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from minhos_mesh.matching import Event, MatchingBook, Quote, Side, Trade
from minhos_mesh.runtime.instruments import InstrumentSpec
from minhos_mesh.runtime.tick_layout import Tick, TickKind, TradeSide
from minhos_mesh.venue.domain.orders import DELAYED, REPLAY

DELAY_ALLOWED_NS = 20 * 60 * 1_000_000_000
"""How much later than its event time DELAYED data may come and still count as of now."""

_SIDES = {TradeSide.BUY: Side.BUY, TradeSide.SELL: Side.SELL}


@dataclass(slots=True)
class SymbolMarket:
    """The market of one symbol as the venue sees it."""

    symbol: str
    spec: InstrumentSpec
    book: MatchingBook
    epoch: int = 0
    provenance: int = 0
    sequence: int = 0
    """Last tick that took effect."""
    event_time_ns: int = 0
    """Event time of that tick."""
    followed: bool = False
    """Whether ticks of now have been seen under this epoch, and every one since: what comes behind them late is what was missed."""

    @property
    def last_price_e9(self) -> int | None:
        """Return the last trade's price, else the middle of the quote."""
        if self.book.last_trade is not None:
            return self.book.last_trade.price_e9
        quote = self.book.quote
        if quote is None or quote.bid_e9 is None or quote.ask_e9 is None:
            return None
        return (quote.bid_e9 + quote.ask_e9) // 2


def time_of(tick: Tick, provenance: int) -> int:
    """Return the time at which a tick counts.

    In a replay its event time. Otherwise the earlier of when it came and when it happened, so that history which is
    read late never looks fresh; DELAYED data may happen earlier by its delay.
    """
    if provenance == REPLAY:
        return tick.event_time_ns
    happened = tick.event_time_ns + (DELAY_ALLOWED_NS if provenance == DELAYED else 0)
    return min(happened, tick.receive_time_ns) if tick.receive_time_ns > 0 else happened


def quote_of(tick: Tick, time_ns: int) -> Quote | None:
    """Return the quote that a tick carries; None when it carries none, so that the one before stays."""
    if tick.bid_e9 is None and tick.ask_e9 is None:
        return None
    return Quote(
        time_ns=time_ns, bid_e9=tick.bid_e9, ask_e9=tick.ask_e9, bid_size=tick.bid_size, ask_size=tick.ask_size
    )


def trade_of(tick: Tick, time_ns: int) -> Trade | None:
    """Return the trade that a tick tells, None when it is a quote."""
    if tick.kind is not TickKind.TRADE or tick.price_e9 is None:
        return None
    return Trade(time_ns=time_ns, price_e9=tick.price_e9, size=tick.size or 0, aggressor=_SIDES.get(tick.side))


def apply_tick(market: SymbolMarket, tick: Tick, only: Collection[str] | None = None) -> tuple[Event, ...]:
    """Let one tick take effect, on `only` these orders where some are given: first the quote it was made at, then the trade."""
    time_ns = time_of(tick, market.provenance)
    quote, trade = quote_of(tick, time_ns), trade_of(tick, time_ns)
    events: tuple[Event, ...] = ()
    if quote is not None:
        events = market.book.on_quote(quote, only)
    if trade is not None:
        events += market.book.on_trade(trade, only)
    market.sequence, market.event_time_ns = tick.sequence, tick.event_time_ns
    return events


def observe_ticks(market: SymbolMarket, ticks: Sequence[Tick]) -> None:
    """Let ticks pass a book without orders: only the last quote and the last trade matter."""
    quote: Quote | None = None
    trade: Trade | None = None
    for tick in reversed(ticks):
        time_ns = time_of(tick, market.provenance)
        quote = quote or quote_of(tick, time_ns)
        trade = trade or trade_of(tick, time_ns)
        if quote is not None and trade is not None:
            break
    market.book.observe(quote, trade)
    if ticks:
        market.sequence, market.event_time_ns = ticks[-1].sequence, ticks[-1].event_time_ns
