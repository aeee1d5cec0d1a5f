"""Decides how what is not known becomes known: the venue is asked until it answers, at the start as after every break."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Final

from minhos_mesh.runtime.backoff import Backoff
from minhos_mesh.runtime.conditions import Conditions
from minhos_mesh.runtime.log import get_logger
from minhos_mesh.trading_engine.desk import Desk
from minhos_mesh.trading_engine.domain.errors import UnknownOrder, VenueUnavailable
from minhos_mesh.trading_engine.domain.order_events import (
    CancelRequested,
    Denied,
    FillReported,
    NotAtVenue,
    ReplaceRefused,
)
from minhos_mesh.trading_engine.domain.orders import Fill, Order, OrderState, Provenance, Reason
from minhos_mesh.trading_engine.ledger import Ledger
from minhos_mesh.trading_engine.ports import Venue, VenueKnowsNothing, VenueView
from minhos_mesh.trading_engine.store import Store, VenueCursor

_LOG: Final = get_logger("trading_engine.reconcile")
_BACKOFF: Final = Backoff(first=0.05, factor=2.0, limit=1.0)
RESEND_WITHIN_NS: Final = 10_000_000_000
"""An order that never reached the venue is sent again, under the same id, only this long after it was written."""
CONDITION: Final = "VENUE_AWAY"


class Reconciler:
    """Keeps a list of orders to ask the venue about, and takes in what it says of all of them after a break."""

    def __init__(self, *, ledger: Ledger, store: Store, venue: Venue, conditions: Conditions) -> None:
        self._ledger = ledger
        self._store = store
        self._venue = venue
        self._conditions = conditions
        self._open: dict[str, None] = {}
        self._wake = asyncio.Event()
        self._desk: Desk | None = None

    def use(self, desk: Desk) -> None:
        """Name the desk that sends what must be sent; it names this one for what it wants asked."""
        self._desk = desk

    def ask(self, order_id: str) -> None:
        """Ask the venue about an order soon, and until it is known how it stands."""
        self._open[order_id] = None
        self._wake.set()

    def waiting(self) -> tuple[str, ...]:
        """Give the orders that are still to be asked about."""
        return tuple(self._open)

    async def run(self) -> None:
        """Ask until cancelled."""
        in_vain = 0
        while True:
            await self._wake.wait()
            self._wake.clear()
            try:
                in_vain = 0 if await self._round() else in_vain + 1
                self._conditions.clear(CONDITION)
            except VenueUnavailable as error:
                in_vain += 1
                self._conditions.set(CONDITION, f"the venue does not answer, {len(self._open)} orders wait: {error}")
            if self._open:
                await asyncio.sleep(_BACKOFF.delay(max(in_vain, 1)))
                self._wake.set()

    async def take_over(self) -> None:
        """Take over the open orders of a former life.

        One that risk never answered for is denied, all others are asked about, and under a latched emergency stop all
        are cancelled.
        """
        for order in list(self._ledger.account.orders.values()):
            if order.state is OrderState.NEW:
                why = "the engine ended before the risk manager had answered, and no answer means no"
                denied = Denied(at_ns=self._at(order), reason=Reason.RISK_UNAVAILABLE, message=why)
                await self._ledger.settle(order.order_id, denied)
                continue
            if self._ledger.control.emergency is not None and not order.origin.emergency:
                wish = CancelRequested(at_ns=self._at(order), reason=Reason.EMERGENCY_STOP, actor="emergency stop")
                await self._ledger.settle(order.order_id, wish)
            self.ask(order.order_id)

    async def everything(self) -> int:
        """Take in all open orders and all fills that are not known yet; returns the venue's revision of that view.

        Raises VenueUnavailable.
        """
        views, revision = await self._venue.open_orders()
        cursor = self._ledger.cursor
        async for fill in self._venue.fills(after_fill_id=cursor.fill_id or None):
            await self.take_fill(fill, VenueCursor(revision=cursor.revision, fill_id=fill.fill_id))
        for view in views:
            await self.take_view(view)
        there = {view.order_id for view in views}
        for order in self._ledger.account.working_orders():
            if order.order_id not in there:
                self.ask(order.order_id)
        return revision

    async def take_view(self, view: VenueView, *, wait: bool = True) -> None:
        """Take in how an order stands at the venue; one that came back from the dead is cancelled."""
        order = await self._known(view.order_id)
        if order is None or self._desk is None:
            return
        was_given_up = order.given_up
        after = await self._desk.take_report(view.order_id, view.report, wait=wait)
        if after.state is OrderState.UNKNOWN:
            self.ask(after.order_id)
        if was_given_up and after.state.is_working:
            _LOG.error("order.turned_up", order_id=after.order_id)
            wish = CancelRequested(at_ns=self._at(after), reason=Reason.VENUE_NEVER_SAW, actor="the engine")
            await self._ledger.settle(after.order_id, wish)
            self.ask(after.order_id)

    async def take_fill(self, fill: Fill, cursor: VenueCursor | None = None) -> None:
        """Book a fill once, however often it is told."""
        order = await self._known(fill.order_id)
        if order is None:
            return
        self._ledger.apply(fill.order_id, FillReported(at_ns=fill.at_ns, fill=fill), cursor=cursor)

    async def _known(self, order_id: str) -> Order | None:
        """Give an order of ours, from disk when it ended long ago; None, and a loud log, for one that is not ours."""
        order = self._ledger.account.get(order_id)
        if order is None:
            order = await self._store.order(order_id)
            if order is None:
                _LOG.error("venue.order_is_not_ours", order_id=order_id)
                self._conditions.set("FOREIGN_ORDER", f"the venue has an order {order_id} that is not the engine's")
                return None
            self._ledger.account.restore(order)
        return order

    async def _round(self) -> bool:
        """Ask once about each order; False when that settled none of them."""
        waited = list(self._open)
        for order_id in waited:
            try:
                if await self._settled(order_id):
                    self._open.pop(order_id, None)
            except UnknownOrder:
                self._open.pop(order_id, None)
        return any(order_id not in self._open for order_id in waited)

    async def _settled(self, order_id: str) -> bool:
        """Ask once about one order; True when nothing is left to ask."""
        order = self._ledger.account.get(order_id)
        if order is None or self._desk is None or order.state is OrderState.NEW:
            return True
        if order.state.is_terminal and not order.misses_fills:
            return True
        if self._desk.is_sending(order_id):
            return False
        try:
            view = await self._venue.get(order_id)
        except VenueKnowsNothing:
            return await self._never_arrived(order)
        await self.take_view(replace(view, report=view.settled))
        return await self._finish(order_id)

    async def _finish(self, order_id: str) -> bool:
        """Do what is left once the venue has told how an order stands."""
        order = self._ledger.account.get(order_id)
        if order is None or self._desk is None:
            return True
        if order.misses_fills:
            async for fill in self._venue.fills(order_id=order_id):
                await self.take_fill(fill)
            order = self._ledger.account.get(order_id) or order
        if order.cancel_requested and order.state.is_working:
            await self._desk.cancel(order_id, actor="the engine", reason=order.reason)
        elif order.state is OrderState.PENDING_REPLACE:
            refused = ReplaceRefused(at_ns=self._at(order), message="the venue still has the former terms")
            await self._ledger.settle(order_id, refused)
        order = self._ledger.account.get(order_id) or order
        waits = order.state is OrderState.UNKNOWN or (order.cancel_requested and order.state.is_working)
        return not waits and not order.misses_fills

    async def _never_arrived(self, order: Order) -> bool:
        """Send an order that never arrived again, under the same id, while it is fresh; else give it up."""
        if self._desk is None:
            return True
        unsent = order.state in (OrderState.SUBMITTING, OrderState.UNKNOWN) and order.venue_order_id is None
        if unsent and self._may_resend(order):
            await self._desk.send(order.order_id)
            return False
        reason = Reason.VENUE_NEVER_SAW
        if self._ledger.control.emergency is not None:
            reason = Reason.EMERGENCY_STOP
        elif order.cancel_requested:
            reason = order.reason
        message = "the venue says that it has never had this order"
        await self._ledger.settle(order.order_id, NotAtVenue(at_ns=self._at(order), reason=reason, message=message))
        return True

    def _may_resend(self, order: Order) -> bool:
        if order.cancel_requested or (self._ledger.control.emergency is not None and not order.origin.emergency):
            return False
        if order.origin.provenance is Provenance.REPLAY:
            return True
        return self._at(order) - order.created_ns <= RESEND_WITHIN_NS

    def _at(self, order: Order) -> int:
        return self._ledger.now_ns(order.origin.provenance, order.updated_ns)
