"""Decides who may trade now: mode, trading state, and the emergency latch that only a person with a reason clears."""

from __future__ import annotations

import enum
from dataclasses import dataclass, replace

from minhos_mesh.trading_engine.domain.errors import (
    ActorMissing,
    AutomaticModeForbidden,
    EmergencyStopped,
    StateConflict,
    TradingHalted,
    VenueUnavailable,
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
    """The whole of trading control; `version` counts its changes."""

    mode: TradingMode
    state: TradingState = TradingState.ACTIVE
    emergency: EmergencyLatch | None = None
    reason: str = ""
    actor: str = ""
    changed_ns: int = 0
    version: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """Why control does not let an order through."""

    reason: Reason
    message: str


def default_mode(venue_is_paper: bool, provenance: Provenance | None) -> TradingMode:
    """FULL_AUTO only for a paper venue on data that is known not to be LIVE, else MANUAL."""
    if venue_is_paper and provenance is not None and provenance is not Provenance.LIVE:
        return TradingMode.FULL_AUTO
    return TradingMode.MANUAL


def set_mode(control: Control, mode: TradingMode, *, actor: str, reason: str, at_ns: int) -> Control:
    """Change the mode. Raises ActorMissing, and EmergencyStopped for an automatic mode while the latch holds."""
    _need(actor)
    if control.emergency is not None and mode is not TradingMode.MANUAL:
        raise EmergencyStopped(_latched(control.emergency), reason=control.emergency.reason)
    return _changed(control, actor, reason, at_ns, mode=mode)


def set_state(control: Control, state: TradingState, *, actor: str, reason: str, at_ns: int) -> Control:
    """Halt, reduce or resume. Raises ActorMissing, and EmergencyStopped for anything but HALTED while the latch holds."""
    _need(actor)
    if state is not TradingState.ACTIVE:
        _need_reason(reason)
    if control.emergency is not None and state is not TradingState.HALTED:
        raise EmergencyStopped(_latched(control.emergency), reason=control.emergency.reason)
    return _changed(control, actor, reason, at_ns, state=state)


def emergency_stop(control: Control, *, actor: str, reason: str, flatten: bool, at_ns: int) -> Control:
    """Latch the stop: HALTED and MANUAL. A second stop keeps the first reason and may only add the flattening."""
    _need(actor)
    _need_reason(reason)
    if control.emergency is not None:
        if control.emergency.flatten or not flatten:
            return control
        return _changed(control, actor, reason, at_ns, emergency=replace(control.emergency, flatten=True))
    latch = EmergencyLatch(reason=reason, actor=actor, at_ns=at_ns, flatten=flatten)
    return _changed(control, actor, reason, at_ns, emergency=latch, state=TradingState.HALTED, mode=TradingMode.MANUAL)


def clear_emergency(control: Control, *, actor: str, reason: str, at_ns: int) -> Control:
    """Take the latch away. Trading stays HALTED and MANUAL until a person resumes it.

    Raises ActorMissing, and StateConflict when nothing is latched.
    """
    _need(actor)
    _need_reason(reason)
    if control.emergency is None:
        raise StateConflict("clear emergency stop", control.state.value)
    return _changed(control, actor, reason, at_ns, emergency=None)


def refuse_order(control: Control, *, side: Side, quantity: int, position: int, working: int) -> Refusal | None:
    """Say why control does not let an order pass, or None. `position` is signed, `working` what works on its side."""
    if control.emergency is not None:
        return Refusal(reason=Reason.EMERGENCY_STOP, message=_latched(control.emergency))
    if control.state is TradingState.HALTED:
        return Refusal(reason=Reason.TRADING_STATE, message=f"trading is HALTED: {control.reason}")
    if control.state is TradingState.REDUCING:
        return refuse_increase(
            side=side, quantity=quantity, position=position, working=working, why="trading is REDUCING"
        )
    return None


def refuse_increase(*, side: Side, quantity: int, position: int, working: int, why: str) -> Refusal | None:
    """Say why an order would do more than reduce a position, or None.

    `working` contracts on the same side count as done, so that two orders together cannot turn the position.
    """
    room = max(0, -position * side.sign - working)
    if quantity <= room:
        return None
    message = f"{why}: {side.value} {quantity} would do more than reduce, at most {room} may pass"
    return Refusal(reason=Reason.TRADING_STATE, message=message)


def raise_refusal(refusal: Refusal) -> None:
    """Raise what tells a caller of this refusal: EmergencyStopped, VenueUnavailable, WrongProvenance, TradingHalted."""
    if refusal.reason is Reason.VENUE_UNAVAILABLE:
        raise VenueUnavailable(refusal.message)
    if refusal.reason is Reason.PROVENANCE:
        raise WrongProvenance(refusal.message, because=refusal.message)
    if refusal.reason is Reason.EMERGENCY_STOP:
        raise EmergencyStopped(refusal.message, because="emergency stop")
    raise TradingHalted(refusal.message, because=refusal.message)


def check_live_rule(venue_is_live: bool, provenance: Provenance) -> Refusal | None:
    """A live venue takes an order only when the data that led to it is LIVE."""
    if venue_is_live and provenance is not Provenance.LIVE:
        message = f"a live venue takes only orders that rest on LIVE data, this one rests on {provenance.value}"
        return Refusal(reason=Reason.PROVENANCE, message=message)
    return None


def forbid_automatic(venue_is_live: bool, provenance: Provenance | None, mode: TradingMode) -> None:
    """Refuse FULL_AUTO and SEMI_AUTO at a live venue unless the data is LIVE. Raises AutomaticModeForbidden."""
    if mode is not TradingMode.MANUAL and venue_is_live and provenance is not Provenance.LIVE:
        seen = "unknown" if provenance is None else provenance.value
        raise AutomaticModeForbidden(f"{mode.value} at a live venue needs LIVE data, and it is {seen}", seen=seen)


def _changed(control: Control, actor: str, reason: str, at_ns: int, **values: object) -> Control:
    stamped = {"actor": actor, "reason": reason, "changed_ns": at_ns, "version": control.version + 1}
    return replace(control, **stamped, **values)  # type: ignore[arg-type]  # the keys are field names given above


def _need(actor: str) -> None:
    if not actor.strip():
        raise ActorMissing("actor")


def _need_reason(reason: str) -> None:
    if not reason.strip():
        raise ActorMissing("reason")


def _latched(latch: EmergencyLatch) -> str:
    return f"the emergency stop is latched: {latch.reason} (by {latch.actor})"
