"""Builders of domain values that the tests of the trading engine's rules share."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import count
from typing import Any

import pytest

from minhos_mesh.runtime.money import E9
from minhos_mesh.trading_engine.domain.order_events import (
    CancelRequested,
    FillReported,
    OrderCreated,
    OutcomeUnknown,
    ReplaceRequested,
    RiskApproved,
    VenueReported,
)
from minhos_mesh.trading_engine.domain.order_machine import apply, create
from minhos_mesh.trading_engine.domain.orders import (
    Fill,
    Order,
    OrderState,
    OrderTerms,
    OrderType,
    Origin,
    Provenance,
    Reason,
    Side,
)

SYMBOL = "NQZ26-CME"


@dataclass
class Builder:
    """Makes orders, fills and reports with as few words as a test needs."""

    ids: Any = field(default_factory=lambda: count(1))

    def created(self, quantity: int = 4, side: Side = Side.BUY, symbol: str = SYMBOL) -> OrderCreated:
        number = next(self.ids)
        return OrderCreated(
            at_ns=number,
            order_id=f"o-{number}",
            terms=OrderTerms(symbol=symbol, side=side, quantity=quantity, order_type=OrderType.MARKET),
            origin=Origin(request_id=f"r-{number}", actor="ann", provenance=Provenance.SIMULATED, decision_ns=number),
        )

    def order(self, state: OrderState = OrderState.NEW, quantity: int = 4, filled: int = 0) -> Order:
        """An order that went the usual way to `state`, with `filled` contracts booked on the way."""
        order = create(self.created(quantity))
        if state is OrderState.NEW:
            return order
        order = apply(order, RiskApproved(at_ns=2, approval_id="a-1"))
        if state is OrderState.UNKNOWN:
            order = apply(order, OutcomeUnknown(at_ns=3, message="no answer"))
        elif state is not OrderState.SUBMITTING:
            order = apply(order, self.report(OrderState.WORKING))
        if filled:
            order = apply(order, self.filled(order, filled))
        return self._finish(order, state)

    def _finish(self, order: Order, state: OrderState) -> Order:
        if state is OrderState.PENDING_CANCEL:
            return apply(order, CancelRequested(at_ns=4, reason=Reason.CANCELED_BY_USER, actor="ann"))
        if state is OrderState.PENDING_REPLACE:
            return apply(
                order, ReplaceRequested(at_ns=4, request_id="rr", quantity=9, limit_price_e9=None, stop_price_e9=None)
            )
        if state in (OrderState.CANCELED, OrderState.REJECTED, OrderState.EXPIRED):
            return apply(order, self.report(state))
        if state is OrderState.FILLED:
            return apply(order, self.filled(order, order.remaining))
        return order

    def report(self, state: OrderState, *, revision: int = 0, filled: int = 0, **more: Any) -> VenueReported:
        return VenueReported(at_ns=5, state=state, revision=revision, filled_quantity=filled, **more)

    def fill(
        self,
        quantity: int = 1,
        price_e9: int = 23_500 * E9,
        side: Side = Side.BUY,
        *,
        order_id: str = "o-1",
        commission_e9: int = 0,
        symbol: str = SYMBOL,
        at_ns: int = 6,
    ) -> Fill:
        return Fill(
            fill_id=f"f-{next(self.ids)}",
            order_id=order_id,
            symbol=symbol,
            side=side,
            quantity=quantity,
            price_e9=price_e9,
            commission_e9=commission_e9,
            cumulative_quantity=0,
            at_ns=at_ns,
            provenance=Provenance.SIMULATED,
        )

    def filled(self, order: Order, quantity: int = 1) -> FillReported:
        fill = self.fill(quantity, side=order.terms.side, order_id=order.order_id)
        return FillReported(at_ns=fill.at_ns, fill=fill)


@pytest.fixture
def make() -> Builder:
    return Builder()
