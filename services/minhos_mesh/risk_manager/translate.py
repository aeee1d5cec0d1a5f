"""Decides how the contract's messages and the values of risk become each other."""

from __future__ import annotations

from google.protobuf.timestamp_pb2 import Timestamp

from minhos_api.order.v1 import position_pb2
from minhos_api.risk.v1 import risk_check_pb2, risk_events_pb2, risk_limits_pb2
from minhos_api.risk.v1 import risk_manager_service_pb2 as pb
from minhos_api.trading.v1 import order_pb2, trading_events_pb2
from minhos_mesh.matching import Side
from minhos_mesh.risk_manager.domain.breaker import Breaker
from minhos_mesh.risk_manager.domain.desk import Decision
from minhos_mesh.risk_manager.domain.errors import InvalidField
from minhos_mesh.risk_manager.domain.limits import RiskLimits
from minhos_mesh.risk_manager.domain.metrics import Metrics
from minhos_mesh.risk_manager.domain.projection import OrderFact, TradeFact
from minhos_mesh.risk_manager.domain.question import (
    AccountView,
    CheckResult,
    Evidence,
    Held,
    Provenance,
    Question,
    Verdict,
)
from minhos_mesh.risk_manager.domain.sizing import Size
from minhos_mesh.risk_manager.service import Alert
from minhos_mesh.runtime.market import MarketQuote
from minhos_mesh.runtime.money import E9
from minhos_mesh.runtime.wire_time import timestamp
from minhos_mesh.venue.order_wire import DONE_PB, SIDES, terms_from_proto, terms_to_proto

LAST_SECOND = 7_258_118_400
"""1 January 2200: nanoseconds up to it fit an int64."""

_LIVE = frozenset(
    {
        order_pb2.ORDER_STATE_SUBMITTING,
        order_pb2.ORDER_STATE_WORKING,
        order_pb2.ORDER_STATE_PARTIALLY_FILLED,
        order_pb2.ORDER_STATE_PENDING_CANCEL,
        order_pb2.ORDER_STATE_PENDING_REPLACE,
        order_pb2.ORDER_STATE_UNKNOWN,
    }
)


def question_from_proto(request: pb.CheckTradeRequest) -> Question:
    """A question that the contract's rules let through. Raises InvalidField for what they cannot say."""
    evidence = request.evidence
    if request.replaces and not request.order_id:
        raise InvalidField("order_id", "empty", "the id of the working order that is replaced")
    return Question(
        request_id=request.request_id,
        order_id=request.order_id or request.request_id,
        terms=terms_from_proto(request.terms),
        dry_run=request.dry_run,
        account=account_from_proto(request.account) if request.HasField("account") else None,
        evidence=evidence_from_proto(evidence) if request.HasField("evidence") else None,
        decision_time_ns=time_from_proto(evidence.decision_time, "evidence.decision_time")
        if evidence.HasField("decision_time")
        else None,
        replaces=request.replaces,
    )


def time_from_proto(time: Timestamp, field: str) -> int:
    """Nanoseconds since the Unix epoch. Raises InvalidField for an instant that is none, or beyond the years in use."""
    if not (0 <= time.seconds < LAST_SECOND and 0 <= time.nanos < E9):
        raise InvalidField(field, f"{time.seconds} s and {time.nanos} ns", "an instant of the years 1970 to 2199")
    return time.seconds * E9 + time.nanos


def account_from_proto(view: pb.AccountView) -> AccountView:
    """An account as its owner sees it."""
    return AccountView(
        positions={position.symbol: held_from_proto(position) for position in view.positions},
        working_buy=dict(view.working_buy),
        working_sell=dict(view.working_sell),
        realized_today_e9=view.realized_today_e9,
        version=view.version,
        working_order_ids=frozenset(view.working_order_ids),
    )


def held_from_proto(position: position_pb2.Position) -> Held:
    """What is held of one symbol; a multiplier that is no whole number is left to the instrument."""
    whole, rest = divmod(position.multiplier_e9, E9)
    return Held(
        quantity=position.quantity,
        cost_e9=position.cost_e9,
        multiplier=whole if whole > 0 and rest == 0 else None,
        unrealized_e9=position.unrealized_pnl_e9 if position.HasField("unrealized_pnl_e9") else None,
    )


def evidence_from_proto(evidence: pb.MarketEvidence) -> Evidence:
    """Prices that a decision was based on."""
    return Evidence(
        event_time_ns=time_from_proto(evidence.event_time, "evidence.event_time")
        if evidence.HasField("event_time")
        else None,
        last_e9=evidence.last_price_e9 if evidence.HasField("last_price_e9") else None,
        bid_e9=evidence.bid_e9 if evidence.HasField("bid_e9") else None,
        ask_e9=evidence.ask_e9 if evidence.HasField("ask_e9") else None,
        sequence=evidence.sequence,
        epoch=evidence.epoch,
        provenance=Provenance(evidence.provenance),
    )


def price_from_quote(quote: MarketQuote) -> Evidence:
    """The newest price as market data tells it."""
    return Evidence(
        event_time_ns=quote.event_time_ns,
        last_e9=quote.last_price_e9,
        bid_e9=quote.bid_e9,
        ask_e9=quote.ask_e9,
        sequence=quote.sequence,
        epoch=quote.epoch,
        provenance=Provenance(quote.provenance),
    )


def order_fact(order: order_pb2.Order) -> OrderFact:
    """How an order stands."""
    return OrderFact(
        order_id=order.order_id,
        symbol=order.terms.symbol,
        side=SIDES.get(order.terms.side, Side.BUY),
        leaves_quantity=max(order.terms.quantity - order.filled_quantity, 0),
        live=order.state in _LIVE,
        done=order.state in DONE_PB,
        version=order.version,
        filled_quantity=order.filled_quantity,
    )


def trade_fact(trade: trading_events_pb2.TradeExecuted) -> TradeFact:
    """What a fill did."""
    return TradeFact(
        fill_id=trade.fill.fill_id,
        symbol=trade.fill.symbol,
        held=held_from_proto(trade.position),
        realized_e9=trade.realized_pnl_e9,
        commission_e9=trade.fill.commission_e9,
        version=trade.position.version,
        time_ns=trade.fill.fill_time.ToNanoseconds(),
    )


def check_to_proto(check: CheckResult) -> risk_check_pb2.RiskCheck:
    """Result of one check."""
    return risk_check_pb2.RiskCheck(
        code=risk_check_pb2.RiskCheckCode.ValueType(int(check.code)),
        passed=check.passed,
        observed=check.observed,
        limit=check.limit,
        message=check.message,
    )


def verdict_to_proto(verdict: Verdict) -> pb.CheckTradeResponse:
    """Answer to a question."""
    return pb.CheckTradeResponse(
        approved=verdict.approved,
        checks=[check_to_proto(check) for check in verdict.checks],
        approval_id=verdict.approval_id,
        expire_time=timestamp(verdict.expire_ns) if verdict.expire_ns is not None else None,
        limits_version=verdict.limits_version,
    )


def result_event(decision: Decision) -> risk_events_pb2.RiskCheckResult:
    """What is published of a decision."""
    return risk_events_pb2.RiskCheckResult(
        request_id=decision.question.request_id,
        order_id=decision.question.order_id,
        terms=terms_to_proto(decision.question.terms),
        approved=decision.verdict.approved,
        checks=[check_to_proto(check) for check in decision.verdict.checks],
        approval_id=decision.verdict.approval_id,
    )


def threshold_event(alert: Alert) -> risk_events_pb2.RiskThresholdExceeded:
    """What is published of a limit that was passed."""
    return risk_events_pb2.RiskThresholdExceeded(
        code=risk_check_pb2.RiskCheckCode.ValueType(int(alert.code)),
        observed=alert.observed,
        limit=alert.limit,
        breaker_tripped=alert.breaker_tripped,
    )


def limits_from_proto(limits: risk_limits_pb2.RiskLimits) -> RiskLimits:
    """Limits of an account."""
    return RiskLimits(
        max_order_quantity=limits.max_order_quantity,
        max_position=limits.max_position,
        max_open_positions=limits.max_open_positions,
        max_exposure_e9=limits.max_exposure_e9,
        max_daily_loss_e9=limits.max_daily_loss_e9,
        max_drawdown_e9=limits.max_drawdown_e9,
        price_collar_ticks=limits.price_collar_ticks,
        max_price_age_ns=limits.max_price_age.ToNanoseconds(),
        max_orders_per_minute=limits.max_orders_per_minute,
        trading_enabled=limits.trading_enabled,
    )


def limits_to_proto(limits: RiskLimits) -> risk_limits_pb2.RiskLimits:
    """Limits of an account."""
    message = risk_limits_pb2.RiskLimits(
        max_order_quantity=limits.max_order_quantity,
        max_position=limits.max_position,
        max_open_positions=limits.max_open_positions,
        max_exposure_e9=limits.max_exposure_e9,
        max_daily_loss_e9=limits.max_daily_loss_e9,
        max_drawdown_e9=limits.max_drawdown_e9,
        price_collar_ticks=limits.price_collar_ticks,
        max_orders_per_minute=limits.max_orders_per_minute,
        trading_enabled=limits.trading_enabled,
    )
    message.max_price_age.FromNanoseconds(limits.max_price_age_ns)
    return message


def breaker_to_proto(breaker: Breaker) -> pb.Breaker:
    """The breaker."""
    return pb.Breaker(
        tripped=breaker.tripped,
        reason=breaker.reason,
        tripped_by=breaker.tripped_by,
        trip_time=timestamp(breaker.trip_ns) if breaker.trip_ns is not None else None,
    )


def metrics_to_proto(metrics: Metrics) -> pb.RiskMetrics:
    """What the risk manager sees."""
    return pb.RiskMetrics(
        exposure_e9=metrics.exposure_e9,
        realized_today_e9=metrics.realized_today_e9,
        unrealized_e9=metrics.unrealized_e9,
        drawdown_e9=metrics.drawdown_e9,
        positions=dict(metrics.positions),
        breaker=breaker_to_proto(metrics.breaker),
        open_reservations=metrics.open_reservations,
        reserved=dict(metrics.reserved),
        checks=metrics.checks,
        refusals=metrics.refusals,
        refusals_by_check=dict(metrics.refusals_by_check),
        limits=limits_to_proto(metrics.limits),
        limits_version=metrics.limits_version,
    )


def size_to_proto(size: Size) -> pb.CalculatePositionSizeResponse:
    """How many contracts may be taken."""
    return pb.CalculatePositionSizeResponse(
        quantity=size.quantity,
        loss_per_contract_e9=size.loss_per_contract_e9,
        bounded_by=pb.PositionSizeBound.ValueType(int(size.bounded_by)),
        message=size.message,
    )


def update_to_proto(revision: int, metrics: Metrics | None, *, first: bool) -> pb.WatchRiskResponse:
    """One message of a watch; no metrics are a heartbeat."""
    if metrics is None:
        return pb.WatchRiskResponse(heartbeat=pb.RiskHeartbeat(), revision=revision)
    told = metrics_to_proto(metrics)
    if first:
        return pb.WatchRiskResponse(snapshot=pb.RiskSnapshot(metrics=told), revision=revision)
    return pb.WatchRiskResponse(change=told, revision=revision)
