"""Decides how trading control and what is told to the mesh look on the wire."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from minhos_api.trading.v1 import trading_control_service_pb2 as pb2
from minhos_api.trading.v1 import trading_events_pb2 as events_pb2
from minhos_mesh.runtime.errors import invalid_field
from minhos_mesh.runtime.wire_time import timestamp
from minhos_mesh.trading_engine.domain.control import EmergencyLatch, TradingMode, TradingState
from minhos_mesh.trading_engine.emergency import Stopped
from minhos_mesh.trading_engine.ports import TradingFact
from minhos_mesh.trading_engine.service import ControlRequest, ControlView
from minhos_mesh.trading_engine.translate import fill_to_proto, fit, order_to_proto, position_to_proto

_MODES: Final = {mode: pb2.TradingMode.Value(f"TRADING_MODE_{mode.value}") for mode in TradingMode}
_MODES_BACK: Final[Mapping[int, TradingMode]] = {number: mode for mode, number in _MODES.items()}
_STATES: Final = {state: pb2.TradingState.Value(f"TRADING_STATE_{state.value}") for state in TradingState}
_STATES_BACK: Final[Mapping[int, TradingState]] = {number: state for state, number in _STATES.items()}


def mode_from_proto(mode: int) -> TradingMode:
    """A mode from the wire; its rules have been checked."""
    return _MODES_BACK[mode]


def halt_from_proto(state: int) -> TradingState:
    """The state that a halt asks for; HALTED when it names none. Raises MeshError INVALID_FIELD for ACTIVE."""
    wanted = _STATES_BACK.get(state, TradingState.HALTED)
    if wanted is TradingState.ACTIVE:
        raise invalid_field("state", "TRADING_STATE_ACTIVE", "TRADING_STATE_HALTED or TRADING_STATE_REDUCING")
    return wanted


def asked_from_proto(
    request: pb2.SetTradingModeRequest | pb2.ResumeRequest | pb2.ClearEmergencyStopRequest,
) -> ControlRequest:
    """Who asks for a change of control, and why."""
    return ControlRequest(
        request_id=request.request_id,
        actor=request.actor,
        reason=request.reason,
        expected_version=request.expected_version if request.HasField("expected_version") else None,
    )


def control_to_proto(view: ControlView) -> pb2.TradingStatus:
    """Trading control on the wire."""
    control = view.control
    return pb2.TradingStatus(
        mode=_MODES[control.mode],
        state=_STATES[control.state],
        state_reason=control.state_reason,
        state_actor=control.state_actor,
        state_time=_time(control.state_ns),
        mode_reason=control.mode_reason,
        mode_actor=control.mode_actor,
        mode_time=_time(control.mode_ns),
        signals_off_reason=view.auto_off,
        emergency_stop=latch_to_proto(control.emergency),
        auto_threshold=view.auto_threshold,
        venue=view.venue,
        venue_live=view.venue_live,
        version=control.version,
    )


def _time(at_ns: int) -> Timestamp | None:
    return timestamp(at_ns) if at_ns else None


def latch_to_proto(latch: EmergencyLatch | None) -> pb2.EmergencyLatch:
    """The emergency stop on the wire."""
    if latch is None:
        return pb2.EmergencyLatch(latched=False)
    return pb2.EmergencyLatch(latched=True, reason=latch.reason, actor=latch.actor, latch_time=timestamp(latch.at_ns))


def stopped_to_proto(stopped: Stopped, view: ControlView) -> pb2.EmergencyStopResponse:
    """What an emergency stop did, on the wire."""
    return pb2.EmergencyStopResponse(
        status=control_to_proto(view),
        canceled=[order_to_proto(order) for order in stopped.canceled],
        flattening=[order_to_proto(order) for order in stopped.flattening],
        unconfirmed=stopped.unconfirmed,
    )


def payloads_of(fact: TradingFact, view: ControlView | None) -> list[tuple[Message, str]]:
    """The events that a fact becomes, each with its subject. `view` is needed for a change of control."""
    if fact.booking is not None and fact.order is not None:
        fill, position = fill_to_proto(fact.booking.fill), position_to_proto(fact.booking.position)
        trade = events_pb2.TradeExecuted(
            fill=fill, position=position, realized_pnl_e9=fit(fact.booking.realized_e9), signal_id=fact.signal_id
        )
        symbol = fact.booking.fill.symbol
        return [(events_pb2.PositionUpdated(position=position), symbol), (trade, symbol)]
    if fact.order is not None:
        return [(events_pb2.OrderUpdated(order=order_to_proto(fact.order)), fact.order.terms.symbol)]
    if fact.control is not None and view is not None:
        return [(events_pb2.TradingStateChanged(status=control_to_proto(view)), "trading")]
    if fact.latch is not None:
        return [(events_pb2.EmergencyStopTriggered(latch=latch_to_proto(fact.latch)), "trading")]
    if fact.progress is not None:
        progress = events_pb2.TradingProgressed(
            symbol=fact.progress.symbol,
            epoch=fact.progress.epoch,
            through_sequence=fact.progress.through,
            event_time=timestamp(fact.at_ns),
        )
        return [(progress, fact.progress.symbol)]
    return []
