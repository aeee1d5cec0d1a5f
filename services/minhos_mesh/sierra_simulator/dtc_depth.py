"""Decides how the simulator's order book is told over DTC: whole when it is asked for, then each level that changes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from minhos_mesh.dtc.enums import AtBidOrAsk, DepthUpdate, FinalUpdate, LogonFlag
from minhos_mesh.dtc.layout import Value
from minhos_mesh.dtc.message import Message, make
from minhos_mesh.dtc.tables import depth as tables
from minhos_mesh.runtime.money import E9
from minhos_mesh.sierra_simulator.dtc_orders import shown

CONTRACTS_PER_ORDER = 2


@dataclass(frozen=True, slots=True)
class ShownBook:
    """The book of one symbol: contracts by price in 1e-9 units."""

    time_ns: int = 0
    bids: Mapping[int, int] = field(default_factory=dict)
    asks: Mapping[int, int] = field(default_factory=dict)

    def levels(self) -> list[tuple[AtBidOrAsk, int, int, int]]:
        """Side, level from 1, price and contracts, the best prices of each side first."""
        found = [(AtBidOrAsk.BID, n, p, self.bids[p]) for n, p in enumerate(sorted(self.bids, reverse=True), 1)]
        return found + [(AtBidOrAsk.ASK, n, p, self.asks[p]) for n, p in enumerate(sorted(self.asks), 1)]


def snapshot(flags: LogonFlag, number: int, book: ShownBook) -> list[Message]:
    """The whole book in the form that a client understands; one message without a side where it is empty."""
    levels = book.levels() or [(AtBidOrAsk.UNSET, 0, 0, 0)]
    last = len(levels) - 1
    return [_snapshot_level(flags, number, book.time_ns, each, at == 0, at == last) for at, each in enumerate(levels)]


def _snapshot_level(
    flags: LogonFlag,
    number: int,
    time_ns: int,
    level: tuple[AtBidOrAsk, int, int, int],
    first: bool,
    last: bool,
) -> Message:
    side, at, price_e9, quantity = level
    values: dict[str, Value | None] = {
        "SymbolID": number, "Side": int(side), "Level": at, "Price": shown(price_e9), "Quantity": float(quantity),
        "NumOrders": -(-quantity // CONTRACTS_PER_ORDER),
    }  # fmt: skip
    if flags & LogonFlag.DEPTH_SNAPSHOT_FLOAT:
        place = FinalUpdate.TRUE if last else FinalUpdate.BEGIN_BATCH if first else FinalUpdate.FALSE
        return make(tables.MARKET_DEPTH_SNAPSHOT_LEVEL_FLOAT, FinalUpdateInBatch=int(place), **values)
    return make(
        tables.MARKET_DEPTH_SNAPSHOT_LEVEL,
        IsFirstMessageInBatch=int(first),
        IsLastMessageInBatch=int(last),
        DateTime=time_ns / E9,
        **values,
    )


def changes(flags: LogonFlag, number: int, before: ShownBook, after: ShownBook) -> list[Message]:
    """What made one book of another, in the form that a client understands; nothing where they are the same."""
    found = [
        *_differences(AtBidOrAsk.BID, before.bids, after.bids),
        *_differences(AtBidOrAsk.ASK, before.asks, after.asks),
    ]
    last = len(found) - 1
    return [_change(flags, number, after.time_ns, *each, at == last) for at, each in enumerate(found)]


def _differences(
    side: AtBidOrAsk, before: Mapping[int, int], after: Mapping[int, int]
) -> Iterator[tuple[AtBidOrAsk, int, int]]:
    """Side, price and contracts of each level that changed, 0 contracts for one that is gone."""
    for price_e9 in before:
        if price_e9 not in after:
            yield side, price_e9, 0
    for price_e9, quantity in after.items():
        if before.get(price_e9) != quantity:
            yield side, price_e9, quantity


def _change(
    flags: LogonFlag, number: int, time_ns: int, side: AtBidOrAsk, price_e9: int, quantity: int, last: bool
) -> Message:
    kind = DepthUpdate.INSERT_UPDATE if quantity else DepthUpdate.DELETE
    values: dict[str, Value | None] = {
        "SymbolID": number, "Side": int(side), "Price": shown(price_e9), "Quantity": float(quantity),
        "UpdateType": int(kind), "NumOrders": -(-quantity // CONTRACTS_PER_ORDER),
    }  # fmt: skip
    if flags & LogonFlag.DEPTH_MILLISECONDS:
        place = FinalUpdate.TRUE if last else FinalUpdate.FALSE
        return make(
            tables.MARKET_DEPTH_UPDATE_LEVEL_FLOAT_WITH_MILLISECONDS,
            DateTime=time_ns // 1_000_000,
            FinalUpdateInBatch=int(place),
            **values,
        )
    return make(tables.MARKET_DEPTH_UPDATE_LEVEL, DateTime=time_ns / E9, **values)
