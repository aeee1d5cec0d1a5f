"""The safety rules of the state, as pure functions."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minhos_mesh.state_manager.domain.errors import FieldInvalid, StateConflict
from minhos_mesh.state_manager.domain.state import (
    Patch,
    State,
    SystemState,
    differs,
    online,
    patched,
    released,
    state_from_json,
    state_to_json,
    stopped,
)

AUTO = State(system_state=SystemState.ONLINE, auto_trade_enabled=True, version=2)
BY_HAND = replace(AUTO, auto_trade_enabled=False)


@pytest.mark.parametrize(
    ("state", "patch", "words"),
    [
        (
            replace(BY_HAND, risk_enabled=False),
            {"auto_trade_enabled": True},
            ["auto_trade_enabled", "risk_enabled is false"],
        ),
        (replace(BY_HAND, system_state=SystemState.STARTING), {"auto_trade_enabled": True}, ["STARTING", "ONLINE"]),
        (replace(BY_HAND, trading_enabled=False), {"auto_trade_enabled": True}, ["trading_enabled is false"]),
        (AUTO, {"risk_enabled": False}, ["risk_enabled is false", "auto_trade_enabled off"]),
        (AUTO, {"trading_enabled": False}, ["trading_enabled is false"]),
        (AUTO, {"system_state": SystemState.OFFLINE, "auto_trade_enabled": True}, ["OFFLINE"]),
        (BY_HAND, {"system_state": SystemState.EMERGENCY_STOP}, ["TradingControlService.EmergencyStop"]),
        (stopped(AUTO), {"system_state": SystemState.ONLINE}, ["TradingControlService.ClearEmergencyStop"]),
        (stopped(AUTO), {"auto_trade_enabled": True}, ["EMERGENCY_STOP"]),
    ],
)
def test_unsafe_change_is_refused_with_what_to_do(state: State, patch: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(StateConflict) as caught:
        patched(state, Patch(**patch))
    assert all(word in str(caught.value) for word in words), str(caught.value)


@pytest.mark.parametrize(
    ("patch", "field"),
    [
        ({"order_quantity": 0}, "state.order_quantity"),
        ({"order_quantity": -3}, "state.order_quantity"),
        ({"auto_threshold": 0.49}, "state.auto_threshold"),
        ({"auto_threshold": 1.01}, "state.auto_threshold"),
        ({"auto_threshold": float("nan")}, "state.auto_threshold"),
    ],
)
def test_value_out_of_range_is_refused_by_name(patch: dict[str, Any], field: str) -> None:
    with pytest.raises(FieldInvalid) as caught:
        patched(BY_HAND, Patch(**patch))
    assert caught.value.field == field


@pytest.mark.parametrize("threshold", [0.5, 0.75, 1.0])
def test_threshold_bounds_are_allowed(threshold: float) -> None:
    assert patched(BY_HAND, Patch(auto_threshold=threshold)).auto_threshold == threshold


def test_leaving_online_turns_auto_trade_off() -> None:
    assert not patched(AUTO, Patch(system_state=SystemState.OFFLINE)).auto_trade_enabled


@pytest.mark.parametrize("state", [SystemState.STARTING, SystemState.DEGRADED])
def test_what_is_found_is_not_set_by_hand(state: SystemState) -> None:
    with pytest.raises(StateConflict, match="never set by hand"):
        patched(AUTO, Patch(system_state=state))


def test_trading_and_auto_trade_can_be_turned_off_together() -> None:
    after = patched(AUTO, Patch(trading_enabled=False, auto_trade_enabled=False))
    assert not after.trading_enabled
    assert not after.auto_trade_enabled


def test_auto_trade_may_come_with_what_it_needs_in_one_update() -> None:
    before = State(risk_enabled=False, trading_enabled=False)
    patch = Patch(system_state=SystemState.ONLINE, risk_enabled=True, trading_enabled=True, auto_trade_enabled=True)
    assert patched(before, patch).auto_trade_enabled


def test_first_start_comes_online_as_configured_and_a_later_one_by_hand() -> None:
    assert online(State(), auto_trade=True).auto_trade_enabled
    assert not online(State(), auto_trade=False).auto_trade_enabled
    again = online(State(version=7), auto_trade=True)
    assert again.system_state is SystemState.ONLINE
    assert not again.auto_trade_enabled


@pytest.mark.parametrize("state", [state for state in SystemState if state is not SystemState.STARTING])
def test_only_a_starting_system_comes_online_by_itself(state: SystemState) -> None:
    held = State(system_state=state, version=5)
    assert online(held, auto_trade=True) == held


def test_release_leaves_auto_trade_off_and_touches_no_other_state() -> None:
    after = released(stopped(AUTO))
    assert after.system_state is SystemState.ONLINE
    assert not after.auto_trade_enabled
    offline = State(system_state=SystemState.OFFLINE)
    assert released(offline) == offline


def test_version_and_time_alone_are_no_difference() -> None:
    assert not differs(AUTO, replace(AUTO, version=9, updated_ns=9))
    assert differs(AUTO, BY_HAND)


states = st.builds(
    State,
    system_state=st.sampled_from(SystemState),
    trading_enabled=st.booleans(),
    risk_enabled=st.booleans(),
    auto_threshold=st.floats(0.5, 1),
    order_quantity=st.integers(1, 1000),
    flags=st.dictionaries(st.text(min_size=1, max_size=5), st.text(max_size=5), max_size=3),
    version=st.integers(1, 10**12),
    updated_ns=st.integers(0, 2**62),
)
patches = st.builds(
    Patch,
    system_state=st.none() | st.sampled_from(SystemState),
    trading_enabled=st.none() | st.booleans(),
    auto_trade_enabled=st.none() | st.booleans(),
    risk_enabled=st.none() | st.booleans(),
    auto_threshold=st.none() | st.floats(0, 2),
    order_quantity=st.none() | st.integers(-5, 5),
    flags=st.none() | st.just({"a": "b"}),
)


@given(state=states, changes=st.lists(patches | st.sampled_from([stopped, released]), max_size=12))
def test_no_sequence_of_changes_leads_to_unsafe_auto_trade(state: State, changes: list[Any]) -> None:
    for change in changes:
        try:
            state = patched(state, change) if isinstance(change, Patch) else change(state)
        except (FieldInvalid, StateConflict):
            continue
        safe = state.risk_enabled and state.trading_enabled and state.system_state is SystemState.ONLINE
        assert safe or not state.auto_trade_enabled


@given(state=states)
def test_json_holds_the_whole_state(state: State) -> None:
    assert state_from_json(state_to_json(state)) == state
