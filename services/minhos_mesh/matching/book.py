"""Decides when and at what price the orders of one instrument fill, from quotes and trades, the same every time."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from minhos_mesh.matching.events import Event, Fill, OrderUpdate, UpdateKind
from minhos_mesh.matching.liquidity import Liquidity
from minhos_mesh.matching.market import Quote, Trade
from minhos_mesh.matching.order import (
    IMMEDIATE,
    STOPPED,
    Order,
    Phase,
    TimeInForce,
    Violation,
    WorkingOrder,
    check_order,
)
from minhos_mesh.matching.rules import MatchingRules, OrderInvalid, OrderUnknown


class MatchingBook:
    """Working orders of one instrument; `now_ns` and the times of quotes and trades are of one clock that never goes back.

    A resting limit order fills at its own limit: when a fresh quote crosses it (up to the size shown), when a trade
    goes through its price (whole: every order there is gone), or by what is traded at its price beyond the queue ahead.
    """

    def __init__(self, tick_e9: int, rules: MatchingRules, *, session_open: bool = True) -> None:
        self._tick_e9 = tick_e9
        self._rules = rules
        self._orders: dict[str, WorkingOrder] = {}
        self._next_priority = 1
        self._liquidity = Liquidity(tick_e9, rules)
        self._last_trade: Trade | None = None
        self._events: list[Event] = []
        self.session_open = session_open

    @property
    def quote(self) -> Quote | None:
        """The latest quote, fresh or not."""
        return self._liquidity.quote

    @property
    def last_trade(self) -> Trade | None:
        """The latest trade between others."""
        return self._last_trade

    @property
    def has_orders(self) -> bool:
        """True when anything is alive here; without orders the market can be shown without being matched."""
        return bool(self._orders)

    def working(self) -> tuple[WorkingOrder, ...]:
        """Return the living orders, oldest priority first."""
        return tuple(sorted(self._orders.values(), key=lambda w: w.priority))

    def find(self, order_id: str) -> WorkingOrder:
        """Return a living order. Raises OrderUnknown."""
        try:
            return self._orders[order_id]
        except KeyError:
            raise OrderUnknown(order_id) from None

    def get(self, order_id: str) -> WorkingOrder | None:
        """Return a living order, None when there is none of that id."""
        return self._orders.get(order_id)

    def restore(self, working: WorkingOrder) -> None:
        """Put back an order that was alive before a restart; its place in the queue is learned anew."""
        self._orders[working.order.order_id] = replace(working, queue_ahead=None)
        self._next_priority = max(self._next_priority, working.priority + 1)

    def observe(self, quote: Quote | None, last_trade: Trade | None) -> None:
        """Learn the market without matching; only right while the book has no orders, or when they were just restored."""
        if quote is not None:
            self._liquidity.show(quote)
        if last_trade is not None:
            self._last_trade = last_trade

    def forget_market(self) -> None:
        """Forget quote and trade, since what comes next does not continue them."""
        self._liquidity.quote = None
        self._last_trade = None

    def submit(self, order: Order, now_ns: int) -> tuple[Event, ...]:
        """Take an order and fill what can be filled at once. Raises OrderInvalid; a closed session rejects."""
        violations = check_order(order, self._tick_e9)
        if order.order_id in self._orders:
            violations = (*violations, Violation("order_id", order.order_id, "an id that is not working"))
        if violations:
            raise OrderInvalid(violations)
        if not self.session_open:
            refused = WorkingOrder(order=order, phase=Phase.PENDING, priority=0)
            self._update(refused, UpdateKind.REJECTED, "SESSION_CLOSED", now_ns)
            return self._drain()
        working = WorkingOrder(order=order, phase=Phase.PENDING, priority=self._next_priority)
        self._next_priority += 1
        self._keep(working)
        self._update(working, UpdateKind.ACCEPTED, "", now_ns)
        if order.effective_ns <= now_ns:
            self._activate(working, now_ns)
        return self._drain()

    def cancel(self, order_id: str, now_ns: int, reason: str = "REQUESTED") -> tuple[Event, ...]:
        """Cancel what is left of an order. Raises OrderUnknown."""
        self._close(self.find(order_id), UpdateKind.CANCELED, reason, now_ns)
        return self._drain()

    def replace(
        self,
        order_id: str,
        now_ns: int,
        *,
        quantity: int | None = None,
        limit_price_e9: int | None = None,
        stop_price_e9: int | None = None,
    ) -> tuple[Event, ...]:
        """Change quantity (in all, above what is filled) or prices; priority is kept only when the quantity shrinks.

        Raises OrderUnknown, OrderInvalid.
        """
        working = self.find(order_id)
        old = working.order
        order = replace(
            old,
            quantity=old.quantity if quantity is None else quantity,
            limit_price_e9=old.limit_price_e9 if limit_price_e9 is None else limit_price_e9,
            stop_price_e9=old.stop_price_e9 if stop_price_e9 is None else stop_price_e9,
        )
        self._check_replacement(working, order)
        same_prices = (order.limit_price_e9, order.stop_price_e9) == (old.limit_price_e9, old.stop_price_e9)
        if same_prices and order.quantity <= old.quantity:
            working = replace(working, order=order)
        else:
            phase = Phase.TAKING if working.phase is Phase.RESTING else working.phase
            working = replace(working, order=order, phase=phase, priority=self._next_priority, queue_ahead=None)
            self._next_priority += 1
        self._keep(working)
        self._update(working, UpdateKind.REPLACED, "", now_ns)
        self._reconsider(working, now_ns)
        return self._drain()

    def advance(self, now_ns: int) -> tuple[Event, ...]:
        """Bring into effect the orders whose time has come, in order of that time, against the latest quote."""
        self._bring_into_effect(now_ns)
        return self._drain()

    def on_quote(self, quote: Quote, only: Collection[str] | None = None) -> tuple[Event, ...]:
        """Match against a new quote; `only` these orders where some are given."""
        self._bring_into_effect(quote.time_ns)
        self._liquidity.show(quote)
        if self._orders and self.session_open:
            for working in self._concerned(only):
                self._reconsider(working, quote.time_ns)
        return self._drain()

    def on_trade(self, trade: Trade, only: Collection[str] | None = None) -> tuple[Event, ...]:
        """Trigger stops and fill resting orders by a trade between others; earlier orders are served first.

        `only` these orders where some are given.
        """
        self._bring_into_effect(trade.time_ns)
        self._last_trade = trade
        if self._orders and self.session_open:
            left = trade.size
            for working in self._concerned(only):
                if working.order.effective_ns > trade.time_ns:
                    continue
                if working.phase is Phase.HELD:
                    self._trigger(working, trade.time_ns)
                elif working.phase is Phase.RESTING:
                    left -= self._fill_by_trade(working, trade, left)
        return self._drain()

    def open_session(self) -> None:
        """Let orders in and fill again."""
        self.session_open = True

    def close_session(self, now_ns: int) -> tuple[Event, ...]:
        """End the session: orders for the day expire, others stay and fill nothing until the next one."""
        self.session_open = False
        for working in self.working():
            if working.order.time_in_force is not TimeInForce.GTC:
                self._close(working, UpdateKind.EXPIRED, "SESSION_ENDED", now_ns)
        return self._drain()

    def _concerned(self, only: Collection[str] | None) -> tuple[WorkingOrder, ...]:
        return tuple(each for each in self.working() if only is None or each.order.order_id in only)

    # What follows changes orders and writes events; nothing above this line fills.

    def _bring_into_effect(self, now_ns: int) -> None:
        if not self._orders:
            return
        due = [w for w in self._orders.values() if w.phase is Phase.PENDING and w.order.effective_ns <= now_ns]
        for working in sorted(due, key=lambda w: (w.order.effective_ns, w.priority)):
            self._activate(working, working.order.effective_ns)

    def _activate(self, working: WorkingOrder, now_ns: int) -> None:
        phase = Phase.HELD if working.order.order_type in STOPPED else Phase.TAKING
        working = replace(working, phase=phase)
        self._keep(working)
        self._reconsider(working, now_ns)

    def _reconsider(self, working: WorkingOrder, now_ns: int) -> None:
        """Let one order meet the market as it is now."""
        if working.phase is Phase.HELD:
            self._trigger(working, now_ns)
        elif working.phase is Phase.TAKING:
            self._take(working, now_ns)
        elif working.phase is Phase.RESTING:
            self._fill_by_quote(working, now_ns)

    def _trigger(self, working: WorkingOrder, now_ns: int) -> None:
        """Wake a stop when a fresh trade, or the best price on its own side of a fresh quote, has reached it."""
        stop_e9, sign = working.order.stop_price_e9, int(working.order.side)
        quote = self._liquidity.fresh_quote(now_ns)
        own_e9 = quote.own(working.order.side)[0] if quote is not None else None
        trade = self._last_trade
        if trade is not None and now_ns - trade.time_ns > self._rules.max_quote_age_ns:
            trade = None
        seen = [price for price in (own_e9, trade.price_e9 if trade is not None else None) if price is not None]
        if stop_e9 is None or not self.session_open or not any(sign * price >= sign * stop_e9 for price in seen):
            return
        working = replace(working, phase=Phase.TAKING)
        self._keep(working)
        self._update(working, UpdateKind.TRIGGERED, "", now_ns)
        self._take(working, now_ns)

    def _take(self, working: WorkingOrder, now_ns: int) -> None:
        """Fill from the quote as a taker; what is left rests, waits or is cancelled, as the order says."""
        order = working.order
        limit_e9 = order.limit_price_e9
        if order.time_in_force is TimeInForce.FOK and self._reach(order, limit_e9, now_ns) < working.leaves_quantity:
            self._close(working, UpdateKind.CANCELED, self._why_unfilled(now_ns), now_ns)
            return
        if self.session_open:
            for price_e9, offered in list(self._liquidity.offers(order, limit_e9, now_ns)):
                paid, quantity = (
                    self._liquidity.slipped(order, price_e9, limit_e9),
                    min(offered, working.leaves_quantity),
                )
                self._liquidity.take(order.side, quantity)
                working = self._fill(working, quantity, paid, False, now_ns)
                if working.leaves_quantity == 0:
                    return
        if order.time_in_force in IMMEDIATE:
            self._close(working, UpdateKind.CANCELED, self._why_unfilled(now_ns), now_ns)
        elif limit_e9 is not None:
            self._rest(replace(working, phase=Phase.RESTING), now_ns)

    def _reach(self, order: Order, limit_e9: int | None, now_ns: int) -> int:
        return self._liquidity.reachable(order, limit_e9, now_ns) if self.session_open else 0

    def _why_unfilled(self, now_ns: int) -> str:
        if not self.session_open:
            return "SESSION_CLOSED"
        return "NOT_FILLED_AT_ONCE" if self._liquidity.fresh_quote(now_ns) is not None else "NO_FRESH_QUOTE"

    def _rest(self, working: WorkingOrder, now_ns: int) -> None:
        """Learn the place in the queue from the quote on the order's own side."""
        order, quote = working.order, self._liquidity.fresh_quote(now_ns)
        own_e9, size = quote.own(order.side) if quote is not None else (None, None)
        limit_e9, sign = order.limit_price_e9, int(order.side)
        ahead = working.queue_ahead
        if own_e9 is not None and limit_e9 is not None:
            if sign * limit_e9 > sign * own_e9:
                ahead = 0
            elif limit_e9 == own_e9 and (ahead is None or size is not None):
                shown = self._liquidity.shown_size(size)
                ahead = shown if ahead is None else min(ahead, shown)
        self._keep(replace(working, queue_ahead=ahead))

    def _fill_by_quote(self, working: WorkingOrder, now_ns: int) -> None:
        order = working.order
        limit_e9 = order.limit_price_e9
        if limit_e9 is None:
            raise AssertionError(f"order {order.order_id} rests without a limit")
        reach = self._liquidity.reachable(order, limit_e9, now_ns)
        quantity = min(reach, working.leaves_quantity)
        if quantity > 0:
            self._liquidity.take(order.side, quantity)
            working = self._fill(working, quantity, limit_e9, True, now_ns)
        if working.leaves_quantity > 0:
            self._rest(working, now_ns)

    def _fill_by_trade(self, working: WorkingOrder, trade: Trade, left: int) -> int:
        """Fill a resting order by a trade and return how much of the trade's size it used."""
        order, sign = working.order, int(working.order.side)
        limit_e9 = order.limit_price_e9
        if limit_e9 is None or sign * trade.price_e9 > sign * limit_e9 or trade.aggressor is order.side:
            return 0
        if trade.price_e9 != limit_e9:
            self._fill(working, working.leaves_quantity, limit_e9, True, trade.time_ns)
            return 0
        if working.queue_ahead is None or left <= 0:
            return 0
        quantity = min(max(left - working.queue_ahead, 0), working.leaves_quantity)
        working = replace(working, queue_ahead=max(working.queue_ahead - left, 0))
        self._keep(working)
        if quantity > 0:
            self._fill(working, quantity, limit_e9, True, trade.time_ns)
        return quantity

    def _fill(self, working: WorkingOrder, quantity: int, price_e9: int, maker: bool, now_ns: int) -> WorkingOrder:
        working = working.filled(quantity)
        order = working.order
        self._keep(working)
        if working.leaves_quantity == 0:
            del self._orders[order.order_id]
        self._events.append(
            Fill(
                order_id=order.order_id,
                side=order.side,
                price_e9=price_e9,
                quantity=quantity,
                cumulative_quantity=working.filled_quantity,
                leaves_quantity=working.leaves_quantity,
                commission_e9=quantity * self._rules.commission_per_contract_e9,
                maker=maker,
                time_ns=now_ns,
            )
        )
        return working

    def _check_replacement(self, working: WorkingOrder, order: Order) -> None:
        violations = list(check_order(order, self._tick_e9))
        if order.quantity <= working.filled_quantity:
            filled = working.filled_quantity
            violations.append(Violation("quantity", str(order.quantity), f"more than the {filled} already filled"))
        if violations:
            raise OrderInvalid(tuple(violations))

    def _keep(self, working: WorkingOrder) -> None:
        self._orders[working.order.order_id] = working

    def _close(self, working: WorkingOrder, kind: UpdateKind, reason: str, now_ns: int) -> None:
        del self._orders[working.order.order_id]
        self._update(working, kind, reason, now_ns)

    def _update(self, working: WorkingOrder, kind: UpdateKind, reason: str, now_ns: int) -> None:
        self._events.append(
            OrderUpdate(
                order_id=working.order.order_id,
                kind=kind,
                reason=reason,
                quantity=working.order.quantity,
                cumulative_quantity=working.filled_quantity,
                time_ns=now_ns,
            )
        )

    def _drain(self) -> tuple[Event, ...]:
        if not self._events:
            return ()
        events = tuple(self._events)
        self._events.clear()
        return events
