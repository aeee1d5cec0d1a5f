"""Decides who may trade now: mode, trading state, and the emergency latch that only a person with a reason clears."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from minhos_mesh.trading_engine.domain.errors import (
    ActorMissing,
    AutomaticModeForbidden,
    EmergencyStopped,
    NotReducing,
    StateConflict,
    TradingError,
    TradingHalted,
    VenueUnavailable,
    VersionMismatch,
    WrongProvenance,
)
from minhos_mesh.trading_engine.domain.orders import Provenance, Reason, Side


class TradingMode(enum.Enum):
    """Who decides on orders."""

    MANUAL = "MANUAL"
    """Only people; signals are recorded and lead to nothing."""
    SEMI_AUTO = "SEMI_AUTO"
    """Signals may close what is open; whatever opens a position is left to people."""
    FULL_AUTO = "FULL_AUTO"
    """Signals at or above the threshold trade by themselves."""


class TradingState(enum.Enum):
    """What is let through. Cancels pass in every state."""

    ACTIVE = "ACTIVE"
    """Everything."""
    REDUCING = "REDUCING"
    """Only orders that make the position smaller."""
    HALTED = "HALTED"
    """No order at all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EmergencyLatch:
    """An emergency stop that has not been cleared."""

    reason: str
    actor: str
    at_ns: int
    flatten: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Control:
    """The whole of trading control; `version` counts its changes. Why, who and when are kept apart for mode and state."""

    mode: TradingMode
    state: TradingState = TradingState.ACTIVE
    emergency: EmergencyLatch | None = None
    mode_reason: str = ""
    mode_actor: str = ""
    mode_ns: int = 0
    state_reason: str = ""
    state_actor: str = ""
    state_ns: int = 0
    version: int = 1

    @property
    def changed_ns(self) -> int:
        """When mode or state changed last; 0 when neither has."""
        return max(self.mode_ns, self.state_ns)


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """Why control does not let an order through; `metadata` repeats values of the message for programs."""

    reason: Reason
    message: str
    metadata: Mapping[str, str] = field(default_factory=dict)


def default_mode(venue_is_paper: bool, provenance: Provenance | None) -> TradingMode:
    """FULL_AUTO only for a paper venue on data that is known not to be LIVE, else MANUAL."""
    if venue_is_paper and provenance is not None and provenance is not Provenance.LIVE:
        return TradingMode.FULL_AUTO
    return TradingMode.MANUAL


def set_mode(control: Control, mode: TradingMode, *, actor: str, reason: str, at_ns: int) -> Control:
    """Change the mode; the very same control when it is the mode already.

    Raises ActorMissing, and EmergencyStopped for an automatic mode while the latch holds.
    """
    _need(actor)
    if control.emergency is not None and mode is not TradingMode.MANUAL:
        raise _stopped(control.emergency)
    if mode is control.mode and control.mode_actor:
        return control
    return _changed(control, mode=mode, mode_reason=reason, mode_actor=actor, mode_ns=at_ns)


def set_state(control: Control, state: TradingState, *, actor: str, reason: str, at_ns: int) -> Control:
    """Halt, reduce or resume; the very same control when it is the state already.

    Raises ActorMissing, and EmergencyStopped for anything but HALTED while the latch holds.
    """
    _need(actor)
    if state is not TradingState.ACTIVE:
        _need_reason(reason)
    if control.emergency is not None and state is not TradingState.HALTED:
        raise _stopped(control.emergency)
    if state is control.state:
        return control
    return _changed(control, state=state, state_reason=reason, state_actor=actor, state_ns=at_ns)


def emergency_stop(control: Control, *, actor: str, reason: str, flatten: bool, at_ns: int) -> Control:
    """Latch the stop: HALTED and MANUAL. A second stop keeps the first reason and may only add the flattening."""
    _need(actor)
    _need_reason(reason)
    if control.emergency is not None:
        if control.emergency.flatten or not flatten:
            return control
        return _changed(control, emergency=replace(control.emergency, flatten=True))
    latch = EmergencyLatch(reason=reason, actor=actor, at_ns=at_ns, flatten=flatten)
    halted = _changed(
        control,
        emergency=latch,
        state=TradingState.HALTED,
        state_reason=f"emergency stop: {reason}",
        state_actor=actor,
        state_ns=at_ns,
    )
    if halted.mode is TradingMode.MANUAL and halted.mode_actor:
        return halted
    why = f"emergency stop: {reason}"
    return replace(halted, mode=TradingMode.MANUAL, mode_reason=why, mode_actor=actor, mode_ns=at_ns)


def clear_emergency(control: Control, *, actor: str, reason: str, at_ns: int) -> Control:
    """Take the latch away. Trading stays HALTED and MANUAL until a person resumes it, and the reason says so.

    Raises ActorMissing, and StateConflict when nothing is latched.
    """
    _need(actor)
    _need_reason(reason)
    if control.emergency is None:
        raise StateConflict("clear emergency stop", control.state.value, "it is not latched")
    why = f"emergency stop cleared, not resumed yet: {reason}"
    return _changed(control, emergency=None, state_reason=why, state_actor=actor, state_ns=at_ns)


def check_version(control: Control, expected: int | None) -> None:
    """Refuse a decision that was made from another version. Raises VersionMismatch."""
    if expected is not None and expected != control.version:
        raise VersionMismatch(expected, control.version)


def refuse_order(control: Control, *, side: Side, quantity: int, position: int, working: int) -> Refusal | None:
    """Say why control does not let an order pass, or None. `position` is signed, `working` what works on its side."""
    if control.emergency is not None:
        told = {"state": control.state.value, "because": "emergency stop"}
        return Refusal(reason=Reason.EMERGENCY_STOP, message=_latched(control.emergency), metadata=told)
    told = {"state": control.state.value, "because": control.state_reason}
    if control.state is TradingState.HALTED:
        message = f"trading is HALTED: {control.state_reason}"
        return Refusal(reason=Reason.TRADING_STATE, message=message, metadata=told)
    if control.state is TradingState.REDUCING:
        why = f"trading is REDUCING ({control.state_reason})"
        found = refuse_increase(side=side, quantity=quantity, position=position, working=working, why=why)
        if found is not None:
            return replace(found, reason=Reason.TRADING_STATE, metadata={**found.metadata, **told})
    return None


def refuse_increase(*, side: Side, quantity: int, position: int, working: int, why: str) -> Refusal | None:
    """Say why an order would do more than reduce a position, or None.

    `working` contracts on the same side count as done, so that two orders together cannot turn the position.
    """
    room = max(0, -position * side.sign - working)
    if quantity <= room:
        return None
    message = f"{why}: {side.value} {quantity} would do more than reduce, at most {room} may pass"
    told = {"quantity": str(quantity), "allowed": str(room)}
    return Refusal(reason=Reason.NOT_REDUCING, message=message, metadata=told)


def raise_refusal(refusal: Refusal) -> None:
    """Raise what tells a caller of this refusal.

    EmergencyStopped, VenueUnavailable, WrongProvenance, NotReducing, TradingHalted.
    """
    kinds: dict[Reason, type[TradingError]] = {
        Reason.VENUE_UNAVAILABLE: VenueUnavailable,
        Reason.PROVENANCE: WrongProvenance,
        Reason.EMERGENCY_STOP: EmergencyStopped,
        Reason.NOT_REDUCING: NotReducing,
    }
    raise kinds.get(refusal.reason, TradingHalted)(refusal.message, **refusal.metadata)


def check_live_rule(venue_is_live: bool, provenance: Provenance) -> Refusal | None:
    """A live venue takes an order only when the data that led to it is LIVE."""
    if venue_is_live and provenance is not Provenance.LIVE:
        message = f"a live venue takes only orders that rest on LIVE data, this one rests on {provenance.value}"
        told = {"seen": provenance.value, "because": "the venue's money is real"}
        return Refusal(reason=Reason.PROVENANCE, message=message, metadata=told)
    return None


def forbid_automatic(venue_is_live: bool, provenance: Provenance | None, mode: TradingMode) -> None:
    """Refuse FULL_AUTO and SEMI_AUTO at a live venue unless the data is LIVE. Raises AutomaticModeForbidden."""
    if mode is not TradingMode.MANUAL and venue_is_live and provenance is not Provenance.LIVE:
        seen = "unknown" if provenance is None else provenance.value
        raise AutomaticModeForbidden(
            f"{mode.value} at a live venue needs LIVE data, and it is {seen}", seen=seen, allowed=Provenance.LIVE.value
        )


def _changed(control: Control, **values: Any) -> Control:
    return replace(control, version=control.version + 1, **values)


def _stopped(latch: EmergencyLatch) -> EmergencyStopped:
    return EmergencyStopped(_latched(latch), state=TradingState.HALTED.value, because="emergency stop")


def _need(actor: str) -> None:
    if not actor.strip():
        raise ActorMissing("actor")


def _need_reason(reason: str) -> None:
    if not reason.strip():
        raise ActorMissing("reason")


def _latched(latch: EmergencyLatch) -> str:
    return f"the emergency stop is latched: {latch.reason} (by {latch.actor})"
