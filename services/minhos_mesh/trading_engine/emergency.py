"""Decides how everything is stopped: latched on disk, all orders cancelled, positions closed if asked, confirmed by the venue."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, Final

from minhos_mesh.runtime.clock import Clock
from minhos_mesh.runtime.log import get_logger
from minhos_mesh.trading_engine.desk import Desk, order_id_of
from minhos_mesh.trading_engine.domain import control as rules
from minhos_mesh.trading_engine.domain.control import Control
from minhos_mesh.trading_engine.domain.errors import TradingError, VenueUnavailable
from minhos_mesh.trading_engine.domain.order_events import CancelRequested, OrderCreated, RiskApproved
from minhos_mesh.trading_engine.domain.orders import (
    MAX_QUANTITY,
    Order,
    OrderState,
    OrderTerms,
    OrderType,
    Origin,
    Provenance,
    Reason,
    Side,
)
from minhos_mesh.trading_engine.domain.positions import Position
from minhos_mesh.trading_engine.ledger import Ledger
from minhos_mesh.trading_engine.ports import TradingFact, Venue
from minhos_mesh.trading_engine.reconcile import Reconciler
from minhos_mesh.trading_engine.store import Changes

_LOG: Final = get_logger("trading_engine.emergency")
_DISK_S: Final = 2.0
_CANCEL_S: Final = 3.0
_FLATTEN_S: Final = 3.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Stopped:
    """What a stop did; `unconfirmed` holds a sentence for everything that the venue has not confirmed."""

    control: Control
    canceled: tuple[Order, ...]
    flattening: tuple[Order, ...]
    unconfirmed: tuple[str, ...]


class EmergencyStop:
    """Stops everything. Needs the disk and the venue, and neither bus nor state manager nor risk manager."""

    def __init__(self, *, ledger: Ledger, desk: Desk, venue: Venue, reconciler: Reconciler, clock: Clock) -> None:
        self._ledger = ledger
        self._desk = desk
        self._venue = venue
        self._reconciler = reconciler
        self._clock = clock
        self._changed = asyncio.Event()
        ledger.on_order(lambda _: self._changed.set())

    async def stop(self, *, actor: str, reason: str, flatten: bool) -> Stopped:
        """Latch first, in memory and on disk; then cancel, then flatten; then say what is not confirmed.

        Called again it carries on with what is left. Raises ActorMissing.
        """
        open_before = [order.order_id for order in self._ledger.account.orders.values()]
        unconfirmed = await self._latch(actor, reason, flatten)
        if self._desk.stranded:
            return await self._stranded(open_before, unconfirmed)
        unconfirmed += await self._within(_CANCEL_S, self._cancel_everything(), "the cancels")
        flattening: list[Order] = []
        if flatten:
            unconfirmed += await self._within(_FLATTEN_S, self._flatten(flattening), "the flattening")
        unconfirmed += await self._within(_CANCEL_S, self._compare(flatten), "the positions")
        unconfirmed += await self._within(_DISK_S, self._settle(), "writing it down")
        orders = [self._ledger.account.get(order_id) for order_id in open_before]
        canceled = tuple(order for order in orders if order is not None and order.state is OrderState.CANCELED)
        unconfirmed += [f"order {order.order_id} is {order.state.value}" for order in self._others()]
        sent = tuple(self._ledger.account.get(order.order_id) or order for order in flattening)
        _LOG.error("emergency_stop", actor=actor, reason=reason, canceled=len(canceled), unconfirmed=unconfirmed)
        return Stopped(
            control=self._ledger.control,
            canceled=canceled,
            flattening=sent,
            unconfirmed=tuple(dict.fromkeys(unconfirmed)),
        )

    async def _stranded(self, open_before: Sequence[str], unconfirmed: list[str]) -> Stopped:
        """Nothing can be sent to the venue where orders and positions are: note the wish, and say so."""
        for order in self._others():
            self._wish(order)
        unconfirmed += await self._within(_DISK_S, self._settle(), "writing it down")
        told = [f"order {order_id} is at another venue" for order_id in open_before]
        unconfirmed = [*unconfirmed, self._desk.stranded, *told]
        return Stopped(control=self._ledger.control, canceled=(), flattening=(), unconfirmed=tuple(unconfirmed))

    async def _latch(self, actor: str, reason: str, flatten: bool) -> list[str]:
        before = self._ledger.control
        at_ns = self._clock.wall_ns()
        after = rules.emergency_stop(before, actor=actor, reason=reason, flatten=flatten, at_ns=at_ns)
        if after is before or after.emergency is None:
            return []
        facts = () if before.emergency is not None else (TradingFact(at_ns=at_ns, latch=after.emergency),)
        self._ledger.control = after  # before anything that may fail: from here on no order passes
        try:
            async with asyncio.timeout(_DISK_S):
                await asyncio.shield(self._ledger.set_control(after, facts))
        except TimeoutError:
            return ["the latch is not on disk: the disk did not answer in time"]
        except TradingError as error:
            return [f"the latch is not on disk: {error}"]
        return []

    async def _within(self, seconds: float, work: Coroutine[Any, Any, list[str]], what: str) -> list[str]:
        try:
            async with asyncio.timeout(seconds):
                return await work
        except TimeoutError:
            return [f"{what} took longer than {seconds:g} s"]
        except VenueUnavailable as error:
            return [f"the venue does not answer: {error}"]
        except TradingError as error:
            return [str(error)]

    async def _cancel_everything(self) -> list[str]:
        """Note the wish on every order, cancel at the venue with one call, then whatever that did not reach."""
        for order in self._others():
            self._wish(order)
        try:
            for view in await self._venue.cancel_all():
                await self._reconciler.take_view(view, wait=False)
        except VenueUnavailable as error:
            for order in self._others():
                self._reconciler.ask(order.order_id)
            return [f"the venue does not answer: {error}"]
        await asyncio.gather(*(self._desk.send_cancel(order.order_id) for order in self._others()))
        while self._others():
            self._changed.clear()
            await self._changed.wait()
        return []

    def _wish(self, order: Order) -> None:
        at_ns = self._ledger.now_ns(order.origin.provenance, order.updated_ns)
        wish = CancelRequested(at_ns=at_ns, reason=Reason.EMERGENCY_STOP, actor="the emergency stop")
        self._ledger.apply(order.order_id, wish)

    def _others(self) -> list[Order]:
        """Give the open orders that the stop did not send itself."""
        return [order for order in self._ledger.account.orders.values() if not order.origin.emergency]

    async def _flatten(self, sent: list[Order]) -> list[str]:
        """Close each position at the market, unless an order that does so is on its way already."""
        for position in sorted(self._ledger.account.positions.values(), key=lambda held: held.symbol):
            exposure = self._ledger.account.exposure(position.symbol)
            left = abs(exposure.toward)
            while left > 0:
                quantity = min(left, MAX_QUANTITY)
                sent.append(await self._close(position, quantity if exposure.toward > 0 else -quantity, len(sent)))
                left -= quantity
        while any(position.quantity for position in self._ledger.account.positions.values()):
            self._changed.clear()
            await self._changed.wait()
        return []

    async def _close(self, position: Position, quantity: int, number: int) -> Order:
        account = self._ledger.account
        provenance = account.provenance(position.symbol) or Provenance.SIMULATED
        now_ns = self._ledger.now_ns(provenance, position.updated_ns)
        request_id = f"flatten:{position.symbol}:{account.version}:{self._clock.wall_ns()}:{number}"
        created = OrderCreated(
            at_ns=now_ns,
            order_id=order_id_of(request_id),
            terms=OrderTerms(
                symbol=position.symbol,
                side=Side.SELL if quantity > 0 else Side.BUY,
                quantity=abs(quantity),
                order_type=OrderType.MARKET,
            ),
            origin=Origin(
                request_id=request_id,
                actor="emergency stop",
                provenance=provenance,
                decision_ns=now_ns,
                reduce_only=True,
                emergency=True,
            ),
        )
        await self._ledger.create(created)
        order = await self._ledger.settle(created.order_id, RiskApproved(at_ns=now_ns, approval_id=None))
        await self._desk.send(order.order_id)
        return order

    async def _settle(self) -> list[str]:
        """Wait until everything that is answered is on disk."""
        await asyncio.shield(self._ledger.record(Changes()))
        return []

    async def _compare(self, flatten: bool) -> list[str]:
        """Say where the venue's positions differ from the engine's, or are not flat although they should be."""
        theirs = await self._venue.positions()
        ours = {symbol: held.quantity for symbol, held in self._ledger.account.positions.items() if held.quantity}
        found = [
            f"{symbol}: the venue holds {theirs.get(symbol, 0)}, the engine counts {ours.get(symbol, 0)}"
            for symbol in sorted(theirs.keys() | ours.keys())
            if theirs.get(symbol, 0) != ours.get(symbol, 0)
        ]
        if flatten:
            found += [f"{symbol}: {quantity} contracts are still held" for symbol, quantity in sorted(theirs.items())]
        return found
