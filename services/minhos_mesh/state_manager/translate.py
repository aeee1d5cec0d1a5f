"""Contract message <-> domain value of the state manager; says which mask is allowed and what makes two requests the same."""

from __future__ import annotations

import hashlib
import json
from typing import Final

from google.protobuf import timestamp_pb2
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message

from minhos_api.order.v1 import fill_pb2, order_terms_pb2, position_pb2
from minhos_api.state.v1 import state_events_pb2
from minhos_api.state.v1 import state_manager_service_pb2 as pb
from minhos_api.trading.v1 import trading_control_service_pb2, trading_events_pb2
from minhos_mesh.runtime.paging import make_token, read_token
from minhos_mesh.runtime.wire_time import timestamp
from minhos_mesh.state_manager.domain.audit import AuditEntry, TradingNews
from minhos_mesh.state_manager.domain.errors import FieldInvalid, FillUnusable
from minhos_mesh.state_manager.domain.portfolio import Holding, Portfolio, Told, Trade
from minhos_mesh.state_manager.domain.state import PATCHABLE, Patch, State, SystemState
from minhos_mesh.state_manager.service import Update
from minhos_mesh.state_manager.store import TradePosition

NS: Final = 1_000_000_000
DEFAULT_PAGE: Final = 100
LARGEST_TRADES_PAGE: Final = 5000
LARGEST_AUDIT_PAGE: Final = 1000

_SYSTEM_STATES: Final = {
    SystemState.OFFLINE: pb.SYSTEM_STATE_OFFLINE,
    SystemState.STARTING: pb.SYSTEM_STATE_STARTING,
    SystemState.ONLINE: pb.SYSTEM_STATE_ONLINE,
    SystemState.DEGRADED: pb.SYSTEM_STATE_DEGRADED,
    SystemState.EMERGENCY_STOP: pb.SYSTEM_STATE_EMERGENCY_STOP,
}
_FROM_PB: Final = {number: state for state, number in _SYSTEM_STATES.items()}


# The state.


def state_to_pb(state: State) -> pb.State:
    """The state as the contract tells it."""
    return pb.State(
        system_state=_SYSTEM_STATES[state.system_state],
        trading_enabled=state.trading_enabled,
        auto_trade_enabled=state.auto_trade_enabled,
        risk_enabled=state.risk_enabled,
        auto_threshold=state.auto_threshold,
        order_quantity=state.order_quantity,
        flags=state.flags,
        version=state.version,
        update_time=timestamp(state.updated_ns),
    )


def watched(revision: int, state: State | None, *, snapshot: bool) -> pb.WatchStateResponse:
    """One message of a Watch; without a state a heartbeat."""
    if state is None:
        return pb.WatchStateResponse(heartbeat=pb.StateHeartbeat(), revision=revision)
    if snapshot:
        return pb.WatchStateResponse(snapshot=pb.StateSnapshot(state=state_to_pb(state)), revision=revision)
    return pb.WatchStateResponse(state=state_to_pb(state), revision=revision)


def state_event(state: State, actor: str, reason: str) -> state_events_pb2.StateChanged:
    """The event that tells a change."""
    return state_events_pb2.StateChanged(state=state_to_pb(state), actor=actor, reason=reason)


def update_from_pb(request: pb.UpdateStateRequest) -> Update:
    """What is to be changed. Raises FieldInvalid for a mask that is empty or names what cannot be changed."""
    content = pb.UpdateStateRequest()
    content.CopyFrom(request)
    for free in ("request_id", "actor", "reason"):
        content.ClearField(free)
    return Update(
        request_id=request.request_id,
        fingerprint=hashlib.sha256(content.SerializeToString(deterministic=True)).hexdigest(),
        patch=_patch_from_pb(request),
        expected_version=request.expected_version if request.HasField("expected_version") else None,
        actor=request.actor,
        reason=request.reason,
    )


def _patch_from_pb(request: pb.UpdateStateRequest) -> Patch:
    paths, state = list(request.update_mask.paths), request.state
    if not paths:
        raise FieldInvalid("update_mask", "empty", f"at least one of {', '.join(PATCHABLE)}")
    for path in paths:
        if path not in PATCHABLE:
            raise FieldInvalid("update_mask", repr(path), f"only {', '.join(PATCHABLE)}")
    system_state = None
    if "system_state" in paths:
        system_state = _FROM_PB.get(state.system_state)
        if system_state is None:
            allowed = ", ".join(pb.SystemState.Name(number) for number in _FROM_PB)
            raise FieldInvalid("state.system_state", pb.SystemState.Name(state.system_state), f"one of {allowed}")
    return Patch(
        system_state=system_state,
        trading_enabled=state.trading_enabled if "trading_enabled" in paths else None,
        auto_trade_enabled=state.auto_trade_enabled if "auto_trade_enabled" in paths else None,
        risk_enabled=state.risk_enabled if "risk_enabled" in paths else None,
        auto_threshold=state.auto_threshold if "auto_threshold" in paths else None,
        order_quantity=state.order_quantity if "order_quantity" in paths else None,
        flags=dict(state.flags) if "flags" in paths else None,
    )


# What the trading engine tells.


def trade_from_pb(event: trading_events_pb2.TradeExecuted) -> Trade:
    """A fill. Raises FillUnusable when it has no direction."""
    fill, position = event.fill, event.position
    if fill.side not in {order_terms_pb2.SIDE_BUY, order_terms_pb2.SIDE_SELL}:
        raise FillUnusable(f"fill {fill.fill_id!r}: side is neither buy nor sell")
    return Trade(
        fill_id=fill.fill_id,
        order_id=fill.order_id,
        venue_order_id=fill.venue_order_id,
        symbol=fill.symbol,
        buy=fill.side == order_terms_pb2.SIDE_BUY,
        quantity=fill.quantity,
        cumulative_quantity=fill.cumulative_quantity,
        price_e9=fill.price_e9,
        commission_e9=fill.commission_e9,
        fill_ns=_ns(fill.fill_time),
        provenance=int(fill.provenance),
        market_sequence=fill.market_sequence if fill.HasField("market_sequence") else None,
        multiplier_e9=position.multiplier_e9,
        version=position.version,
    )


def told_from_pb(position: position_pb2.Position) -> Told:
    """A position as its owner told it."""
    return Told(
        symbol=position.symbol,
        quantity=position.quantity,
        cost_e9=position.cost_e9,
        realized_e9=position.realized_pnl_e9,
        commission_e9=position.commission_e9,
        version=position.version,
    )


def news_from_status(action: str, status: trading_control_service_pb2.TradingStatus) -> TradingNews:
    """Mode, state and emergency stop after a change."""
    latch = status.emergency_stop
    is_mode = _ns(status.mode_time) > _ns(status.state_time)
    return TradingNews(
        action=action,
        actor=status.mode_actor if is_mode else status.state_actor,
        reason=status.mode_reason if is_mode else status.state_reason,
        at_ns=max(_ns(status.mode_time), _ns(status.state_time)),
        after_json=_json(status),
        latched=latch.latched,
        latch_reason=latch.reason,
    )


def news_from_latch(action: str, latch: trading_control_service_pb2.EmergencyLatch) -> TradingNews:
    """The emergency stop that was latched."""
    return TradingNews(
        action=action,
        actor=latch.actor,
        reason=latch.reason,
        at_ns=_ns(latch.latch_time),
        after_json=_json(latch),
        latched=latch.latched,
        latch_reason=latch.reason,
    )


# Portfolio, fills, audit log.


def portfolio_to_pb(portfolio: Portfolio) -> pb.GetPortfolioResponse:
    """The portfolio; what open positions are worth now is not known here and left unset."""
    return pb.GetPortfolioResponse(
        positions=[_holding_to_pb(holding) for holding in portfolio.holdings],
        realized_pnl_e9=sum(holding.realized_e9 for holding in portfolio.holdings),
        commission_e9=sum(holding.book.commission_e9 for holding in portfolio.holdings),
        fills=sum(holding.fills for holding in portfolio.holdings),
        through_sequence=portfolio.through_sequence,
        daily=[
            pb.DailyPnl(
                date=day.date, realized_pnl_e9=day.realized_e9, commission_e9=day.commission_e9, fills=day.fills
            )
            for day in portfolio.days
        ],
    )


def trade_to_pb(trade: Trade) -> fill_pb2.Fill:
    """A fill as it was told."""
    return fill_pb2.Fill(
        fill_id=trade.fill_id,
        order_id=trade.order_id,
        venue_order_id=trade.venue_order_id,
        symbol=trade.symbol,
        side=order_terms_pb2.SIDE_BUY if trade.buy else order_terms_pb2.SIDE_SELL,
        quantity=trade.quantity,
        cumulative_quantity=trade.cumulative_quantity,
        price_e9=trade.price_e9,
        commission_e9=trade.commission_e9,
        fill_time=timestamp(trade.fill_ns),
        provenance=fill_pb2.Fill(provenance=trade.provenance).provenance,  # type: ignore[arg-type] # a number that came from the same enum
        market_sequence=trade.market_sequence,
    )


def audit_to_pb(entry: AuditEntry) -> pb.AuditEntry:
    """An entry of the audit log."""
    return pb.AuditEntry(
        entry_id=entry.entry_id,
        entry_time=timestamp(entry.at_ns),
        actor=entry.actor,
        action=entry.action,
        subject=entry.subject,
        before_json=entry.before_json,
        after_json=entry.after_json,
        reason=entry.reason,
    )


def _holding_to_pb(holding: Holding) -> position_pb2.Position:
    return position_pb2.Position(
        symbol=holding.symbol,
        quantity=holding.book.quantity,
        cost_e9=holding.book.cost_e9,
        average_price_e9=holding.average_price_e9,
        realized_pnl_e9=holding.realized_e9,
        commission_e9=holding.book.commission_e9,
        multiplier_e9=holding.multiplier_e9,
        update_time=timestamp(holding.updated_ns),
        version=holding.version,
    )


# Pages.


def trades_token(request: pb.ListTradesRequest, end: TradePosition | None) -> str:
    """The token that goes on behind this fill; empty at the end."""
    return "" if end is None else make_token(request, [end.version, end.entry])


def trades_before(request: pb.ListTradesRequest) -> TradePosition | None:
    """Where the page begins. Raises MeshError PAGE_TOKEN_INVALID."""
    found = read_token(request)
    return None if found is None else TradePosition(*(int(part) for part in found))


def audit_token(request: pb.ListAuditEntriesRequest, end: int | None) -> str:
    """The token that goes on behind this entry; empty at the end."""
    return "" if end is None else make_token(request, [end])


def audit_before(request: pb.ListAuditEntriesRequest) -> int | None:
    """Where the page begins. Raises MeshError PAGE_TOKEN_INVALID."""
    found = read_token(request)
    return None if found is None else int(found[0])


def _json(message: Message) -> str:
    told = MessageToDict(message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True)
    return json.dumps(told, separators=(",", ":"), sort_keys=True)


def _ns(timestamp: timestamp_pb2.Timestamp) -> int:
    return timestamp.seconds * NS + timestamp.nanos
