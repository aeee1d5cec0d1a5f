"""Everyone's orders, fills and positions of one mesh, and whether they agree."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import grpc
import pytest
from tests.e2e.running_mesh import Mesh

from minhos_api.events.v1 import event_admin_service_pb2 as admin_pb
from minhos_api.events.v1 import event_bus_service_pb2 as bus_pb
from minhos_api.events.v1 import event_pb2
from minhos_api.events.v1.event_admin_service_pb2_grpc import EventAdminServiceStub
from minhos_api.events.v1.event_bus_service_pb2_grpc import EventBusServiceStub
from minhos_api.order.v1 import fill_pb2, order_terms_pb2
from minhos_api.state.v1 import state_manager_service_pb2 as state_pb
from minhos_api.state.v1.state_manager_service_pb2_grpc import StateManagerServiceStub
from minhos_api.trading.v1 import order_pb2, trading_events_pb2
from minhos_api.trading.v1 import order_service_pb2 as orders_pb
from minhos_api.trading.v1 import trading_engine_service_pb2 as engine_pb
from minhos_api.trading.v1.order_service_pb2_grpc import OrderServiceStub
from minhos_api.trading.v1.trading_engine_service_pb2_grpc import TradingEngineServiceStub
from minhos_api.venue.v1 import venue_service_pb2 as venue_pb
from minhos_api.venue.v1.venue_service_pb2_grpc import VenueServiceStub

NEVER_SENT: Final = frozenset({order_pb2.ORDER_STATE_NEW, order_pb2.ORDER_STATE_DENIED})
OVER: Final = frozenset(
    {
        order_pb2.ORDER_STATE_DENIED,
        order_pb2.ORDER_STATE_FILLED,
        order_pb2.ORDER_STATE_CANCELED,
        order_pb2.ORDER_STATE_REJECTED,
        order_pb2.ORDER_STATE_EXPIRED,
    }
)

Book = tuple[int, int, int, int]
"""Quantity, cost, realized profit and commission; money in 1e-9 units."""


@dataclass(frozen=True, slots=True)
class Books:
    """What each service holds at one moment without traffic."""

    orders: list[order_pb2.Order]
    engine_fills: list[fill_pb2.Fill]
    venue_fills: list[fill_pb2.Fill]
    state_fills: list[fill_pb2.Fill]
    event_fills: list[fill_pb2.Fill]
    engine: dict[str, Book]
    state: dict[str, Book]
    venue: dict[str, int]
    engine_version: int
    state_version: int


def pages(call: Any, request: Any, field: str) -> Iterator[Any]:
    """All items of a paged list."""
    while True:
        answer = call(request)
        yield from getattr(answer, field)
        if not answer.next_page_token:
            return
        request.page_token = answer.next_page_token


def events(mesh: Mesh, *types: str, source: str | None = None) -> list[event_pb2.Event]:
    """All stored events of some types, the oldest first."""
    bus = mesh.stub(EventBusServiceStub)
    request = bus_pb.ListEventsRequest(types=types, source=source, ascending=True, page_size=1_000)
    return list(pages(bus.ListEvents, request, "events"))


def count_events(mesh: Mesh) -> dict[str, int]:
    """How many events of each type were ever published."""
    stats = mesh.stub(EventAdminServiceStub).GetStats(admin_pb.GetStatsRequest())
    return {item.type: item.published for item in stats.types}


def fill_of(event: event_pb2.Event) -> fill_pb2.Fill:
    """The fill that a trade.executed tells of."""
    trade = trading_events_pb2.TradeExecuted()
    assert event.payload.Unpack(trade)
    return trade.fill


def read_books(mesh: Mesh) -> Books:
    """Asks everyone."""
    orders, engine = mesh.stub(OrderServiceStub), mesh.stub(TradingEngineServiceStub)
    venue, state = mesh.stub(VenueServiceStub), mesh.stub(StateManagerServiceStub)
    owned = engine.GetPositions(engine_pb.GetPositionsRequest(include_flat=True))
    projected = state.GetPortfolio(state_pb.GetPortfolioRequest())
    return Books(
        orders=list(pages(orders.ListOrders, orders_pb.ListOrdersRequest(page_size=500), "orders")),
        engine_fills=list(pages(engine.ListFills, engine_pb.ListFillsRequest(page_size=500), "fills")),
        venue_fills=list(pages(venue.ListFills, venue_pb.ListFillsRequest(page_size=500), "fills")),
        state_fills=list(pages(state.ListTrades, state_pb.ListTradesRequest(page_size=500), "trades")),
        event_fills=[fill_of(event) for event in events(mesh, "trade.executed")],
        engine=_by_symbol(owned.positions),
        state=_by_symbol(projected.positions),
        venue={p.symbol: p.quantity for p in venue.ListPositions(venue_pb.ListPositionsRequest()).positions},
        engine_version=owned.version,
        state_version=projected.fills,
    )


def settled(mesh: Mesh) -> bool:
    """Whether no order is on its way and the portfolio has seen every fill."""
    books = read_books(mesh)
    return (
        all(order.state in OVER or order.terms.type != order_terms_pb2.ORDER_TYPE_MARKET for order in books.orders)
        and len(books.engine_fills) == len(books.venue_fills) == len(books.event_fills) == len(books.state_fills)
        and books.state_version == books.engine_version
    )


def assert_books_agree(mesh: Mesh) -> Books:
    """Asserts that no order or fill was lost or doubled anywhere and that all positions are what the fills make of them."""
    books = read_books(mesh)
    reference = {fill.fill_id: _fill(fill) for fill in books.venue_fills}
    for fills in (books.venue_fills, books.engine_fills, books.event_fills, books.state_fills):
        assert [count for count in Counter(f.fill_id for f in fills).values() if count > 1] == []
        assert {fill.fill_id: _fill(fill) for fill in fills} == reference
    for ids in ([o.order_id for o in books.orders], [o.request_id for o in books.orders if o.request_id]):
        assert len(set(ids)) == len(ids)
    _assert_orders_match_venue(mesh, books)
    assert _without_flat(books.engine) == _without_flat(books.state)
    quantities: dict[str, int] = defaultdict(int)
    for fill in books.venue_fills:
        quantities[fill.symbol] += fill.quantity if fill.side == order_terms_pb2.SIDE_BUY else -fill.quantity
    for held in (quantities, {s: b[0] for s, b in books.engine.items()}, books.venue):
        assert {s: q for s, q in held.items() if q} == {s: q for s, q in quantities.items() if q}
    assert sum(book[3] for book in books.engine.values()) == sum(fill.commission_e9 for fill in books.venue_fills)
    return books


def _assert_orders_match_venue(mesh: Mesh, books: Books) -> None:
    venue = mesh.stub(VenueServiceStub)
    filled: dict[str, int] = defaultdict(int)
    for fill in books.venue_fills:
        filled[fill.order_id] += fill.quantity
    for order in books.orders:
        assert order.filled_quantity == filled.pop(order.order_id, 0) <= order.terms.quantity
        request = venue_pb.GetOrderRequest(client_order_id=order.order_id)
        if order.state in NEVER_SENT:
            with pytest.raises(grpc.RpcError, match="ORDER_UNKNOWN|not known|NOT_FOUND"):
                venue.GetOrder(request)
        elif order.filled_quantity:
            there = venue.GetOrder(request).order
            assert (there.filled_quantity, there.average_price_e9) == (order.filled_quantity, order.average_price_e9)
    assert dict(filled) == {}, "fills of orders that the engine does not know"


def _fill(fill: fill_pb2.Fill) -> tuple[Any, ...]:
    time_ns = fill.fill_time.ToNanoseconds()
    return (
        fill.order_id, fill.symbol, fill.side, fill.quantity, fill.price_e9, fill.commission_e9, time_ns, fill.provenance
    )  # fmt: skip


def _by_symbol(positions: Any) -> dict[str, Book]:
    return {p.symbol: (p.quantity, p.cost_e9, p.realized_pnl_e9, p.commission_e9) for p in positions}


def _without_flat(books: dict[str, Book]) -> dict[str, Book]:
    return {symbol: book for symbol, book in books.items() if any(book)}
