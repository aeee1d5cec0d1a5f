"""Decides how orders, fills, positions and signals look on the wire, and back."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from google.protobuf.timestamp_pb2 import Timestamp

from minhos_api.brain.v1 import signal_pb2
from minhos_api.market.v1 import provenance_pb2, quote_pb2
from minhos_api.order.v1 import fill_pb2, order_terms_pb2, position_pb2
from minhos_api.risk.v1 import risk_check_pb2
from minhos_api.trading.v1 import order_pb2
from minhos_api.trading.v1 import trading_engine_service_pb2 as engine_pb2
from minhos_mesh.runtime.errors import invalid_field
from minhos_mesh.runtime.money import INT64_MAX
from minhos_mesh.runtime.wire_time import timestamp
from minhos_mesh.trading_engine.domain.order_events import ReplaceRequested
from minhos_mesh.trading_engine.domain.orders import (
    Fill,
    Order,
    OrderState,
    OrderTerms,
    OrderType,
    Provenance,
    Reason,
    RiskCheck,
    Side,
    TimeInForce,
)
from minhos_mesh.trading_engine.domain.performance import Performance
from minhos_mesh.trading_engine.domain.positions import Position
from minhos_mesh.trading_engine.domain.signals import Signal
from minhos_mesh.trading_engine.ports import Evidence
from minhos_mesh.trading_engine.service import Holdings

SIDES: Final = {side: order_terms_pb2.Side.Value(f"SIDE_{side.name}") for side in Side}
_SIDES_BACK: Final[Mapping[int, Side]] = {number: side for side, number in SIDES.items()}
_TYPES: Final = {kind: order_terms_pb2.OrderType.Value(f"ORDER_TYPE_{kind.name}") for kind in OrderType}
_TYPES_BACK: Final[Mapping[int, OrderType]] = {number: kind for kind, number in _TYPES.items()}
_TIMES: Final = {time: order_terms_pb2.TimeInForce.Value(f"TIME_IN_FORCE_{time.name}") for time in TimeInForce}
_TIMES_BACK: Final[Mapping[int, TimeInForce]] = {number: time for time, number in _TIMES.items()}
_PROVENANCES: Final = {each: provenance_pb2.Provenance.Value(f"PROVENANCE_{each.name}") for each in Provenance}
_PROVENANCES_BACK: Final[Mapping[int, Provenance]] = {number: provenance for provenance, number in _PROVENANCES.items()}
_STATES: Final = {state: order_pb2.OrderState.Value(f"ORDER_STATE_{state.value}") for state in OrderState}
_STATES_BACK: Final[Mapping[int, OrderState]] = {number: state for state, number in _STATES.items()}
_REASONS: Final = {
    reason: order_pb2.ORDER_REASON_UNSPECIFIED
    if reason is Reason.NONE
    else order_pb2.OrderReason.Value(f"ORDER_REASON_{reason.value}")
    for reason in Reason
}
_CHECK_PREFIX: Final = "RISK_CHECK_CODE_"


def time_from_proto(time: Timestamp) -> int:
    """A Timestamp as nanoseconds since the Unix epoch; one outside 1970 to 2262 as the nearest of these, so that it fits 64 bits."""
    return max(0, min(time.seconds * 1_000_000_000 + time.nanos, INT64_MAX))


def fit(amount: int) -> int:
    """A sum as far as 64 bits can tell it: the nearest number that fits."""
    return max(-INT64_MAX, min(amount, INT64_MAX))


def _fit(amount: int | None) -> int | None:
    return None if amount is None else fit(amount)


def provenance_to_proto(provenance: Provenance) -> provenance_pb2.Provenance.ValueType:
    """Provenance on the wire."""
    return _PROVENANCES[provenance]


def provenance_from_proto(provenance: int) -> Provenance | None:
    """Provenance from the wire; None when it is not stated."""
    return _PROVENANCES_BACK.get(provenance)


def terms_from_proto(terms: order_terms_pb2.OrderTerms) -> OrderTerms:
    """Terms from the wire; their rules have been checked."""
    return OrderTerms(
        symbol=terms.symbol,
        side=_SIDES_BACK[terms.side],
        quantity=terms.quantity,
        order_type=_TYPES_BACK[terms.type],
        limit_price_e9=terms.limit_price_e9 if terms.HasField("limit_price_e9") else None,
        stop_price_e9=terms.stop_price_e9 if terms.HasField("stop_price_e9") else None,
        time_in_force=_TIMES_BACK.get(terms.time_in_force, TimeInForce.DAY),
    )


def terms_to_proto(terms: OrderTerms) -> order_terms_pb2.OrderTerms:
    """Terms on the wire."""
    return order_terms_pb2.OrderTerms(
        symbol=terms.symbol,
        side=SIDES[terms.side],
        type=_TYPES[terms.order_type],
        quantity=terms.quantity,
        limit_price_e9=terms.limit_price_e9,
        stop_price_e9=terms.stop_price_e9,
        time_in_force=_TIMES[terms.time_in_force],
    )


def order_to_proto(order: Order) -> order_pb2.Order:
    """An order on the wire."""
    return order_pb2.Order(
        order_id=order.order_id,
        request_id=order.origin.request_id,
        terms=terms_to_proto(order.terms),
        state=_STATES[order.state],
        reason=_REASONS[order.reason],
        reason_message=order.message,
        filled_quantity=order.filled_quantity,
        average_price_e9=_fit(order.average_price_e9),
        commission_e9=fit(order.commission_e9),
        venue_order_id=order.venue_order_id or "",
        signal_id=order.origin.signal_id or "",
        actor=order.origin.actor,
        provenance=_PROVENANCES[order.origin.provenance],
        checks=[check_to_proto(check) for check in order.checks],
        create_time=timestamp(order.created_ns),
        update_time=timestamp(order.updated_ns),
        version=order.sequence,
        reduce_only=order.origin.reduce_only,
        settlement_dispute=order.settlement_dispute,
    )


def states_from_proto(states: Iterable[int]) -> list[str]:
    """States of a filter."""
    return [_STATES_BACK[state].value for state in states]


def check_to_proto(check: RiskCheck) -> risk_check_pb2.RiskCheck:
    """A check of the risk manager on the wire."""
    return risk_check_pb2.RiskCheck(
        code=risk_check_pb2.RiskCheckCode.Value(_CHECK_PREFIX + check.code),
        passed=check.passed,
        observed=check.observed,
        limit=check.limit,
        message=check.message,
    )


def check_from_proto(check: risk_check_pb2.RiskCheck) -> RiskCheck:
    """A check of the risk manager from the wire; a code that is newer than this program is kept as UNSPECIFIED."""
    name = risk_check_pb2.RiskCheckCode.DESCRIPTOR.values_by_number.get(check.code)
    return RiskCheck(
        code="UNSPECIFIED" if name is None else name.name.removeprefix(_CHECK_PREFIX),
        passed=check.passed,
        observed=check.observed,
        limit=check.limit,
        message=check.message,
    )


def fill_to_proto(fill: Fill) -> fill_pb2.Fill:
    """A fill on the wire."""
    return fill_pb2.Fill(
        fill_id=fill.fill_id,
        order_id=fill.order_id,
        venue_order_id=fill.venue_order_id,
        symbol=fill.symbol,
        side=SIDES[fill.side],
        quantity=fill.quantity,
        cumulative_quantity=fill.cumulative_quantity,
        price_e9=fill.price_e9,
        commission_e9=fill.commission_e9,
        fill_time=timestamp(fill.at_ns),
        provenance=_PROVENANCES[fill.provenance],
        market_sequence=fill.market_sequence,
    )


def fill_from_proto(fill: fill_pb2.Fill) -> Fill:
    """A fill from the wire."""
    return Fill(
        fill_id=fill.fill_id,
        order_id=fill.order_id,
        venue_order_id=fill.venue_order_id,
        symbol=fill.symbol,
        side=_SIDES_BACK[fill.side],
        quantity=fill.quantity,
        cumulative_quantity=fill.cumulative_quantity,
        price_e9=fill.price_e9,
        commission_e9=fill.commission_e9,
        at_ns=time_from_proto(fill.fill_time),
        provenance=_PROVENANCES_BACK[fill.provenance],
        market_sequence=fill.market_sequence if fill.HasField("market_sequence") else None,
    )


def position_to_proto(position: Position, unrealized_e9: int | None = None) -> position_pb2.Position:
    """A position on the wire."""
    return position_pb2.Position(
        symbol=position.symbol,
        quantity=fit(position.quantity),
        cost_e9=fit(position.cost_e9),
        average_price_e9=_fit(position.average_price_e9),
        realized_pnl_e9=fit(position.realized_e9),
        commission_e9=fit(position.commission_e9),
        unrealized_pnl_e9=_fit(unrealized_e9),
        multiplier_e9=position.multiplier_e9,
        update_time=timestamp(position.updated_ns),
        version=position.version,
    )


def signal_from_proto(signal: signal_pb2.Signal) -> Signal | None:
    """A signal from the wire; None when it does not say where its data comes from."""
    quote = signal.quote
    provenance = provenance_from_proto(quote.provenance)
    if provenance is None:
        return None
    sides = {signal_pb2.SIGNAL_ACTION_BUY: Side.BUY, signal_pb2.SIGNAL_ACTION_SELL: Side.SELL}
    return Signal(
        signal_id=signal.signal_id,
        symbol=signal.symbol,
        side=sides.get(signal.action),
        confidence=signal.confidence,
        provenance=provenance,
        epoch=fit(quote.epoch),
        sequence=fit(signal.through_sequence or quote.sequence),
        quote_sequence=quote.sequence,
        at_ns=time_from_proto(signal.decision_time),
        quote_ns=time_from_proto(quote.event_time),
        price_e9=quote.last_price_e9 if quote.HasField("last_price_e9") else None,
        bid_e9=quote.bid_e9 if quote.HasField("bid_e9") else None,
        ask_e9=quote.ask_e9 if quote.HasField("ask_e9") else None,
    )


def signal_to_act_on(request: engine_pb2.ExecuteTradeRequest) -> Signal:
    """The signal that somebody wants acted on. Raises MeshError INVALID_FIELD for one that is not of one market."""
    quote = request.signal.quote
    if quote.symbol != request.signal.symbol:
        raise invalid_field("signal.quote.symbol", quote.symbol, f"the symbol of the signal, {request.signal.symbol}")
    signal = signal_from_proto(request.signal)
    if signal is None:
        raise invalid_field("signal.quote.provenance", "PROVENANCE_UNSPECIFIED", "where the data comes from")
    return signal


def evidence_from_proto(quote: quote_pb2.Quote) -> Evidence | None:
    """The last values of a symbol as evidence at their own time; None without provenance."""
    provenance = provenance_from_proto(quote.provenance)
    if provenance is None:
        return None
    event_ns = time_from_proto(quote.event_time)
    return Evidence(
        provenance=provenance,
        decision_ns=event_ns,
        event_ns=event_ns,
        sequence=quote.sequence,
        epoch=quote.epoch,
        last_e9=quote.last_price_e9 if quote.HasField("last_price_e9") else None,
        bid_e9=quote.bid_e9 if quote.HasField("bid_e9") else None,
        ask_e9=quote.ask_e9 if quote.HasField("ask_e9") else None,
    )


def holdings_to_proto(holdings: Holdings) -> engine_pb2.GetPositionsResponse:
    """Positions and totals on the wire."""
    return engine_pb2.GetPositionsResponse(
        positions=[position_to_proto(position, worth_e9) for position, worth_e9 in holdings.positions],
        realized_pnl_e9=fit(holdings.realized_e9),
        commission_e9=fit(holdings.commission_e9),
        unrealized_pnl_e9=_fit(holdings.unrealized_e9),
        version=holdings.version,
        replay_through_sequence=holdings.replay,
        revision=holdings.revision,
    )


def performance_to_proto(performance: Performance) -> engine_pb2.PerformanceMetrics:
    """Figures of trading on the wire."""
    last_ns = performance.last_fill_ns
    return engine_pb2.PerformanceMetrics(
        fills=performance.fills,
        trades=performance.trades,
        winning_trades=performance.wins,
        win_rate=performance.win_rate,
        average_win_e9=_fit(performance.average_win_e9),
        average_loss_e9=_fit(performance.average_loss_e9),
        net_pnl_e9=fit(performance.net_e9),
        max_drawdown_e9=fit(performance.max_drawdown_e9),
        sharpe_per_trade=performance.sharpe_ratio,
        commission_e9=fit(performance.commission_e9),
        last_fill_time=None if last_ns is None else timestamp(last_ns),
    )


def replacement_from_proto(
    *, request_id: str, quantity: int | None, limit_price_e9: int | None, stop_price_e9: int | None
) -> ReplaceRequested:
    """A wish for other terms; its time is set when it is looked at."""
    return ReplaceRequested(
        at_ns=0,
        request_id=request_id,
        quantity=quantity,
        limit_price_e9=limit_price_e9,
        stop_price_e9=stop_price_e9,
    )
