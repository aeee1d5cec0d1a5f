"""Decides what is told when orders at the server change: fills before their orders, each with its own revision, nothing twice."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from minhos_mesh.dtc.enums import BuySell
from minhos_mesh.dtc.order_state import TrackedOrder
from minhos_mesh.matching import Position, Side, apply_fill
from minhos_mesh.runtime.instruments import InstrumentSpec
from minhos_mesh.sierra_client.venue.domain import (
    Asked,
    Change,
    OrderRecord,
    alike,
    fills_behind,
    record_of,
    refused_record,
)
from minhos_mesh.venue.domain.orders import FillRecord, OrderReason
from minhos_mesh.venue.domain.views import HeldPosition


@dataclass(frozen=True, slots=True)
class Step:
    """What one step changed, to be written as a whole before it is told."""

    changes: tuple[Change, ...] = ()
    asked: tuple[Asked, ...] = ()
    """Orders whose record is to be written, in the order of their numbers."""
    positions: Mapping[str, HeldPosition] = field(default_factory=dict)


class VenueBook:
    """Orders, positions and the revision of the venue in memory."""

    def __init__(self, specs: Mapping[str, InstrumentSpec], *, commission_e9: int) -> None:
        """`specs` gives the instrument of each canonical symbol; `commission_e9` is what a contract costs."""
        self.orders: dict[str, OrderRecord] = {}
        self.positions: dict[str, HeldPosition] = {}
        self.disputed: dict[str, None] = {}
        """Orders that a person has settled and the server tells otherwise of."""
        self.commission_paid_e9 = 0
        self.revision = 0
        self.provenance = 0
        """Origin of the data that fills are made against, as the contract numbers it."""
        self._specs = specs
        self._commission_e9 = commission_e9
        self._asked: dict[str, Asked] = {}
        self._by_dtc_id: dict[str, str] = {}
        self._open: dict[str, None] = {}
        self._next_number = 1
        self._fills = 0

    def restore(self, orders: Iterable[OrderRecord], positions: Mapping[str, HeldPosition], revision: int) -> None:
        """Takes in what was on disk."""
        for record in orders:
            self.note_asked(record.asked)
            self._put(record)
        self.positions.update(positions)
        self._fills = sum(held.fills for held in positions.values())
        self.commission_paid_e9 = sum(held.position.commission_e9 for held in positions.values())
        self.revision = revision

    def next_number(self) -> int:
        """The number of the next order; each is given once."""
        number, self._next_number = self._next_number, self._next_number + 1
        return number

    def note_asked(self, asked: Asked) -> None:
        """Takes note of an order, or of what was asked of it since."""
        self._asked[asked.client_order_id] = asked
        self._by_dtc_id[asked.dtc_id] = asked.client_order_id
        self._next_number = max(self._next_number, asked.number + 1)

    def asked(self, client_order_id: str) -> Asked | None:
        """An order as it was asked for."""
        return self._asked.get(client_order_id)

    def of_dtc_id(self, dtc_id: str) -> Asked | None:
        """The order that the server has under an id of ours."""
        client_order_id = self._by_dtc_id.get(dtc_id)
        return None if client_order_id is None else self._asked[client_order_id]

    def open_orders(self, symbol: str | None = None) -> tuple[OrderRecord, ...]:
        """Orders that work, or of which that is not known, in the order in which they were taken."""
        found = (self.orders[client_order_id] for client_order_id in self._open)
        return tuple(record for record in found if symbol in {None, record.terms.symbol})

    def open_told(self) -> str:
        """What is open here, for people: how many orders, and which positions; empty when nothing is."""
        orders = len(self._open)
        held = [
            f"{view.position.quantity:+d} {symbol}"
            for symbol, view in sorted(self.positions.items())
            if view.position.quantity
        ]
        parts = [f"{orders} open order{'s' if orders > 1 else ''}"] if orders else []
        return " and ".join(
            [*parts, *([f"the position{'s' if len(held) > 1 else ''} {', '.join(held)}"] if held else [])]
        )

    def take(self, orders: Sequence[TrackedOrder], now_ns: int) -> Step:
        """Takes orders as the ledger has them now; what they say that is new becomes changes."""
        changes: list[Change] = []
        touched: dict[str, Asked] = {}
        moved: dict[str, HeldPosition] = {}
        for tracked in orders:
            asked = self.of_dtc_id(tracked.client_order_id)
            if asked is None:
                continue
            touched[asked.client_order_id] = asked
            before = self.orders.get(asked.client_order_id)
            for number, fill, cumulative in fills_behind(asked, tracked, before.fills if before else 0):
                told = self._fill(
                    asked, number, fill.quantity, fill.price_e9, fill.side, cumulative, fill.time_ns or now_ns
                )
                changes.append(told)
                changes.append(self._told(record_of(asked, tracked, fills=number, update_ns=now_ns)))
                moved[told.symbol] = self.positions[told.symbol]
            record = record_of(asked, tracked, fills=len(tracked.fills), update_ns=now_ns)
            known = self.orders.get(asked.client_order_id)
            if known is None or not alike(known, record):
                changes.append(self._told(record))
        return Step(tuple(changes), tuple(touched.values()), moved)

    def refuse(self, asked: Asked, message: str) -> Step:
        """Takes an order that is never sent."""
        self.note_asked(asked)
        return Step((self._told(refused_record(asked, message)),), (asked,))

    def wants_cancel(self, client_order_id: str, reason: OrderReason) -> Step:
        """Notes why a cancel is asked for; the first reason stays."""
        asked = self._asked[client_order_id]
        if asked.cancel is OrderReason.UNSPECIFIED:
            asked = replace(asked, cancel=reason)
            self._asked[client_order_id] = asked
            record = self.orders.get(client_order_id)
            if record is not None:
                self.orders[client_order_id] = replace(record, asked=asked)
        return Step(asked=(asked,))

    def reduces(self, symbol: str, side: Side, quantity: int, held: Iterable[int], before_number: int) -> bool:
        """Whether an order, behind all earlier ones on its side, only closes what is held, whichever of `held` is true."""
        ahead = sum(
            record.leaves_quantity
            for record in self.open_orders(symbol)
            if record.terms.side is side and record.asked.number < before_number
        )
        return all(position * int(side) < 0 and ahead + quantity <= abs(position) for position in held)

    def growing(self, symbol: str, held: Sequence[int]) -> tuple[OrderRecord, ...]:
        """Working orders that may only reduce and no longer would."""
        return tuple(
            record
            for record in self.open_orders(symbol)
            if record.asked.reduce_only
            and record.asked.cancel is OrderReason.UNSPECIFIED
            and not self.reduces(symbol, record.terms.side, record.leaves_quantity, held, record.asked.number)
        )

    def spec(self, symbol: str) -> InstrumentSpec | None:
        """Instrument of a symbol that is traded here."""
        return self._specs.get(symbol)

    @property
    def symbols(self) -> tuple[str, ...]:
        """Symbols that are traded here, in alphabetical order."""
        return tuple(sorted(self._specs))

    def _told(self, record: OrderRecord) -> OrderRecord:
        self.revision += 1
        told = replace(record, revision=self.revision)
        self._put(told)
        return told

    def _put(self, record: OrderRecord) -> None:
        if record.dispute:
            self.disputed[record.client_order_id] = None
        else:
            self.disputed.pop(record.client_order_id, None)
        self.orders[record.client_order_id] = record
        if record.state.done:
            self._open.pop(record.client_order_id, None)
        else:
            self._open[record.client_order_id] = None

    def _fill(
        self, asked: Asked, number: int, quantity: int, price_e9: int, side: BuySell, cumulative: int, time_ns: int
    ) -> FillRecord:
        self.revision += 1
        self._fills += 1
        symbol, taken = asked.terms.symbol, Side.BUY if side is BuySell.BUY else Side.SELL
        commission_e9 = self._commission_e9 * quantity
        held = self.positions.get(symbol, HeldPosition(Position(), 0, 0))
        multiplier = self._specs[symbol].multiplier if symbol in self._specs else 1
        position = apply_fill(held.position, taken, quantity, price_e9, multiplier, commission_e9)
        self.positions[symbol] = HeldPosition(position, time_ns, held.fills + 1)
        self.commission_paid_e9 += commission_e9
        return FillRecord(
            fill_id=f"{asked.client_order_id}/{number}",
            client_order_id=asked.client_order_id,
            venue_order_id=f"dtc:{asked.dtc_id}",
            symbol=symbol,
            side=taken,
            quantity=quantity,
            cumulative_quantity=cumulative,
            price_e9=price_e9,
            commission_e9=commission_e9,
            time_ns=time_ns,
            provenance=self.provenance,
            revision=self.revision,
        )
