"""Decides what happens to orders that reach the simulator over DTC: taken, refused, filled by its own book, changed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

from minhos_mesh.dtc.enums import BuySell, OrderStatus, OrderType, TimeInForce, UpdateReason
from minhos_mesh.dtc.errors import ValueUnreadable
from minhos_mesh.dtc.message import Message
from minhos_mesh.dtc.prices import PriceScale, contracts, wire_price
from minhos_mesh.matching import (
    Event,
    Fill,
    MatchingBook,
    OrderInvalid,
    Phase,
    Position,
    Quote,
    Trade,
    UpdateKind,
    WorkingOrder,
    apply_fill,
)
from minhos_mesh.matching import OrderUpdate as BookUpdate
from minhos_mesh.runtime.instruments import InstrumentError, InstrumentSpec, spec_for
from minhos_mesh.runtime.symbols import SymbolError, parse_symbol
from minhos_mesh.sierra_simulator.dtc_depth import ShownBook
from minhos_mesh.sierra_simulator.dtc_orders import BOOK_TIMES, BOOK_TYPES, DONE, ServedFill, ServedOrder, order_update
from minhos_mesh.sierra_simulator.dtc_settings import DtcServerSettings

LARGEST_ORDER = 10_000
_KINDS = {
    UpdateKind.ACCEPTED: (UpdateReason.NEW_ORDER_ACCEPTED, OrderStatus.OPEN),
    UpdateKind.REJECTED: (UpdateReason.NEW_ORDER_REJECTED, OrderStatus.REJECTED),
    UpdateKind.TRIGGERED: (UpdateReason.GENERAL_ORDER_UPDATE, OrderStatus.OPEN),
    UpdateKind.REPLACED: (UpdateReason.CANCEL_REPLACE_COMPLETE, OrderStatus.OPEN),
    UpdateKind.CANCELED: (UpdateReason.ORDER_CANCELED, OrderStatus.CANCELED),
    UpdateKind.EXPIRED: (UpdateReason.ORDER_CANCELED, OrderStatus.CANCELED),
}


class OrderRefused(Exception):
    """Expected: an order or a change is not taken; the text says why."""


Place = tuple[str, int]
"""Phase and priority of a working order in its book."""


@dataclass(frozen=True, slots=True)
class Changes:
    """What steps have changed since this was last asked for."""

    orders: tuple[tuple[ServedOrder, tuple[str, ...], Place | None], ...]
    """Each with every server id that it has had, and where it is in its book while it works."""
    fills: tuple[tuple[int, ServedFill], ...]
    """By the number of their order."""
    positions: Mapping[tuple[str, str], Position]
    next_number: int
    next_execution: int


@dataclass(frozen=True, slots=True)
class Kept:
    """What an earlier life has left."""

    orders: list[tuple[ServedOrder, tuple[str, ...], Place | None]]
    fills: list[ServedFill]
    positions: Mapping[tuple[str, str], Position]
    next_number: int
    next_execution: int


class SimulatedExchange:
    """Orders, fills, positions and books of the simulator; every change comes back as the messages that tell of it."""

    def __init__(self, settings: DtcServerSettings, symbols: Iterable[str] = ()) -> None:
        """`symbols` are listed from the start; any other whose instrument is known is taken up when it is named."""
        self.settings = settings
        self.orders: dict[str, ServedOrder] = {}
        """By every server id that an order has had."""
        self.fills: list[ServedFill] = []
        self.positions: dict[tuple[str, str], Position] = {}
        """By account and symbol."""
        self.traded: set[tuple[str, str]] = set()
        """Account and symbol of what changed since it was last told."""
        self.books: dict[str, ShownBook] = {}
        """Order books as they are shown; orders are filled by quotes and trades alone."""
        self._specs: dict[str, InstrumentSpec] = {}
        self._books: dict[str, MatchingBook] = {}
        self._by_book_id: dict[str, ServedOrder] = {}
        self._client_ids: set[str] = set()
        self._next = 1
        self._executions = 1
        self._touched: dict[int, ServedOrder] = {}
        self._new_fills: list[tuple[int, ServedFill]] = []
        self._moved: set[tuple[str, str]] = set()
        for symbol in symbols:
            self.spec(symbol)

    @property
    def symbols(self) -> tuple[str, ...]:
        """Symbols that are listed, in alphabetical order."""
        return tuple(sorted(self._specs))

    def spec(self, symbol: str) -> InstrumentSpec | None:
        """What is known about a symbol; None when nothing is."""
        if symbol not in self._specs:
            try:
                self._specs[symbol] = spec_for(parse_symbol(symbol), self.settings.instruments)
            except (SymbolError, InstrumentError):
                return None
        return self._specs[symbol]

    def open_orders(self) -> list[ServedOrder]:
        """Orders that work, in the order in which they came."""
        return [order for order in self._by_book_id.values() if order.status not in DONE]

    def position(self, account: str, symbol: str) -> Position:
        """What an account holds."""
        return self.positions.get((account, symbol), Position())

    def quote(self, symbol: str) -> Quote | None:
        """The latest quote of a symbol."""
        book = self._books.get(symbol)
        return None if book is None else book.quote

    def last_trade(self, symbol: str) -> Trade | None:
        """The latest trade of a symbol between others."""
        book = self._books.get(symbol)
        return None if book is None else book.last_trade

    def take_changes(self) -> Changes:
        """What has changed since this was last called, to be written down."""
        orders = tuple((order, tuple(order.server_order_ids), self._place(order)) for order in self._touched.values())
        moved = {key: self.positions[key] for key in self._moved}
        changes = Changes(orders, tuple(self._new_fills), moved, self._next, self._executions)
        self._touched, self._new_fills, self._moved = {}, [], set()
        return changes

    def restore(self, kept: Kept) -> None:
        """Goes on with what an earlier life has left; working orders go back into their books."""
        self._next, self._executions = kept.next_number, kept.next_execution
        self.fills.extend(kept.fills)
        self.positions.update(kept.positions)
        for order, ids, place in kept.orders:
            self._by_book_id[order.book_id] = self._touched[order.number] = order
            self._client_ids.add(order.client_order_id)
            self.orders.update(dict.fromkeys(ids, order))
            if place is not None and order.status not in DONE and self.spec(order.symbol) is not None:
                asked = order.as_order(order.received_ns)
                working = WorkingOrder(
                    order=asked, phase=Phase(place[0]), priority=place[1], filled_quantity=order.filled
                )
                self._book(order.symbol).restore(working)

    def _place(self, order: ServedOrder) -> Place | None:
        working = None if order.status in DONE else self._book(order.symbol).get(order.book_id)
        return None if working is None else (working.phase.value, working.priority)

    # What the market does.

    def on_quote(self, symbol: str, quote: Quote) -> list[Message]:
        """Shows a quote to the book."""
        return self._with_book(symbol, lambda book: book.on_quote(quote))

    def on_trade(self, symbol: str, trade: Trade) -> list[Message]:
        """Shows a trade to the book."""
        return self._with_book(symbol, lambda book: book.on_trade(trade))

    # What clients ask.

    def submit(self, message: Message, now_ns: int) -> list[Message]:
        """Takes a new order, or refuses it with the reason."""
        order = self._received(message, now_ns)
        try:
            self._read_terms(order, message)
            self._check_new(order, message)
            self._by_book_id[order.book_id] = order
            self._client_ids.add(order.client_order_id)
            self.orders[order.server_order_id] = order
            return self._tell(self._book(order.symbol).submit(order.as_order(now_ns), now_ns))
        except (OrderRefused, OrderInvalid, ValueUnreadable) as refused:
            self._by_book_id.pop(order.book_id, None)
            self._touched.pop(order.number, None)
            order.status = OrderStatus.REJECTED
            return [self._update(order, UpdateReason.NEW_ORDER_REJECTED, str(refused))]

    def refuse(self, message: Message, now_ns: int) -> list[Message]:
        """Rejects a new order that nothing is wrong with."""
        order = self._received(message, now_ns)
        order.status = OrderStatus.REJECTED
        return [
            self._update(order, UpdateReason.NEW_ORDER_REJECTED, "rejected on purpose, by a fault that was injected")
        ]

    def cancel(self, message: Message, now_ns: int) -> list[Message]:
        """Cancels an order, found by the server's id alone; the client's id must match."""
        order = self._found(message)
        if isinstance(order, ServedOrder) and order.status not in DONE:
            return self._tell(self._book(order.symbol).cancel(order.book_id, now_ns))
        return [self._refusal(order, message, UpdateReason.CANCEL_REJECTED)]

    def replace(self, message: Message, now_ns: int) -> list[Message]:
        """Changes an order, found in the same way; of a stop-limit the limit follows its stop at the same distance."""
        order = self._found(message)
        if not isinstance(order, ServedOrder) or order.status in DONE:
            return [self._refusal(order, message, UpdateReason.CANCEL_REPLACE_REJECTED)]
        try:
            quantity, limit_e9, stop_e9 = self._changed(order, message)
            events = self._book(order.symbol).replace(
                order.book_id, now_ns, quantity=quantity, limit_price_e9=limit_e9, stop_price_e9=stop_e9
            )
        except (OrderInvalid, ValueUnreadable) as refused:
            return [self._update(order, UpdateReason.CANCEL_REPLACE_REJECTED, str(refused))]
        order.quantity = quantity or order.quantity
        order.limit_e9 = order.limit_e9 if limit_e9 is None else limit_e9
        order.stop_e9 = order.stop_e9 if stop_e9 is None else stop_e9
        order.previous_server_order_id = ""
        if self.settings.new_id_on_replace:
            order.previous_server_order_id, order.server_order_id = order.server_order_id, self._new_id()
            order.server_order_ids.append(order.server_order_id)
            self.orders[order.server_order_id] = order
        self._touched[order.number] = order
        return self._tell(events)

    # What follows changes orders and positions.

    def _with_book(self, symbol: str, act: Callable[[MatchingBook], tuple[Event, ...]]) -> list[Message]:
        return [] if self.spec(symbol) is None else self._tell(act(self._book(symbol)))

    def _book(self, symbol: str) -> MatchingBook:
        if symbol not in self._books:
            self._books[symbol] = MatchingBook(self._specs[symbol].tick_e9, self.settings.rules)
        return self._books[symbol]

    def _tell(self, events: tuple[Event, ...]) -> list[Message]:
        return [self._filled(event) if isinstance(event, Fill) else self._changed_by(event) for event in events]

    def _filled(self, event: Fill) -> Message:
        order = self._by_book_id[event.order_id]
        fill = ServedFill(
            execution_id=f"E{self._executions}", server_order_id=order.server_order_id, symbol=order.symbol,
            account=order.account, side=order.side, quantity=event.quantity, price_e9=event.price_e9, time_ns=event.time_ns,
        )  # fmt: skip
        self._executions += 1
        self.fills.append(fill)
        order.fills.append(fill)
        self._touched[order.number] = order
        self._new_fills.append((order.number, fill))
        order.filled, order.changed_ns = event.cumulative_quantity, event.time_ns
        order.filled_value_e9 += event.price_e9 * event.quantity
        order.status = OrderStatus.FILLED if event.leaves_quantity == 0 else OrderStatus.PARTIALLY_FILLED
        key = (order.account, order.symbol)
        self.positions[key] = apply_fill(
            self.position(*key), event.side, event.quantity, event.price_e9, self._specs[order.symbol].multiplier,
            event.commission_e9,
        )  # fmt: skip
        self.traded.add(key)
        self._moved.add(key)
        whole = event.leaves_quantity == 0
        reason = UpdateReason.ORDER_FILLED if whole else UpdateReason.ORDER_FILLED_PARTIALLY
        return self._update(order, reason, fill=fill)

    def _changed_by(self, event: BookUpdate) -> Message:
        order = self._by_book_id[event.order_id]
        reason, status = _KINDS[event.kind]
        working = status is OrderStatus.OPEN and order.filled > 0
        order.status = OrderStatus.PARTIALLY_FILLED if working else status
        order.changed_ns = event.time_ns
        self._touched[order.number] = order
        return self._update(order, reason, event.reason)

    def _update(
        self, order: ServedOrder, reason: UpdateReason, text: str = "", fill: ServedFill | None = None
    ) -> Message:
        return order_update(order, reason, multiplier=self.settings.price_multiplier, text=text, fill=fill)

    def _received(self, message: Message, now_ns: int) -> ServedOrder:
        number, server_order_id = self._next, self._new_id()
        return ServedOrder(
            number=number,
            server_order_id=server_order_id,
            server_order_ids=[server_order_id],
            client_order_id=_fitting(message, "ClientOrderID"),
            symbol=_fitting(message, "Symbol"),
            account=_fitting(message, "TradeAccount") or self.settings.accounts[0],
            side=BuySell.UNSET,
            order_type=OrderType.UNSET,
            time_in_force=TimeInForce.UNSET,
            quantity=0,
            limit_e9=None,
            stop_e9=None,
            received_ns=now_ns,
            changed_ns=now_ns,
            free_text=_fitting(message, "FreeFormText"),
        )

    def _read_terms(self, order: ServedOrder, message: Message) -> None:
        spec = self.spec(order.symbol)
        if spec is None or not spec.tradeable:
            raise OrderRefused(f"symbol {order.symbol[:40]!r} is not traded here")
        kinds = (message.integer("OrderType"), message.integer("TimeInForce"), message.integer("BuySell"))
        if kinds[0] not in set(BOOK_TYPES) or kinds[1] not in set(BOOK_TIMES) or kinds[2] not in {1, 2}:
            raise OrderRefused(f"OrderType, TimeInForce and BuySell are {kinds}: not all of them are supported")
        order.order_type, order.time_in_force, order.side = (
            OrderType(kinds[0]),
            TimeInForce(kinds[1]),
            BuySell(kinds[2]),
        )
        order.quantity = contracts(message.number("Quantity"), "Quantity") or 0
        first, second = (_price(message, name, spec) for name in ("Price1", "Price2"))
        if order.order_type is OrderType.STOP_LIMIT:
            order.stop_e9, order.limit_e9 = first, second
        elif order.order_type is OrderType.STOP:
            order.stop_e9 = first
        elif order.order_type is OrderType.LIMIT:
            order.limit_e9 = first

    def _check_new(self, order: ServedOrder, message: Message) -> None:
        if not self.settings.session.trading:
            raise OrderRefused("trading is not allowed over DTC")
        if order.account not in self.settings.accounts:
            raise OrderRefused(f"TradeAccount {order.account!r} is not known")
        if message.text("ClientOrderID") != order.client_order_id:
            raise OrderRefused("ClientOrderID is longer than 31 bytes")
        if not order.client_order_id or order.client_order_id in self._client_ids:
            raise OrderRefused(f"ClientOrderID {order.client_order_id!r} is empty or was used before")
        if not 0 < order.quantity <= LARGEST_ORDER:
            raise OrderRefused(f"Quantity is {order.quantity}: allowed is 1 to {LARGEST_ORDER}")

    def _changed(self, order: ServedOrder, message: Message) -> tuple[int | None, int | None, int | None]:
        spec = self._specs[order.symbol]
        quantity = contracts(message.number("Quantity"), "Quantity") or None
        first = _price(message, "Price1", spec) if message.flag("Price1IsSet") else None
        if order.order_type is OrderType.STOP_LIMIT:
            if first is None or order.stop_e9 is None or order.limit_e9 is None:
                return quantity, None, None
            return quantity, order.limit_e9 + first - order.stop_e9, first
        return (quantity, None, first) if order.order_type is OrderType.STOP else (quantity, first, None)

    def _found(self, message: Message) -> ServedOrder | str:
        order = self.orders.get(message.text("ServerOrderID"))
        if order is None:
            return f"ServerOrderID {message.text('ServerOrderID')!r} is not known"
        if order.client_order_id != message.text("ClientOrderID"):
            return f"ClientOrderID {message.text('ClientOrderID')!r} is not that of the order"
        return order

    def _refusal(self, found: ServedOrder | str, message: Message, reason: UpdateReason) -> Message:
        if isinstance(found, ServedOrder):
            return self._update(found, reason, f"the order is {found.status.name}")
        stranger = self._received(message, 0)
        unknown = replace(stranger, server_order_id=_fitting(message, "ServerOrderID"), status=OrderStatus.REJECTED)
        return self._update(unknown, reason, found)

    def _new_id(self) -> str:
        number, self._next = self._next, self._next + 1
        return f"S{number}"


def _fitting(message: Message, name: str) -> str:
    """A text as far as every encoding can carry it back: JSON sets no length, and others listen in binary."""
    if name not in message.layout.by_name:
        return ""
    room = message.layout.member(name).size - 1
    return message.text(name).encode("utf-8")[:room].decode("utf-8", "ignore")


def _price(message: Message, name: str, spec: InstrumentSpec) -> int | None:
    found = wire_price(message.number(name), PriceScale(spec.tick_e9), name)
    if found is None or found.price_e9 == 0:
        return None
    if not found.on_grid:
        raise ValueUnreadable(name, message.number(name), "a whole number of ticks")
    return found.price_e9
