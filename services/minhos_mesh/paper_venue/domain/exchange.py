"""Decides everything that the venue does: takes orders, lets the market move them, keeps positions and the account."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from minhos_mesh.matching import (
    Event,
    Fill,
    MatchingBook,
    MatchingRules,
    OrderUpdate,
    Phase,
    Position,
    Quote,
    UpdateKind,
    WorkingOrder,
    apply_fill,
    session_open,
)
from minhos_mesh.paper_venue.domain.market import DELAY_ALLOWED_NS, SymbolMarket, apply_tick, observe_ticks, time_of
from minhos_mesh.paper_venue.domain.orders import REDUCE_ONLY_WOULD_INCREASE, VENUE, Change, OrderRecord
from minhos_mesh.runtime.instruments import InstrumentSpec
from minhos_mesh.runtime.tick_layout import Tick
from minhos_mesh.venue.domain.errors import OrderDone, OrderUnknown, ProvenanceRefused, SymbolUnknown
from minhos_mesh.venue.domain.orders import (
    DELAYED,
    LIVE,
    PROVENANCE_NAMES,
    REPLAY,
    SIMULATED,
    FillRecord,
    OrderState,
    Submission,
    check_terms,
)
from minhos_mesh.venue.domain.views import AccountView, HeldPosition, ProgressRecord

CURRENCY = "USD"
"""Currency of the paper account."""


class Exchange:
    """The venue's state; each method is one step and returns the changes it made, in order of revision.

    `now_ns` is wall time; in a replay the venue's own time is the event time of the last tick that took effect.
    """

    def __init__(
        self,
        specs: Mapping[str, InstrumentSpec],
        rules: MatchingRules,
        *,
        initial_cash_e9: int,
        latency_ns: int,
        revision: int = 0,
        done_kept: int = 50_000,
    ) -> None:
        """`specs` gives the instrument of each symbol that is traded here."""
        self.markets = {s: SymbolMarket(s, spec, MatchingBook(spec.tick_e9, rules)) for s, spec in specs.items()}
        self.orders: dict[str, OrderRecord] = {}
        self.positions: dict[str, HeldPosition] = {}
        self.revision = revision
        self._initial_cash_e9 = initial_cash_e9
        self._latency_ns = latency_ns
        self._max_age_ns = rules.max_quote_age_ns
        self._next_number = 1
        self._fills = 0
        self._done_kept = done_kept
        self._done: list[str] = []

    def restore(self, orders: Iterable[OrderRecord], positions: Mapping[str, HeldPosition]) -> None:
        """Take in what was on disk; living orders go back into their books."""
        for record in sorted(orders, key=lambda r: r.number):
            self.orders[record.client_order_id] = record
            self._next_number = max(self._next_number, record.number + 1)
            if record.state.done:
                self._done.append(record.client_order_id)
            elif record.terms.symbol in self.markets:
                self._market(record.terms.symbol).book.restore(_working(record))
        self.positions.update(positions)
        self._fills = max((held.fills for held in positions.values()), default=0)

    def submit(self, submission: Submission, now_ns: int) -> tuple[OrderRecord, tuple[Change, ...]]:
        """Take an order; one that is known is returned as it stands.

        Raises RequestConflict, SymbolUnknown, ProvenanceRefused, InvalidField and MoneyError (off tick, off scale).
        """
        known = self.orders.get(submission.client_order_id)
        if known is not None:
            return self.same(known, submission), ()
        market = self._market(submission.terms.symbol)
        check_terms(submission.terms, market.spec, market.last_price_e9)
        if submission.provenance == LIVE and market.provenance not in (0, LIVE):
            raise ProvenanceRefused("LIVE", f"the market of this venue is {PROVENANCE_NAMES[market.provenance]}")
        time_ns = self._time(market, now_ns)
        record = self._new_record(submission, market, time_ns)
        if submission.reduce_only and not self._reduces(record):
            refused = replace(record, state=OrderState.REJECTED, reason=REDUCE_ONLY_WOULD_INCREASE)
            noted = self._note([refused])
            return self.orders[record.client_order_id], noted
        self.orders[record.client_order_id] = record
        changes: list[Change] = []
        self._follow_session(market, now_ns, changes)
        events = market.book.submit(record.terms.as_order(record.client_order_id, record.effective_ns), time_ns)
        changes.extend(self._book(market, events, time_ns))
        return self.orders[record.client_order_id], tuple(changes)

    def same(self, known: OrderRecord, submission: Submission) -> OrderRecord:
        """Return the known order when it was asked for with the same content. Raises RequestConflict."""
        submission.check_same(known.asked, known.reduce_only)
        return known

    def find(self, client_order_id: str) -> OrderRecord:
        """Return an order. Raises OrderUnknown."""
        try:
            return self.orders[client_order_id]
        except KeyError:
            raise OrderUnknown(client_order_id) from None

    def open_orders(self, symbol: str | None = None) -> tuple[OrderRecord, ...]:
        """Return the orders that still work, oldest first."""
        chosen = [self.markets[symbol]] if symbol in self.markets else [] if symbol else list(self.markets.values())
        records = [self.orders[w.order.order_id] for market in chosen for w in market.book.working()]
        return tuple(sorted(records, key=lambda r: r.number))

    def cancel(self, client_order_id: str, now_ns: int) -> tuple[OrderRecord, tuple[Change, ...]]:
        """Cancel what is left of an order; one that is done is returned as it is. Raises OrderUnknown."""
        record = self.find(client_order_id)
        if record.state.done:
            return record, ()
        market = self._market(record.terms.symbol)
        time_ns = self._time(market, now_ns)
        changes = self._book(market, market.book.cancel(client_order_id, time_ns), time_ns)
        return self.orders[client_order_id], changes

    def replace(
        self,
        client_order_id: str,
        now_ns: int,
        *,
        quantity: int | None = None,
        limit_price_e9: int | None = None,
        stop_price_e9: int | None = None,
    ) -> tuple[OrderRecord, tuple[Change, ...]]:
        """Change a living order. Raises OrderUnknown, OrderDone, InvalidField, MoneyError."""
        record = self.find(client_order_id)
        if record.state.done:
            raise OrderDone(client_order_id, record.state.name, "replace it")
        old = record.terms
        terms = replace(
            old,
            quantity=old.quantity if quantity is None else quantity,
            limit_price_e9=old.limit_price_e9 if limit_price_e9 is None else limit_price_e9,
            stop_price_e9=old.stop_price_e9 if stop_price_e9 is None else stop_price_e9,
        )
        if terms.quantity <= record.filled_quantity:
            raise OrderDone(
                client_order_id, record.state.name, f"lower it to {terms.quantity}, {record.filled_quantity} are filled"
            )
        market = self._market(old.symbol)
        check_terms(terms, market.spec, market.last_price_e9, path="")
        time_ns = self._time(market, now_ns)
        self.orders[client_order_id] = replace(record, terms=terms)
        events = market.book.replace(
            client_order_id, time_ns, quantity=quantity, limit_price_e9=limit_price_e9, stop_price_e9=stop_price_e9
        )
        changes = self._book(market, events, time_ns)
        return self.orders[client_order_id], changes

    def on_epoch(self, symbol: str, epoch: int, provenance: int) -> None:
        """Follow a source that began anew."""
        market = self._market(symbol)
        if epoch != market.epoch:
            market.epoch, market.sequence, market.followed = epoch, 0, False
            market.book.forget_market()
        market.provenance = provenance

    def on_snapshot(
        self,
        symbol: str,
        sequence: int,
        event_time_ns: int,
        quote: tuple[int | None, int | None, int | None, int | None],
        now_ns: int,
    ) -> None:
        """Begin with the last values of a market: bid, ask and their sizes as they were at an event time."""
        market = self._market(symbol)
        bid_e9, ask_e9, bid_size, ask_size = quote
        time_ns = min(event_time_ns + (DELAY_ALLOWED_NS if market.provenance == DELAYED else 0), now_ns)
        shown = Quote(time_ns=time_ns, bid_e9=bid_e9, ask_e9=ask_e9, bid_size=bid_size, ask_size=ask_size)
        market.book.observe(shown if (bid_e9, ask_e9) != (None, None) else None, None)
        market.sequence, market.event_time_ns, market.followed = sequence, event_time_ns, False

    def on_ticks(self, symbol: str, ticks: Sequence[Tick], now_ns: int) -> tuple[Change, ...]:
        """Let ticks take effect, each once and in order; history that is told now passes by and fills nothing.

        Ticks that are late and go on right behind those that were followed are what the venue has missed, so they
        meet the orders that were there at their time. Behind a gap nothing is known of that time.
        """
        market = self._market(symbol)
        fresh = [tick for tick in ticks if tick.sequence > market.sequence]
        if not fresh:
            return ()
        past = self._past(market, fresh, now_ns)
        changes: list[Change] = []
        self._follow_session(market, now_ns, changes)
        market.followed = market.followed and fresh[0].sequence == market.sequence + 1
        if market.followed:
            changes.extend(self._catch_up(market, fresh[:past]))
        else:
            observe_ticks(market, fresh[:past])
        fresh = fresh[past:]
        market.followed = market.followed or bool(fresh)
        for index, tick in enumerate(fresh):
            if not market.book.has_orders:
                observe_ticks(market, fresh[index:])
                break
            events = apply_tick(market, tick)
            if events:
                changes.extend(self._book(market, events, self._time(market, now_ns)))
        return tuple(changes)

    def _catch_up(self, market: SymbolMarket, ticks: Sequence[Tick]) -> list[Change]:
        """Let missed ticks meet the orders that have stood as they are since before them; each fill has its tick's time."""
        changes: list[Change] = []
        for index, tick in enumerate(ticks):
            if not market.book.has_orders:
                observe_ticks(market, ticks[index:])
                break
            time_ns = time_of(tick, market.provenance)
            standing = {
                working.order.order_id
                for working in market.book.working()
                if self.orders[working.order.order_id].update_ns <= time_ns
            }
            events = apply_tick(market, tick, standing)
            changes.extend(self._book(market, events, time_ns))
        return changes

    def _past(self, market: SymbolMarket, ticks: Sequence[Tick], now_ns: int) -> int:
        """Return how many ticks, the first ones, happened too long ago to fill orders of now; none do in a replay.

        A source whose file was replaced or cut off is read again from its beginning, under another epoch.
        """
        if market.provenance == REPLAY:
            return 0
        oldest_ns = now_ns - self._max_age_ns
        fresh = (place for place, tick in enumerate(ticks) if time_of(tick, market.provenance) >= oldest_ns)
        return next(fresh, len(ticks))

    def on_time(self, now_ns: int) -> tuple[Change, ...]:
        """Let time pass: sessions open and close, orders take effect."""
        changes: list[Change] = []
        for market in self.markets.values():
            self._follow_session(market, now_ns, changes)
            if market.provenance != REPLAY and market.book.has_orders:
                changes.extend(self._book(market, market.book.advance(now_ns), now_ns))
        return tuple(changes)

    def progress(self, symbol: str) -> tuple[Change, ...]:
        """Note how far the venue has gone in the market of a symbol."""
        market = self._market(symbol)
        self.revision += 1
        return (
            ProgressRecord(symbol=symbol, epoch=market.epoch, through_sequence=market.sequence, revision=self.revision),
        )

    def account(self) -> AccountView:
        """Return the account at the last prices; a position without a price counts with its cost."""
        realized = sum(held.position.realized_pnl_e9 for held in self.positions.values())
        commission = sum(held.position.commission_e9 for held in self.positions.values())
        cash = self._initial_cash_e9 + realized - commission
        return AccountView(
            account_id=VENUE,
            currency=CURRENCY,
            cash_e9=cash,
            equity_e9=cash + sum(map(self._open_profit, self.positions)),
            commission_e9=commission,
            live=False,
        )

    def unrealized_e9(self, symbol: str) -> int | None:
        """Return the open profit of a position, None without a price."""
        market = self.markets.get(symbol)
        price_e9 = market.last_price_e9 if market is not None else None
        if market is None or price_e9 is None:
            return None
        return self.positions[symbol].position.unrealized_pnl_e9(price_e9, market.spec.multiplier)

    def multiplier(self, symbol: str) -> int:
        """Return the value of one point of one contract; 1 for a symbol that is no longer traded here."""
        market = self.markets.get(symbol)
        return market.spec.multiplier if market is not None else 1

    def _open_profit(self, symbol: str) -> int:
        return self.unrealized_e9(symbol) or 0

    def _market(self, symbol: str) -> SymbolMarket:
        try:
            return self.markets[symbol]
        except KeyError:
            raise SymbolUnknown(symbol, tuple(sorted(self.markets))) from None

    def _time(self, market: SymbolMarket, now_ns: int) -> int:
        return market.event_time_ns if market.provenance == REPLAY else now_ns

    def _new_record(self, submission: Submission, market: SymbolMarket, time_ns: int) -> OrderRecord:
        replayed = REPLAY in (market.provenance, submission.provenance)
        decided_ns = submission.decision_ns if submission.decision_ns is not None else time_ns
        record = OrderRecord(
            client_order_id=submission.client_order_id,
            number=self._next_number,
            asked=submission.terms,
            terms=submission.terms,
            provenance=submission.provenance,
            reduce_only=submission.reduce_only,
            state=OrderState.PENDING,
            reason="",
            filled_quantity=0,
            filled_value_e9=0,
            fills=0,
            effective_ns=decided_ns + self._latency_ns if replayed else time_ns,
            phase=Phase.PENDING,
            priority=0,
            create_ns=time_ns,
            update_ns=time_ns,
            revision=0,
        )
        self._next_number += 1
        return record

    def _follow_session(self, market: SymbolMarket, now_ns: int, changes: list[Change]) -> None:
        is_open = market.provenance in (0, REPLAY, SIMULATED) or session_open(now_ns)
        if is_open == market.book.session_open:
            return
        if is_open:
            market.book.open_session()
            return
        changes.extend(self._book(market, market.book.close_session(now_ns), now_ns))

    def _reduces(self, record: OrderRecord) -> bool:
        """Return whether an order, behind all others on its side, still only closes what is held."""
        held = self.positions.get(record.terms.symbol)
        quantity = held.position.quantity if held is not None else 0
        side = record.terms.side
        others = [o for o in self.open_orders(record.terms.symbol) if o.client_order_id != record.client_order_id]
        ahead = sum(
            o.terms.quantity - o.filled_quantity for o in others if o.terms.side is side and o.number < record.number
        )
        left = record.terms.quantity - record.filled_quantity
        return quantity * int(side) < 0 and ahead + left <= abs(quantity)

    def _book(self, market: SymbolMarket, events: tuple[Event, ...], time_ns: int) -> tuple[Change, ...]:
        """Turn what the matcher said into records, positions and revisions."""
        changes: list[Change] = []
        touched: dict[str, OrderRecord] = {}
        for event in events:
            record = touched.get(event.order_id, self.orders[event.order_id])
            if isinstance(event, Fill):
                at_ns = event.time_ns if market.provenance == REPLAY else time_ns
                record = record.filled_by(event, at_ns)
                touched.pop(event.order_id, None)
                changes.append(self._fill(market, record, event, at_ns))
                changes.extend(self._note([self._placed(market, record)]))
            else:
                touched[event.order_id] = self._updated(record, event, market, time_ns)
        changes.extend(self._note([self._placed(market, record) for record in touched.values()]))
        if any(isinstance(event, Fill) for event in events):
            changes.extend(self._cancel_growing(market, time_ns))
        return tuple(changes)

    def _updated(self, record: OrderRecord, event: OrderUpdate, market: SymbolMarket, time_ns: int) -> OrderRecord:
        replayed = market.provenance == REPLAY and event.kind is not UpdateKind.ACCEPTED
        return record.updated(event, event.time_ns if replayed else time_ns)

    def _placed(self, market: SymbolMarket, record: OrderRecord) -> OrderRecord:
        """Return the record with where the order stands in the book."""
        working = market.book.get(record.client_order_id)
        if record.state.done or working is None:
            return record
        waiting = working.phase in (Phase.PENDING, Phase.HELD)
        state = OrderState.PENDING if waiting else OrderState.WORKING
        return replace(record, state=state, phase=working.phase, priority=working.priority)

    def _note(self, records: Iterable[OrderRecord]) -> tuple[Change, ...]:
        noted: list[Change] = []
        for record in records:
            self.revision += 1
            kept = replace(record, revision=self.revision)
            self.orders[kept.client_order_id] = kept
            if kept.state.done:
                self._done.append(kept.client_order_id)
            noted.append(kept)
        while len(self._done) > self._done_kept:
            self.orders.pop(self._done.pop(0), None)
        return tuple(noted)

    def _fill(self, market: SymbolMarket, record: OrderRecord, fill: Fill, at_ns: int) -> FillRecord:
        self.revision += 1
        self._fills += 1
        held = self.positions.get(market.symbol, HeldPosition(Position(), 0, 0))
        position = apply_fill(
            held.position, fill.side, fill.quantity, fill.price_e9, market.spec.multiplier, fill.commission_e9
        )
        self.positions[market.symbol] = HeldPosition(position, at_ns, self._fills)
        return FillRecord(
            fill_id=f"{record.client_order_id}/{record.fills}",
            client_order_id=record.client_order_id,
            venue_order_id=record.venue_order_id,
            symbol=market.symbol,
            side=fill.side,
            quantity=fill.quantity,
            cumulative_quantity=fill.cumulative_quantity,
            price_e9=fill.price_e9,
            commission_e9=fill.commission_e9,
            time_ns=at_ns,
            provenance=market.provenance,
            market_sequence=market.sequence or None,
            revision=self.revision,
        )

    def _cancel_growing(self, market: SymbolMarket, time_ns: int) -> tuple[Change, ...]:
        """Cancel orders that may only reduce and would no longer, since another order was filled first."""
        changes: list[Change] = []
        for record in self.open_orders(market.symbol):
            if record.reduce_only and not self._reduces(record):
                events = market.book.cancel(record.client_order_id, time_ns, REDUCE_ONLY_WOULD_INCREASE)
                changes.extend(self._book(market, events, time_ns))
        return tuple(changes)


def _working(record: OrderRecord) -> WorkingOrder:
    return WorkingOrder(
        order=record.terms.as_order(record.client_order_id, record.effective_ns),
        phase=record.phase,
        priority=record.priority,
        filled_quantity=record.filled_quantity,
    )
