"""Decides what the state of the system may be: which values are allowed, and the safety rules of trading by machine."""

from __future__ import annotations

import enum
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace

from minhos_mesh.state_manager.domain.errors import FieldInvalid, StateConflict

PATCHABLE = (
    "system_state",
    "trading_enabled",
    "auto_trade_enabled",
    "risk_enabled",
    "auto_threshold",
    "order_quantity",
    "flags",
)
"""Fields that an update may name."""

LOWEST_THRESHOLD, HIGHEST_THRESHOLD = 0.5, 1.0
LARGEST_QUANTITY = 10_000
"""Contracts of one order."""


class SystemState(enum.Enum):
    """State of the whole system."""

    OFFLINE = "OFFLINE"
    STARTING = "STARTING"
    ONLINE = "ONLINE"
    DEGRADED = "DEGRADED"
    EMERGENCY_STOP = "EMERGENCY_STOP"


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """State of the system and what may be configured while it runs. Version 1 is the one of the very first start."""

    system_state: SystemState = SystemState.STARTING
    trading_enabled: bool = True
    auto_trade_enabled: bool = False
    risk_enabled: bool = True
    auto_threshold: float = 0.75
    order_quantity: int = 1
    flags: Mapping[str, str] = field(default_factory=dict)
    version: int = 1
    updated_ns: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Patch:
    """New values of the fields that a change names; None is a field that it does not name."""

    system_state: SystemState | None = None
    trading_enabled: bool | None = None
    auto_trade_enabled: bool | None = None
    risk_enabled: bool | None = None
    auto_threshold: float | None = None
    order_quantity: int | None = None
    flags: Mapping[str, str] | None = None


def patched(state: State, patch: Patch) -> State:
    """The state with a person's change, version and time unchanged. Raises FieldInvalid, StateConflict."""
    _check_values(patch)
    _check_system_state(state, patch)
    named = {name: value for name in PATCHABLE if (value := getattr(patch, name)) is not None}
    after = replace(state, **named)
    if after.system_state is not SystemState.ONLINE and patch.auto_trade_enabled is None:
        after = replace(after, auto_trade_enabled=False)
    _check_auto_trade(after)
    return after


def online(state: State, *, auto_trade: bool) -> State:
    """A STARTING state brought ONLINE, with trading by machine as configured at the very first start; else the same."""
    if state.system_state is not SystemState.STARTING:
        return state
    first = state.version == 1
    auto = first and auto_trade and state.risk_enabled and state.trading_enabled
    return replace(state, system_state=SystemState.ONLINE, auto_trade_enabled=auto)


def stopped(state: State) -> State:
    """The state while the trading engine's emergency stop is latched."""
    return replace(state, system_state=SystemState.EMERGENCY_STOP, auto_trade_enabled=False)


def released(state: State) -> State:
    """The state once the emergency stop is cleared: in use again, trading by machine still off; else the same."""
    if state.system_state is not SystemState.EMERGENCY_STOP:
        return state
    return replace(state, system_state=SystemState.ONLINE)


def differs(before: State, after: State) -> bool:
    """Whether any field but version and time differs."""
    return any(getattr(before, name) != getattr(after, name) for name in PATCHABLE)


def state_to_json(state: State) -> str:
    """The state as JSON; the same state gives the same text."""
    values = {**asdict(state), "system_state": state.system_state.value, "flags": dict(sorted(state.flags.items()))}
    return json.dumps(values, separators=(",", ":"))


def state_from_json(text: str) -> State:
    """What `state_to_json` wrote."""
    values = json.loads(text)
    return State(**{**values, "system_state": SystemState(values["system_state"])})


def _check_values(patch: Patch) -> None:
    quantity, threshold = patch.order_quantity, patch.auto_threshold
    if quantity is not None and not 1 <= quantity <= LARGEST_QUANTITY:
        raise FieldInvalid("state.order_quantity", str(quantity), f"1 to {LARGEST_QUANTITY} contracts")
    if threshold is not None and not LOWEST_THRESHOLD <= threshold <= HIGHEST_THRESHOLD:
        raise FieldInvalid("state.auto_threshold", str(threshold), f"{LOWEST_THRESHOLD} to {HIGHEST_THRESHOLD}")


_FOUND = frozenset({SystemState.STARTING, SystemState.DEGRADED})


def _check_system_state(state: State, patch: Patch) -> None:
    """By hand the system is taken out of use and back; the emergency stop has its own door at the trading engine."""
    before, wanted = state.system_state, patch.system_state
    if wanted is None or wanted is before:
        return
    shown = f"system_state is {before.value}"
    if wanted in _FOUND:
        raise StateConflict(
            f"system_state {wanted.value}", shown, "it is found and never set by hand: OFFLINE or ONLINE"
        )
    if wanted is SystemState.EMERGENCY_STOP:
        raise StateConflict(
            "system_state EMERGENCY_STOP",
            shown,
            "the trading engine latches it: call TradingControlService.EmergencyStop",
        )
    if before is SystemState.EMERGENCY_STOP:
        raise StateConflict(
            f"system_state {wanted.value}",
            shown,
            "the trading engine holds the latch: call TradingControlService.ClearEmergencyStop",
        )


def _check_auto_trade(after: State) -> None:
    if not after.auto_trade_enabled:
        return
    for holds, shown, cure in (
        (after.risk_enabled, "risk_enabled is false", "turn risk_enabled on, or auto_trade_enabled off"),
        (
            after.system_state is SystemState.ONLINE,
            f"system_state is {after.system_state.value}",
            "bring the system ONLINE first",
        ),
        (after.trading_enabled, "trading_enabled is false", "turn trading_enabled on, or auto_trade_enabled off"),
    ):
        if not holds:
            raise StateConflict("auto_trade_enabled", shown, f"{cure}, in the same update or before it")
