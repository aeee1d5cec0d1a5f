"""Decides how what the simulator writes into its file becomes the market that its DTC server shows."""

from __future__ import annotations

from collections.abc import Mapping

from minhos_mesh.matching import Quote, Side, Trade
from minhos_mesh.runtime.clock import Clock
from minhos_mesh.sierra_files.layout import Records
from minhos_mesh.sierra_files.ticks import BUY, HAS_ASK, HAS_BID, HAS_PRICE, HAS_SIZE, SELL, TickColumns, tick_columns
from minhos_mesh.sierra_simulator.dtc_depth import ShownBook
from minhos_mesh.sierra_simulator.dtc_server import DtcServer


class DtcFeed:
    """Shows records in the order in which they were written, at the time at which they were.

    That time and not the one in a record counts, since a recording is of another day than the orders that meet it.
    """

    def __init__(self, server: DtcServer, clock: Clock) -> None:
        self._server = server
        self._clock = clock
        self._shown_ns = 0

    def on_records(self, symbol: str, records: Records) -> None:
        """Shows records that were just written; while nobody listens and no order works only the last one matters."""
        spec = self._server.exchange.spec(symbol)
        if spec is None:
            return
        if not self._server.clients and not self._server.exchange.open_orders():
            records = records[-1:]
        columns = tick_columns(records, spec.tick_e9)
        for at in range(len(columns)):
            self._shown_ns = max(self._shown_ns, self._clock.wall_ns())
            self._server.show(symbol, *market_of(columns, at, self._shown_ns, traded=spec.tradeable))

    def on_book(self, symbol: str, bids: Mapping[int, int], asks: Mapping[int, int]) -> None:
        """Shows an order book that was just written: contracts by price in ticks."""
        spec = self._server.exchange.spec(symbol)
        if spec is not None:
            told = ({ticks * spec.tick_e9: quantity for ticks, quantity in side.items()} for side in (bids, asks))
            self._server.show_book(symbol, ShownBook(self._clock.wall_ns(), *told))


def market_of(columns: TickColumns, at: int, time_ns: int, *, traded: bool = True) -> tuple[Quote | None, Trade | None]:
    """Quote and trade of one record; a side or a trade that it does not have is None.

    The price of what nobody trades, as of an index, is told as a trade of 0 contracts.
    """
    flags = int(columns.flags[at])
    bid_e9 = int(columns.bid_e9[at]) if flags & HAS_BID else None
    ask_e9 = int(columns.ask_e9[at]) if flags & HAS_ASK else None
    quote = None if bid_e9 is None and ask_e9 is None else Quote(time_ns=time_ns, bid_e9=bid_e9, ask_e9=ask_e9)
    if not flags & HAS_PRICE or (traded and not flags & HAS_SIZE):
        return quote, None
    taker = Side.BUY if flags & BUY else Side.SELL if flags & SELL else None
    size = int(columns.size[at]) if flags & HAS_SIZE else 0
    return quote, Trade(time_ns=time_ns, price_e9=int(columns.price_e9[at]), size=size, aggressor=taker)
