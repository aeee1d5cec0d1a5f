"""Decides what is done about each signal, once, and how a replay is walked through in step with the venue."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

from minhos_mesh.runtime.clock import Clock
from minhos_mesh.runtime.log import get_logger
from minhos_mesh.trading_engine.auto_trade import AutoTrade
from minhos_mesh.trading_engine.desk import Asked, Desk, order_id_of
from minhos_mesh.trading_engine.domain.errors import StateUnavailable, TradingError, VenueUnavailable
from minhos_mesh.trading_engine.domain.orders import OrderTerms, OrderType, Origin, Provenance, Side
from minhos_mesh.trading_engine.domain.signals import STATE_UNKNOWN, Signal, SignalAction, SignalDecision, decide, leave
from minhos_mesh.trading_engine.ledger import Ledger
from minhos_mesh.trading_engine.ports import Evidence, TradingFact, VenueProgress
from minhos_mesh.trading_engine.store import Changes, HandledSignal, ReplayPosition, Store
from minhos_mesh.trading_engine.venue_feed import ProgressBoard

_LOG: Final = get_logger("trading_engine.signals")
_REMEMBERED: Final = 10_000
_ASK_AGAIN_S: Final = 2.0
AUTO: Final = "auto"
"""Name of the actor when no person asked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SignalDeskRules:
    """How long a replay waits: for the venue to follow, and for the state before its first signal."""

    venue_patience_s: float = 30.0
    state_patience_s: float = 30.0


class SignalDesk:
    """Acts on signals. The caller brings them in the order in which they were told."""

    def __init__(
        self,
        *,
        ledger: Ledger,
        store: Store,
        desk: Desk,
        progress: ProgressBoard,
        auto: AutoTrade,
        rules: SignalDeskRules,
        clock: Clock,
    ) -> None:
        self._ledger = ledger
        self._store = store
        self._desk = desk
        self._progress = progress
        self._auto = auto
        self._rules = rules
        self._clock = clock
        self._handled: OrderedDict[str, None] = OrderedDict()

    async def on_signal(self, signal: Signal) -> None:
        """Act on a signal, once for each id.

        In a replay the state is waited for and the venue is brought to the signal's tick first, unless the signal
        leads to nothing whatever is held. Raises StateUnavailable, and VenueUnavailable when the venue does not
        follow; the signal is to be brought again then.
        """
        if await self._is_handled(signal.signal_id):
            return
        is_replay = signal.provenance is Provenance.REPLAY
        if is_replay and not await self._auto.settled(self._rules.state_patience_s):
            raise StateUnavailable(f"{STATE_UNKNOWN}: the replay waits for its first state")
        now_ns = signal.at_ns if is_replay else self._clock.wall_ns()
        policy, control = self._auto.policy(), self._ledger.control
        left = leave(signal, control=control, policy=policy, now_ns=now_ns)
        if left is not None:
            self._note(signal, left, now_ns)
        elif is_replay:
            await self._walk(signal.symbol, signal.epoch, signal.sequence, signal.at_ns)
            await self._act(signal, now_ns)
            self._reached(signal.symbol, signal.epoch, signal.sequence)
        else:
            await self._act(signal, now_ns)
        self._remember(signal.signal_id)

    async def on_progress(self, symbol: str, epoch: int, sequence: int, at_ns: int) -> None:
        """Let the venue of a replay go on to a tick up to which there are no more signals. Raises VenueUnavailable."""
        await self._walk(symbol, epoch, sequence, at_ns)
        self._reached(symbol, epoch, sequence)

    def terms_of(self, signal: Signal, quantity: int | None) -> OrderTerms:
        """Give the terms of an order that somebody asks for on a signal; without a quantity the size of the state.

        Raises StateUnavailable without a quantity while the state was never heard.
        """
        if quantity is None:
            rules = self._auto.rules
            if rules is None:
                raise StateUnavailable(f"{STATE_UNKNOWN}, which gives the size of an order: name a quantity")
            quantity = rules.quantity
        return OrderTerms(
            symbol=signal.symbol,
            side=signal.side or Side.BUY,
            quantity=quantity,
            order_type=OrderType.MARKET,
        )

    async def _act(self, signal: Signal, now_ns: int) -> None:
        decision = decide(
            signal,
            control=self._ledger.control,
            exposure=self._ledger.account.exposure(signal.symbol),
            policy=self._auto.policy(),
            now_ns=now_ns,
        )
        if decision.side is None:
            self._note(signal, decision, now_ns)
            return
        request_id = f"signal:{signal.signal_id}"
        handled = self._done_about(signal, decision, now_ns, order_id_of(request_id))
        try:
            order = await self._desk.place(
                _terms(signal, decision),
                _origin(signal, request_id, now_ns),
                evidence_of(signal, now_ns),
                changes=Changes(signal=handled),
                wait_for_venue=signal.provenance is Provenance.REPLAY,
            )
        except TradingError as error:
            refused = SignalDecision(action=SignalAction.NONE, why=str(error))
            self._note(signal, refused, now_ns)
            return
        _LOG.info("signal.acted_on", signal_id=signal.signal_id, action=decision.action.value, order_id=order.order_id)

    def _note(self, signal: Signal, decision: SignalDecision, now_ns: int) -> None:
        _LOG.info("signal.left", signal_id=signal.signal_id, why=decision.why)
        self._ledger.record(Changes(signal=self._done_about(signal, decision, now_ns, "")))

    @staticmethod
    def _done_about(signal: Signal, decision: SignalDecision, at_ns: int, order_id: str) -> HandledSignal:
        return HandledSignal(
            signal_id=signal.signal_id, action=decision.action.value, why=decision.why, order_id=order_id, at_ns=at_ns
        )

    async def _is_handled(self, signal_id: str) -> bool:
        return signal_id in self._handled or await self._store.signal(signal_id) is not None

    def _remember(self, signal_id: str) -> None:
        self._handled[signal_id] = None
        while len(self._handled) > _REMEMBERED:
            self._handled.popitem(last=False)

    async def _walk(self, symbol: str, epoch: int, sequence: int, at_ns: int) -> None:
        """Tell the venue that it may go on to a tick, and wait until it has, with all its fills up to there."""
        deadline = self._clock.monotonic() + self._rules.venue_patience_s
        while not self._progress.reached(symbol, epoch, sequence):
            if self._clock.monotonic() >= deadline:
                raise VenueUnavailable(f"the venue has not come to tick {sequence} of {symbol}")
            progress = VenueProgress(symbol=symbol, epoch=epoch, through=sequence)
            self._ledger.record(Changes(), (TradingFact(at_ns=at_ns, progress=progress),))
            await self._progress.wait(symbol, epoch, sequence, _ASK_AGAIN_S)

    def _reached(self, symbol: str, epoch: int, sequence: int) -> None:
        position = ReplayPosition(symbol=symbol, epoch=epoch, through=sequence)
        self._ledger.record(Changes(replay=position))


def asked_for(signal: Signal, quantity: int | None) -> Asked:
    """Give what somebody asks for who wants a signal acted on; without a quantity the state says how much."""
    terms = OrderTerms(
        symbol=signal.symbol, side=signal.side or Side.BUY, quantity=quantity or 0, order_type=OrderType.MARKET
    )
    return Asked(terms=terms, quantity=quantity, reduce_only=False, signal_id=signal.signal_id)


def evidence_of(signal: Signal, decision_ns: int) -> Evidence:
    """Give the market that a signal stood on."""
    return Evidence(
        provenance=signal.provenance,
        decision_ns=decision_ns,
        event_ns=signal.quote_ns,
        sequence=signal.quote_sequence,
        epoch=signal.epoch,
        last_e9=signal.price_e9,
        bid_e9=signal.bid_e9,
        ask_e9=signal.ask_e9,
    )


def _terms(signal: Signal, decision: SignalDecision) -> OrderTerms:
    return OrderTerms(
        symbol=signal.symbol,
        side=decision.side or Side.BUY,
        quantity=decision.quantity,
        order_type=OrderType.MARKET,
    )


def _origin(signal: Signal, request_id: str, decision_ns: int) -> Origin:
    return Origin(
        request_id=request_id,
        actor=AUTO,
        provenance=signal.provenance,
        decision_ns=decision_ns,
        signal_id=signal.signal_id,
    )
