from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minhos_mesh.trading_engine.domain.control import Control, TradingMode
from minhos_mesh.trading_engine.domain.orders import Provenance, Side
from minhos_mesh.trading_engine.domain.signals import (
    AUTO_TRADE_OFF,
    STATE_UNKNOWN,
    AutoRules,
    Exposure,
    OppositePolicy,
    Signal,
    SignalAction,
    SignalDecision,
    SignalPolicy,
    decide,
)

NOW_NS = 1_000_000_000_000
SIGNAL = Signal(
    signal_id="s",
    symbol="NQZ26-CME",
    side=Side.BUY,
    confidence=0.8,
    provenance=Provenance.SIMULATED,
    epoch=1,
    sequence=9,
    quote_sequence=9,
    at_ns=NOW_NS,
    quote_ns=NOW_NS,
)


def _decide(
    signal: Signal = SIGNAL,
    *,
    mode: TradingMode = TradingMode.FULL_AUTO,
    position: int = 0,
    buying: int = 0,
    selling: int = 0,
    policy: SignalPolicy | None = None,
) -> SignalDecision:
    exposure = Exposure(position=position, buying=buying, selling=selling)
    return decide(signal, control=Control(mode=mode), exposure=exposure, policy=policy or SignalPolicy(), now_ns=NOW_NS)


def _what(decision: SignalDecision) -> tuple[SignalAction, Side | None, int]:
    return decision.action, decision.side, decision.quantity


def test_a_sure_signal_enters_when_nothing_is_held() -> None:
    assert _what(_decide()) == (SignalAction.ENTER, Side.BUY, 1)


@pytest.mark.parametrize(("confidence", "acts"), [(0.7499, False), (0.75, True), (1.0, True), (0.0, False)])
def test_the_threshold_is_inclusive(confidence: float, acts: bool) -> None:
    decision = _decide(replace(SIGNAL, confidence=confidence))
    assert (decision.action is SignalAction.ENTER) is acts


def test_the_threshold_can_be_configured() -> None:
    assert _decide(policy=SignalPolicy(auto_confidence=0.9)).action is SignalAction.NONE


def test_the_state_gives_threshold_and_quantity() -> None:
    policy = SignalPolicy().under(AutoRules(enabled=True, threshold=0.6, quantity=3))
    assert _what(_decide(replace(SIGNAL, confidence=0.6), policy=policy)) == (SignalAction.ENTER, Side.BUY, 3)
    assert _what(_decide(position=-2, policy=policy)) == (SignalAction.REVERSE, Side.BUY, 5)
    assert _decide(replace(SIGNAL, confidence=0.59), policy=policy).why == "confidence 0.59 is below 0.60"


@pytest.mark.parametrize(
    ("rules", "why"),
    [(None, STATE_UNKNOWN), (AutoRules(enabled=False, threshold=0.5, quantity=1), AUTO_TRADE_OFF)],
)
@pytest.mark.parametrize("mode", [TradingMode.FULL_AUTO, TradingMode.SEMI_AUTO])
@pytest.mark.parametrize("position", [-2, 0, 1])
def test_without_the_states_word_no_signal_is_acted_on(
    rules: AutoRules | None, why: str, mode: TradingMode, position: int
) -> None:
    decision = _decide(mode=mode, position=position, policy=SignalPolicy().under(rules))
    assert (decision.action, decision.why) == (SignalAction.NONE, why)


def test_a_hold_and_the_manual_mode_do_nothing() -> None:
    assert _decide(replace(SIGNAL, side=None)).action is SignalAction.NONE
    assert _decide(mode=TradingMode.MANUAL).action is SignalAction.NONE


@pytest.mark.parametrize(("position", "buying"), [(1, 0), (0, 1), (2, 0)])
def test_a_signal_in_the_direction_held_or_on_the_way_does_nothing(position: int, buying: int) -> None:
    assert _decide(position=position, buying=buying).action is SignalAction.NONE


def test_building_up_stops_at_what_is_configured() -> None:
    policy = SignalPolicy(quantity=2, max_quantity=5)
    assert [_decide(position=held, policy=policy).quantity for held in (0, 2, 4, 5)] == [2, 2, 1, 0]


def test_an_opposite_signal_reverses_or_closes_as_configured() -> None:
    closing = SignalPolicy(opposite=OppositePolicy.CLOSE)
    assert _what(_decide(position=-2)) == (SignalAction.REVERSE, Side.BUY, 3)
    assert _what(_decide(position=-2, policy=closing)) == (SignalAction.CLOSE, Side.BUY, 2)


def test_what_already_works_counts_so_nothing_is_closed_twice() -> None:
    closing = SignalPolicy(opposite=OppositePolicy.CLOSE)
    assert _decide(position=-1, buying=1, policy=closing).action is SignalAction.ENTER
    assert _decide(position=-1, buying=2, policy=closing).action is SignalAction.NONE


def test_semi_auto_closes_by_itself_and_leaves_opening_to_people() -> None:
    assert _decide(mode=TradingMode.SEMI_AUTO).action is SignalAction.NONE
    assert _what(_decide(mode=TradingMode.SEMI_AUTO, position=-2)) == (SignalAction.CLOSE, Side.BUY, 2)


def test_an_old_signal_is_not_acted_on_except_in_a_replay() -> None:
    old = replace(SIGNAL, at_ns=NOW_NS - 61_000_000_000)
    assert _decide(old).action is SignalAction.NONE
    assert _decide(replace(old, provenance=Provenance.REPLAY)).action is SignalAction.ENTER


@given(
    position=st.integers(-5, 5),
    side=st.sampled_from(Side),
    quantity=st.integers(1, 3),
    opposite=st.sampled_from(OppositePolicy),
)
def test_the_position_after_the_action_never_exceeds_the_maximum(
    position: int, side: Side, quantity: int, opposite: OppositePolicy
) -> None:
    policy = SignalPolicy(quantity=quantity, max_quantity=3, opposite=opposite)
    decision = _decide(replace(SIGNAL, side=side), position=position, policy=policy)
    if decision.side is None:
        return
    after = position + decision.side.sign * decision.quantity
    assert after * side.sign <= 3
    assert decision.side is side
