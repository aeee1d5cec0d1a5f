"""Decides what the engine does for its callers: who is asked, what is changed, what is answered."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from minhos_mesh.runtime.clock import Clock
from minhos_mesh.runtime.log import get_logger
from minhos_mesh.trading_engine.auto_trade import AutoTrade
from minhos_mesh.trading_engine.desk import Asked, Desk
from minhos_mesh.trading_engine.domain import control as rules
from minhos_mesh.trading_engine.domain.control import Control, TradingMode, TradingState
from minhos_mesh.trading_engine.domain.errors import (
    InvalidOrder,
    MarketDataUnavailable,
    RequestIdReused,
    UnknownOrder,
    UnknownRequest,
    Violation,
    WrongProvenance,
)
from minhos_mesh.trading_engine.domain.order_events import ReplaceRequested
from minhos_mesh.trading_engine.domain.orders import Fill, Order, OrderTerms, Origin, Provenance
from minhos_mesh.trading_engine.domain.performance import Performance, measure
from minhos_mesh.trading_engine.domain.positions import Position
from minhos_mesh.trading_engine.domain.signals import Signal, check_time
from minhos_mesh.trading_engine.domain.validation import InstrumentSpec
from minhos_mesh.trading_engine.emergency import EmergencyStop, Stopped
from minhos_mesh.trading_engine.ledger import Ledger
from minhos_mesh.trading_engine.ports import Evidence, Market, VenueInfo
from minhos_mesh.trading_engine.replacing import Replacing
from minhos_mesh.trading_engine.signal_desk import SignalDesk, asked_for, evidence_of
from minhos_mesh.trading_engine.store import Answered, Changes, Store, decode_control, encode_control

_LOG: Final = get_logger("trading_engine.service")
PAPER: Final = "paper"
"""Name of the paper venue."""
DEFAULT_ACTOR: Final = "default"
"""Who set a mode that nobody has chosen yet."""
_PRICE_S: Final = 2.0
"""How long an order waits for the price that it is judged by: longer than market data takes to be handed over on a busy machine, and
leaves the rest of the deadline of PlaceOrder to risk manager and venue."""
_SHOWN_PRICE_S: Final = 0.4
"""How long a view of positions waits for a price; less than the deadline of those who ask for it, and it can do without."""
_PROVENANCE_S: Final = 1.0
"""How long it is taken as known where the data of a symbol comes from."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Holdings:
    """Positions with what they are worth; totals in 1e-9 of the currency, None where a price is missing."""

    positions: tuple[tuple[Position, int | None], ...]
    realized_e9: int
    commission_e9: int
    unrealized_e9: int | None
    version: int
    replay: Mapping[str, int]
    revision: int
    """Revision of the positions among those that are watched."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ControlView:
    """Control with what it means at this venue."""

    control: Control
    auto_threshold: float | None
    """Confidence from which a signal is acted on; None while the state was never heard."""
    auto_off: str
    """Why no signal is acted on although the mode is an automatic one; empty otherwise."""
    venue: str
    venue_live: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ControlRequest:
    """Who wants control changed and why; `expected_version` None where any will do."""

    request_id: str
    actor: str
    reason: str
    expected_version: int | None = None


class TradingEngine:
    """What the three contracts of the engine serve."""

    def __init__(
        self,
        *,
        ledger: Ledger,
        store: Store,
        desk: Desk,
        replacing: Replacing,
        signals: SignalDesk,
        emergency: EmergencyStop,
        market: Market,
        specs: Mapping[str, InstrumentSpec],
        clock: Clock,
        auto: AutoTrade,
        venue: Callable[[], VenueInfo | None],
        signal_age_ns: int,
    ) -> None:
        self.ledger = ledger
        self._store = store
        self._desk = desk
        self._signals = signals
        self._emergency = emergency
        self._market = market
        self._specs = specs
        self._clock = clock
        self._auto = auto
        self._venue = venue
        self._replacing = replacing
        self._signal_age_ns = signal_age_ns
        self._provenance: dict[str, tuple[Provenance, float]] = {}
        self._control_turn = asyncio.Lock()

    # Orders.

    async def place_order(self, request_id: str, terms: OrderTerms, *, actor: str, reduce_only: bool) -> Order:
        """Place an order of a person or a program; see Desk.place. Raises MarketDataUnavailable without a quote."""
        asked = Asked(terms=terms, quantity=terms.quantity, reduce_only=reduce_only, signal_id=None)
        known = await self._desk.known(request_id, asked, on_disk=True)
        if known is not None:
            return known
        self._desk.spec(terms.symbol)
        evidence = await self._evidence(terms.symbol)
        origin = Origin(
            request_id=request_id,
            actor=actor,
            provenance=evidence.provenance,
            decision_ns=evidence.decision_ns,
            reduce_only=reduce_only,
        )
        return await self._desk.place(terms, origin, evidence)

    async def execute_trade(self, request_id: str, signal: Signal, *, actor: str, quantity: int | None) -> Order:
        """Make an order of a signal because somebody says so, whatever mode and confidence.

        Raises InvalidOrder for a hold, SignalOutOfTime, WrongProvenance, and MarketDataUnavailable while it is not known
        where the market's data comes from.
        """
        if signal.side is None:
            text = "HOLD asks for nothing: BUY or SELL is needed"
            raise InvalidOrder((Violation("signal.action", text, seen="HOLD", allowed="BUY or SELL"),))
        asked = asked_for(signal, quantity)
        known = await self._desk.known(request_id, asked, on_disk=True)
        if known is not None:
            return known
        self._desk.spec(signal.symbol)
        now_ns = self._clock.wall_ns()
        check_time(signal, now_ns=now_ns, max_age_ns=self._signal_age_ns)
        await self._check_provenance(signal)
        terms = self._signals.terms_of(signal, quantity)
        is_replay = signal.provenance is Provenance.REPLAY
        decision_ns = signal.at_ns if is_replay else now_ns
        origin = Origin(
            request_id=request_id,
            actor=actor,
            provenance=signal.provenance,
            decision_ns=decision_ns,
            signal_id=signal.signal_id,
        )
        return await self._desk.place(terms, origin, evidence_of(signal, decision_ns))

    async def _check_provenance(self, signal: Signal) -> None:
        """Refuse a signal whose data comes from elsewhere than the market's. Raises WrongProvenance."""
        known = self._provenance.get(signal.symbol)
        if known is None or self._clock.monotonic() - known[1] > _PROVENANCE_S:
            known = ((await self._evidence(signal.symbol)).provenance, self._clock.monotonic())
            self._provenance[signal.symbol] = known
        seen, allowed = signal.provenance.value, known[0].value
        if seen != allowed:
            message = f"signal.quote.provenance is {seen}: the data of {signal.symbol} is {allowed}"
            raise WrongProvenance(message, seen=seen, allowed=allowed, because="the signal is of another market")

    async def cancel_order(self, order_id: str, *, actor: str) -> Order:
        """Cancel an order; see Desk.cancel."""
        return await self._desk.cancel(order_id, actor=actor)

    async def replace_order(self, order_id: str, wish: ReplaceRequested) -> Order:
        """Change a working order; see Replacing.replace."""
        order = await self._desk.find(order_id)
        try:
            evidence = await self._evidence(order.terms.symbol)
        except MarketDataUnavailable:
            evidence = None
        at_ns = wish.at_ns if evidence is None else evidence.decision_ns
        return await self._replacing.replace(order_id, replace(wish, at_ns=max(at_ns, order.updated_ns)), evidence)

    async def get_order(self, *, order_id: str | None = None, request_id: str | None = None) -> Order:
        """Give an order as it is on disk, by either id. Raises UnknownOrder, UnknownRequest."""
        if order_id is not None:
            order = self.ledger.shown_orders.get(order_id) or await self._store.order(order_id)
            if order is None:
                raise UnknownOrder(order_id)
            return order
        order = await self._store.order_of_request(request_id or "")
        if order is None:
            raise UnknownRequest(request_id or "")
        return order

    async def list_orders(
        self, *, symbol: str | None, states: Sequence[str], before: int | None, limit: int
    ) -> tuple[list[Order], int | None, int]:
        """Give a page of orders, the newest first, where the next one begins, and how many orders there are in all."""
        rows, count = await self._store.orders(symbol=symbol, states=states, before=before, limit=limit + 1)
        return [order for _, order in rows[:limit]], _next(rows, limit), count

    async def list_fills(self, *, symbol: str | None, before: int | None, limit: int) -> tuple[list[Fill], int | None]:
        """Give a page of fills, the newest first, and where the next one begins."""
        rows = await self._store.fills(symbol=symbol, before=before, limit=limit + 1)
        return [fill for _, fill in rows[:limit]], _next(rows, limit)

    # Positions and performance.

    async def holdings(self, *, include_flat: bool) -> Holdings:
        """Give the positions that are on disk, at the last prices."""
        positions = sorted(self.ledger.shown_positions.values(), key=lambda position: position.symbol)
        revision = self.ledger.positions.newest
        listed = [position for position in positions if position.quantity or include_flat]
        shown = [(position, position.unrealized_e9(await self._last_price(position))) for position in listed]
        worth = [unrealized_e9 for _, unrealized_e9 in shown if unrealized_e9 is not None]
        return Holdings(
            positions=tuple(shown),
            realized_e9=sum(position.realized_e9 for position in positions),
            commission_e9=sum(position.commission_e9 for position in positions),
            unrealized_e9=sum(worth) if len(worth) == len(shown) else None,
            version=max((position.version for position in positions), default=0),
            replay={symbol: position.through for symbol, position in self.ledger.shown_replay.items()},
            revision=revision,
        )

    async def performance(self, since_ns: int | None) -> Performance:
        """Give the figures of all fills, or of those at or after an instant, counted from flat."""
        if since_ns is None:
            return self.ledger.account.performance
        fills = await self._store.fills_since(since_ns)
        held = self.ledger.account.positions
        return measure((fill, held[fill.symbol].multiplier_e9) for fill in fills)[0]

    async def _last_price(self, position: Position) -> int | None:
        if position.quantity == 0:
            return None
        try:
            quote = await self._market.quote(position.symbol, within_s=_SHOWN_PRICE_S)
        except MarketDataUnavailable:
            return None
        return None if quote is None else quote.reference_e9

    async def _evidence(self, symbol: str) -> Evidence:
        quote = await self._market.quote(symbol, within_s=_PRICE_S)
        if quote is None:
            raise MarketDataUnavailable(f"there is no price of {symbol} yet", symbol=symbol)
        if quote.provenance is Provenance.REPLAY:
            return quote
        return replace(quote, decision_ns=self._clock.wall_ns())

    # Control.

    def control(self) -> ControlView:
        """Give mode, state and emergency stop as they are on disk."""
        return self.view(self.ledger.shown_control)

    def view(self, control: Control) -> ControlView:
        """Give a control with what it means at this venue and in the state of the system."""
        venue, auto = self._venue(), self._auto.rules
        return ControlView(
            control=control,
            auto_threshold=None if auto is None else auto.threshold,
            auto_off="" if control.mode is TradingMode.MANUAL else self._auto.policy().off,
            venue="" if venue is None else venue.name,
            venue_live=venue is not None and venue.live,
        )

    async def set_mode(self, asked: ControlRequest, mode: TradingMode) -> ControlView:
        """Change the mode. Raises EmergencyStopped, AutomaticModeForbidden, VersionMismatch, RequestIdReused."""

        def change(control: Control, now_ns: int) -> Control:
            venue = self._venue()
            live = venue is None or venue.live
            seen = [] if venue is None else sorted(venue.provenance.values(), key=lambda item: item is Provenance.LIVE)
            rules.forbid_automatic(live, seen[0] if seen else None, mode)
            return rules.set_mode(control, mode, actor=asked.actor, reason=asked.reason, at_ns=now_ns)

        return await self._change("SetTradingMode", asked, mode.value, change)

    async def set_state(self, asked: ControlRequest, state: TradingState) -> ControlView:
        """Halt, reduce or resume. Raises ActorMissing, EmergencyStopped, VersionMismatch, RequestIdReused."""

        def change(control: Control, now_ns: int) -> Control:
            return rules.set_state(control, state, actor=asked.actor, reason=asked.reason, at_ns=now_ns)

        return await self._change("Resume" if state is TradingState.ACTIVE else "Halt", asked, state.value, change)

    async def clear_emergency(self, asked: ControlRequest) -> ControlView:
        """Clear the emergency stop. Raises ActorMissing, StateConflict, VersionMismatch, RequestIdReused."""

        def change(control: Control, now_ns: int) -> Control:
            return rules.clear_emergency(control, actor=asked.actor, reason=asked.reason, at_ns=now_ns)

        return await self._change("ClearEmergencyStop", asked, "", change)

    async def _change(
        self, kind: str, asked: ControlRequest, wanted: str, change: Callable[[Control, int], Control]
    ) -> ControlView:
        """Change control once for each request; the same id gives the first answer, in every life of the engine."""
        content = json.dumps([wanted, asked.expected_version])
        async with self._control_turn:
            known = await self._store.answer(kind, asked.request_id)
            if known is not None:
                if known.content != content:
                    raise RequestIdReused(asked.request_id)
                return self.view(decode_control(known.answer))
            before = self.ledger.control
            rules.check_version(before, asked.expected_version)
            control = change(before, self._clock.wall_ns())
            answer = Answered(kind=kind, request_id=asked.request_id, content=content, answer=encode_control(control))
            if control is before:
                await self.ledger.record(Changes(answer=answer))
                return self.view(control)
            return await self._take_over(control, answer)

    async def emergency_stop(self, *, actor: str, reason: str, flatten: bool) -> Stopped:
        """Stop everything; see EmergencyStop.stop."""
        return await self._emergency.stop(actor=actor, reason=reason, flatten=flatten)

    async def choose_default_mode(self, configured: TradingMode | None, info: VenueInfo, declared: Provenance) -> None:
        """Set the mode that nobody has chosen yet, once the venue has said who it is."""
        control = self.ledger.control
        if control.mode_actor not in ("", DEFAULT_ACTOR) or control.emergency is not None:
            return
        invented = info.name == PAPER or {*info.provenance.values()} <= {Provenance.SIMULATED, Provenance.REPLAY}
        mode = configured or rules.default_mode(invented and not info.live, declared)
        if info.live and declared is not Provenance.LIVE:
            mode = TradingMode.MANUAL
        if mode is not control.mode or not control.mode_actor:
            why = f"venue {info.name}, data {declared.value}"
            at_ns = self._clock.wall_ns()
            await self._take_over(rules.set_mode(control, mode, actor=DEFAULT_ACTOR, reason=why, at_ns=at_ns))

    async def _take_over(self, control: Control, answer: Answered | None = None) -> ControlView:
        await self.ledger.set_control(control, answer=answer)
        _LOG.info(
            "control.changed",
            mode=control.mode.value,
            mode_actor=control.mode_actor,
            state=control.state.value,
            state_actor=control.state_actor,
        )
        return self.view(control)


def _next(rows: Sequence[tuple[int, object]], limit: int) -> int | None:
    """Give the number that the next page goes on from; None behind the last page."""
    return rows[limit - 1][0] if len(rows) > limit else None
