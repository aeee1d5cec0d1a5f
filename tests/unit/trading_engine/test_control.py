from __future__ import annotations

import pytest

from minhos_mesh.trading_engine.domain import control as rules
from minhos_mesh.trading_engine.domain.control import Control, TradingMode, TradingState
from minhos_mesh.trading_engine.domain.errors import (
    ActorMissing,
    AutomaticModeForbidden,
    EmergencyStopped,
    NotReducing,
    StateConflict,
    TradingHalted,
    VersionMismatch,
)
from minhos_mesh.trading_engine.domain.orders import Provenance, Reason, Side

AUTO = Control(mode=TradingMode.FULL_AUTO)


def _stopped(*, flatten: bool = False) -> Control:
    return rules.emergency_stop(AUTO, actor="ann", reason="smoke", flatten=flatten, at_ns=5)


def _refused(control: Control, side: Side, quantity: int, position: int, working: int = 0) -> bool:
    return rules.refuse_order(control, side=side, quantity=quantity, position=position, working=working) is not None


@pytest.mark.parametrize("provenance", [*Provenance, None])
@pytest.mark.parametrize("paper", [True, False])
def test_full_auto_is_the_default_only_on_paper_and_without_live_data(
    paper: bool, provenance: Provenance | None
) -> None:
    automatic = paper and provenance not in (Provenance.LIVE, None)
    assert rules.default_mode(paper, provenance) is (TradingMode.FULL_AUTO if automatic else TradingMode.MANUAL)


def test_the_emergency_stop_latches_halts_and_leaves_decisions_to_people() -> None:
    stopped = _stopped()
    assert stopped.emergency is not None
    assert (stopped.state, stopped.mode, stopped.version) == (TradingState.HALTED, TradingMode.MANUAL, 2)
    assert (stopped.emergency.reason, stopped.emergency.actor) == ("smoke", "ann")


def test_a_second_stop_keeps_the_first_reason_and_can_only_add_the_flattening() -> None:
    stopped = _stopped()
    assert rules.emergency_stop(stopped, actor="bob", reason="fire", flatten=False, at_ns=6) is stopped
    more = rules.emergency_stop(stopped, actor="bob", reason="fire", flatten=True, at_ns=6)
    assert more.emergency is not None
    assert (more.emergency.reason, more.emergency.flatten) == ("smoke", True)


def test_while_latched_nothing_resumes_and_no_automatic_mode_comes_back() -> None:
    with pytest.raises(EmergencyStopped, match="smoke"):
        rules.set_state(_stopped(), TradingState.ACTIVE, actor="ann", reason="", at_ns=6)
    with pytest.raises(EmergencyStopped):
        rules.set_mode(_stopped(), TradingMode.FULL_AUTO, actor="ann", reason="", at_ns=6)


def test_clearing_needs_a_person_and_a_reason_and_leaves_trading_halted() -> None:
    for actor, reason in (("", "fine"), ("ann", "  ")):
        with pytest.raises(ActorMissing):
            rules.clear_emergency(_stopped(), actor=actor, reason=reason, at_ns=6)
    cleared = rules.clear_emergency(_stopped(), actor="ann", reason="checked", at_ns=6)
    assert cleared.emergency is None
    assert (cleared.state, cleared.mode) == (TradingState.HALTED, TradingMode.MANUAL)
    resumed = rules.set_state(cleared, TradingState.ACTIVE, actor="ann", reason="", at_ns=7)
    assert resumed.state is TradingState.ACTIVE


def test_clearing_what_is_not_latched_is_a_conflict() -> None:
    with pytest.raises(StateConflict):
        rules.clear_emergency(AUTO, actor="ann", reason="why not", at_ns=6)


def test_a_halt_needs_a_reason_and_a_resume_does_not() -> None:
    with pytest.raises(ActorMissing):
        rules.set_state(AUTO, TradingState.HALTED, actor="ann", reason="", at_ns=6)
    halted = rules.set_state(AUTO, TradingState.HALTED, actor="ann", reason="lunch", at_ns=6)
    assert rules.set_state(halted, TradingState.ACTIVE, actor="ann", reason="", at_ns=7).state is TradingState.ACTIVE


def test_halted_and_latched_refuse_every_order_even_reductions() -> None:
    halted = rules.set_state(AUTO, TradingState.HALTED, actor="ann", reason="lunch", at_ns=6)
    assert _refused(halted, Side.SELL, 1, position=5)
    assert _refused(_stopped(), Side.SELL, 1, position=5)
    assert not _refused(AUTO, Side.BUY, 5, position=0)


@pytest.mark.parametrize(
    ("side", "quantity", "position", "working", "refused"),
    [
        (Side.SELL, 2, 2, 0, False),
        (Side.SELL, 3, 2, 0, True),
        (Side.SELL, 1, 2, 1, False),
        (Side.SELL, 2, 2, 1, True),
        (Side.BUY, 1, 2, 0, True),
        (Side.BUY, 1, 0, 0, True),
        (Side.BUY, 2, -2, 0, False),
        (Side.BUY, 2, -2, 1, True),
    ],
)
def test_reducing_passes_only_what_makes_the_position_smaller(
    side: Side, quantity: int, position: int, working: int, refused: bool
) -> None:
    reducing = rules.set_state(AUTO, TradingState.REDUCING, actor="ann", reason="late", at_ns=6)
    assert _refused(reducing, side, quantity, position, working) is refused


def test_refusals_become_the_right_exception() -> None:
    refusal = rules.refuse_order(_stopped(), side=Side.BUY, quantity=1, position=0, working=0)
    assert refusal is not None
    assert refusal.reason is Reason.EMERGENCY_STOP
    with pytest.raises(EmergencyStopped):
        rules.raise_refusal(refusal)
    with pytest.raises(TradingHalted):
        rules.raise_refusal(rules.Refusal(reason=Reason.TRADING_STATE, message="trading is HALTED"))


@pytest.mark.parametrize("provenance", Provenance)
def test_a_live_venue_takes_only_what_rests_on_live_data(provenance: Provenance) -> None:
    refusal = rules.check_live_rule(True, provenance)
    assert (refusal is None) is (provenance is Provenance.LIVE)
    assert rules.check_live_rule(False, provenance) is None
    if provenance is not Provenance.LIVE:
        with pytest.raises(AutomaticModeForbidden):
            rules.forbid_automatic(True, provenance, TradingMode.FULL_AUTO)
    rules.forbid_automatic(True, provenance, TradingMode.MANUAL)


def test_mode_and_state_keep_their_own_reason_actor_and_time() -> None:
    halted = rules.set_state(AUTO, TradingState.HALTED, actor="ann", reason="lunch", at_ns=6)
    manual = rules.set_mode(halted, TradingMode.MANUAL, actor="bob", reason="watching", at_ns=7)
    assert (manual.state_reason, manual.state_actor, manual.state_ns) == ("lunch", "ann", 6)
    assert (manual.mode_reason, manual.mode_actor, manual.mode_ns) == ("watching", "bob", 7)


def test_what_changes_nothing_is_the_very_same_control() -> None:
    halted = rules.set_state(AUTO, TradingState.HALTED, actor="ann", reason="lunch", at_ns=6)
    assert rules.set_state(halted, TradingState.HALTED, actor="bob", reason="dinner", at_ns=7) is halted
    manual = rules.set_mode(halted, TradingMode.MANUAL, actor="bob", reason="", at_ns=7)
    assert rules.set_mode(manual, TradingMode.MANUAL, actor="cem", reason="why", at_ns=8) is manual


def test_a_version_that_is_not_the_current_one_is_refused() -> None:
    rules.check_version(AUTO, None)
    rules.check_version(AUTO, AUTO.version)
    with pytest.raises(VersionMismatch, match="expected version 9, the current one is 1"):
        rules.check_version(AUTO, 9)


def test_a_reduce_only_refusal_says_the_quantity_and_what_is_allowed() -> None:
    refusal = rules.refuse_increase(side=Side.SELL, quantity=3, position=2, working=1, why="the order is reduce-only")
    assert refusal is not None
    with pytest.raises(NotReducing) as caught:
        rules.raise_refusal(refusal)
    assert caught.value.metadata == {"quantity": "3", "allowed": "1"}
