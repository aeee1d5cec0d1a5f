"""Decides what a signal leads to: nothing, an entry, a close or a reversal; at most one action for each signal id."""

from __future__ import annotations

import enum
from dataclasses import dataclass, replace

from minhos_mesh.trading_engine.domain.control import Control, TradingMode
from minhos_mesh.trading_engine.domain.errors import SignalOutOfTime
from minhos_mesh.trading_engine.domain.orders import MAX_QUANTITY, Provenance, Side


@dataclass(frozen=True, slots=True, kw_only=True)
class Signal:
    """What the brain said. `side` is None for a hold; `confidence` 0..1; `quote_*` the evidence it stood on."""

    signal_id: str
    symbol: str
    side: Side | None
    confidence: float
    provenance: Provenance
    epoch: int
    sequence: int
    quote_sequence: int
    at_ns: int
    quote_ns: int
    price_e9: int | None = None
    bid_e9: int | None = None
    ask_e9: int | None = None


class OppositePolicy(enum.Enum):
    """What a signal against the open position does."""

    CLOSE = "close"
    REVERSE = "reverse"


STATE_UNKNOWN = "the state manager has never been heard"
AUTO_TRADE_OFF = "auto_trade_enabled of the state is false"


@dataclass(frozen=True, slots=True, kw_only=True)
class AutoRules:
    """What the state of the system says about trading by machine."""

    enabled: bool
    threshold: float
    """Confidence from which a signal is acted on without a person."""
    quantity: int
    """Contracts of an order that a signal leads to."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SignalPolicy:
    """The rules for acting on signals; `quantity` and `max_quantity` in contracts."""

    off: str = ""
    """Why no signal is acted on, whatever the mode; empty when signals are."""
    auto_confidence: float = 0.75
    quantity: int = 1
    max_quantity: int = 1
    """Contracts that signals may build up in one direction; equal to `quantity` = no pyramiding."""
    opposite: OppositePolicy = OppositePolicy.REVERSE
    max_age_ns: int = 60_000_000_000
    """A signal older than this is not acted on; in REPLAY age has no meaning and is not looked at."""

    def under(self, rules: AutoRules | None) -> SignalPolicy:
        """Give this policy with what the state says; None is a state that was never heard, and acts on nothing."""
        if rules is None:
            return replace(self, off=STATE_UNKNOWN)
        return replace(
            self,
            off="" if rules.enabled else AUTO_TRADE_OFF,
            auto_confidence=rules.threshold,
            quantity=rules.quantity,
            max_quantity=rules.quantity,
        )


class SignalAction(enum.Enum):
    """What is done about a signal."""

    NONE = "NONE"
    ENTER = "ENTER"
    CLOSE = "CLOSE"
    REVERSE = "REVERSE"


@dataclass(frozen=True, slots=True, kw_only=True)
class SignalDecision:
    """The action for one signal, the order it asks for, and why."""

    action: SignalAction
    why: str
    side: Side | None = None
    quantity: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Exposure:
    """The symbol as it stands: `position` signed; `buying` and `selling` contracts of working orders."""

    position: int
    buying: int
    selling: int

    @property
    def toward(self) -> int:
        """The position if every working order filled."""
        return self.position + self.buying - self.selling


def decide(
    signal: Signal, *, control: Control, exposure: Exposure, policy: SignalPolicy, now_ns: int
) -> SignalDecision:
    """Decide what one signal leads to. Trading state and risk are asked later, about the order."""
    left = leave(signal, control=control, policy=policy, now_ns=now_ns)
    if left is not None or signal.side is None:
        return left or _nothing("the signal says hold")
    held = exposure.toward * signal.side.sign
    decision = _against(signal.side, -held, policy) if held < 0 else _along(signal.side, held, policy)
    if control.mode is TradingMode.SEMI_AUTO and decision.action in (SignalAction.ENTER, SignalAction.REVERSE):
        return (
            _reduce_only(signal.side, -held) if held < 0 else _nothing("the mode is SEMI_AUTO: people open positions")
        )
    return decision


def leave(signal: Signal, *, control: Control, policy: SignalPolicy, now_ns: int) -> SignalDecision | None:
    """Decide to do nothing about a signal whatever is held; None when it depends on that."""
    if signal.side is None:
        return _nothing("the signal says hold")
    if control.mode is TradingMode.MANUAL:
        return _nothing("the mode is MANUAL")
    if policy.off:
        return _nothing(policy.off)
    if signal.confidence < policy.auto_confidence:
        return _nothing(f"confidence {signal.confidence:.2f} is below {policy.auto_confidence:.2f}")
    stale = _stale(signal, policy, now_ns)
    return None if stale is None else _nothing(stale)


AHEAD_NS = 1_000_000_000
"""How far in the future the time of a signal that somebody asks to act on may lie: clocks differ."""


def check_time(signal: Signal, *, now_ns: int, max_age_ns: int) -> None:
    """Refuse a signal that says nothing of the market of now. Raises SignalOutOfTime.

    Not looked at in a replay: its time is the time.
    """
    if signal.provenance is Provenance.REPLAY:
        return
    for field, at_ns in (("signal.decision_time", signal.at_ns), ("signal.quote.event_time", signal.quote_ns)):
        age_ns = now_ns - at_ns
        if -AHEAD_NS <= age_ns <= max_age_ns:
            continue
        age = f"{age_ns / 1e9:.1f} s"
        allowed = f"-{AHEAD_NS / 1e9:g} s to {max_age_ns / 1e9:g} s"
        how = f"{age} old" if age_ns > 0 else f"{-age_ns / 1e9:.1f} s in the future"
        raise SignalOutOfTime(
            f"{field} is {how}: an age of {allowed} is allowed", field=field, age=age, allowed=allowed
        )


def _stale(signal: Signal, policy: SignalPolicy, now_ns: int) -> str | None:
    """Say why a signal comes too late, or None. Replayed data is never late: its time is the time."""
    if signal.provenance is Provenance.REPLAY:
        return None
    if now_ns - signal.at_ns > policy.max_age_ns:
        return f"the signal is {(now_ns - signal.at_ns) / 1e9:.1f} s old"
    return None


def _along(side: Side, held: int, policy: SignalPolicy) -> SignalDecision:
    room = policy.max_quantity - held
    if room <= 0:
        return _nothing(f"{held} contracts in that direction are held or on the way already")
    quantity = min(policy.quantity, room)
    why = "nothing is held" if held == 0 else f"{held} held, up to {policy.max_quantity} allowed"
    return SignalDecision(action=SignalAction.ENTER, why=why, side=side, quantity=quantity)


def _against(side: Side, opposed: int, policy: SignalPolicy) -> SignalDecision:
    if policy.opposite is OppositePolicy.CLOSE:
        return _reduce_only(side, opposed)
    entry = min(policy.quantity, policy.max_quantity)
    quantity = min(opposed + entry, MAX_QUANTITY)
    return SignalDecision(
        action=SignalAction.REVERSE, why=f"{opposed} held the other way", side=side, quantity=quantity
    )


def _reduce_only(side: Side, opposed: int) -> SignalDecision:
    quantity = min(opposed, MAX_QUANTITY)
    return SignalDecision(action=SignalAction.CLOSE, why=f"{opposed} held the other way", side=side, quantity=quantity)


def _nothing(why: str) -> SignalDecision:
    return SignalDecision(action=SignalAction.NONE, why=why)
