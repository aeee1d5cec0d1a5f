"""Decides how risk, venue and market data are asked over gRPC, and what each failure of theirs means here."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Any, Final

import grpc

from minhos_api.market.v1 import market_data_provider_service_pb2 as market_pb2
from minhos_api.mesh.v1 import error_reason_pb2
from minhos_api.risk.v1 import risk_manager_service_pb2 as risk_pb2
from minhos_api.trading.v1 import trading_engine_service_pb2 as engine_pb2
from minhos_api.venue.v1 import venue_service_pb2 as venue_pb2
from minhos_mesh.runtime import streams
from minhos_mesh.runtime.errors import MeshError, read
from minhos_mesh.runtime.wire_time import timestamp
from minhos_mesh.trading_engine.domain.errors import (
    MarketDataUnavailable,
    RiskConflict,
    RiskUnavailable,
    UnknownSymbol,
    VenueUnavailable,
)
from minhos_mesh.trading_engine.domain.order_events import VenueReported
from minhos_mesh.trading_engine.domain.orders import Fill, Order, OrderState, Reason
from minhos_mesh.trading_engine.ports import (
    Evidence,
    RiskAnswer,
    RiskQuestion,
    VenueConflict,
    VenueInfo,
    VenueKnowsNothing,
    VenueNews,
    VenuePositionLost,
    VenueProgress,
    VenueRefused,
    VenueView,
)
from minhos_mesh.trading_engine.translate import (
    check_from_proto,
    evidence_from_proto,
    fill_from_proto,
    fit,
    position_to_proto,
    provenance_from_proto,
    provenance_to_proto,
    terms_to_proto,
    time_from_proto,
)

_STATES: Final = {
    venue_pb2.VENUE_ORDER_STATE_PENDING: OrderState.WORKING,
    venue_pb2.VENUE_ORDER_STATE_WORKING: OrderState.WORKING,
    venue_pb2.VENUE_ORDER_STATE_FILLED: OrderState.FILLED,
    venue_pb2.VENUE_ORDER_STATE_CANCELED: OrderState.CANCELED,
    venue_pb2.VENUE_ORDER_STATE_REJECTED: OrderState.REJECTED,
    venue_pb2.VENUE_ORDER_STATE_EXPIRED: OrderState.EXPIRED,
    venue_pb2.VENUE_ORDER_STATE_UNKNOWN: OrderState.UNKNOWN,
}
_REASONS: Final = {
    OrderState.REJECTED: Reason.VENUE_REJECTED,
    OrderState.EXPIRED: Reason.TIME_IN_FORCE,
    OrderState.UNKNOWN: Reason.OUTCOME_UNKNOWN,
}
_NO_PRICE_PAUSE_S: Final = 0.1
_CODES: Final = {
    venue_pb2.VENUE_ORDER_REASON_FOK_UNFILLED: Reason.TIME_IN_FORCE,
    venue_pb2.VENUE_ORDER_REASON_IOC_REST: Reason.TIME_IN_FORCE,
    venue_pb2.VENUE_ORDER_REASON_TIME_IN_FORCE: Reason.TIME_IN_FORCE,
    venue_pb2.VENUE_ORDER_REASON_PROVENANCE: Reason.PROVENANCE,
    venue_pb2.VENUE_ORDER_REASON_REDUCE_ONLY: Reason.NOT_REDUCING,
    venue_pb2.VENUE_ORDER_REASON_SETTLED: Reason.SETTLED,
}
_REFUSALS: Final = frozenset(
    {
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.FAILED_PRECONDITION,
        grpc.StatusCode.OUT_OF_RANGE,
        grpc.StatusCode.PERMISSION_DENIED,
        grpc.StatusCode.UNAUTHENTICATED,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
    }
)
"""Answers that say for certain that the venue has changed nothing."""
WATCH_SILENCE_S: Final = 6.0
"""Three heartbeats of WatchOrders."""


class RemoteRisk:
    """The risk manager over gRPC. Any failure whatever is no answer."""

    def __init__(self, stub: Any) -> None:
        self._stub = stub

    async def check(self, question: RiskQuestion) -> RiskAnswer:
        """Ask about one order. Raises RiskUnavailable, RiskConflict."""
        try:
            answer = await self._stub.CheckTrade(_question_to_proto(question))
        except grpc.RpcError as error:
            if error.code() is grpc.StatusCode.ALREADY_EXISTS:
                raise RiskConflict(f"the risk manager was asked before with other content: {_said(error)}") from None
            raise RiskUnavailable(_said(error)) from None
        return RiskAnswer(
            approved=answer.approved,
            approval_id=answer.approval_id,
            checks=tuple(check_from_proto(check) for check in answer.checks),
        )

    async def greet(self) -> None:
        """Open the way, so that the first order does not wait for it. Raises RiskUnavailable."""
        try:
            await self._stub.GetRiskLimits(risk_pb2.GetRiskLimitsRequest())
        except grpc.RpcError as error:
            raise RiskUnavailable(_said(error)) from None

    async def set_limits(self, request: engine_pb2.SetRiskLimitsRequest) -> engine_pb2.SetRiskLimitsResponse:
        """Pass new limits to their owner; its refusal is passed back as it is."""
        asked = risk_pb2.SetRiskLimitsRequest(
            request_id=request.request_id, limits=request.limits, actor=request.actor, reason=request.reason
        )
        if request.HasField("expected_version"):
            asked.expected_version = request.expected_version
        try:
            answer = await self._stub.SetRiskLimits(asked)
        except grpc.RpcError as error:
            if error.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED):
                raise RiskUnavailable(_said(error)) from None
            raise _passed_on(error) from None
        return engine_pb2.SetRiskLimitsResponse(limits=answer.limits, version=answer.version)


class RemoteMarket:
    """Market data over gRPC."""

    def __init__(self, stub: Any) -> None:
        self._stub = stub

    async def quote(self, symbol: str, *, within_s: float) -> Evidence | None:
        """Ask for the last values, and again while there are none: after a restart the ticks are on their way.

        None when no tick has come in `within_s`. Raises MarketDataUnavailable, UnknownSymbol.
        """
        request, loop = market_pb2.GetMarketDataRequest(symbol=symbol), asyncio.get_running_loop()
        deadline = loop.time() + within_s
        while True:
            try:
                answer = await self._stub.GetMarketData(request, timeout=deadline - loop.time())
            except grpc.RpcError as error:
                if error.code() is grpc.StatusCode.NOT_FOUND:
                    raise UnknownSymbol(symbol, ()) from None
                raise MarketDataUnavailable(f"market data does not answer: {_said(error)}", symbol=symbol) from None
            if answer.HasField("quote"):
                return evidence_from_proto(answer.quote)
            if deadline - loop.time() < 2 * _NO_PRICE_PAUSE_S:
                return None
            await asyncio.sleep(_NO_PRICE_PAUSE_S)


class RemoteVenue:
    """A venue over gRPC. `timeout_s` is when the outcome of an order counts as not known."""

    def __init__(self, stub: Any, *, timeout_s: float) -> None:
        self._stub = stub
        self._timeout_s = timeout_s

    async def info(self) -> VenueInfo:
        """Ask who the venue is."""
        status = await self._query(self._stub.GetVenueStatus, venue_pb2.GetVenueStatusRequest())
        known = {symbol: provenance_from_proto(number) for symbol, number in status.provenance.items()}
        provenance = {symbol: found for symbol, found in known.items() if found is not None}
        return VenueInfo(name=status.venue, live=status.live, provenance=provenance)

    async def submit(self, order: Order) -> VenueView:
        """Send an order under its own id; safe to repeat. Raises VenueRefused."""
        request = venue_pb2.SubmitOrderRequest(
            client_order_id=order.order_id,
            terms=terms_to_proto(order.terms),
            provenance=provenance_to_proto(order.origin.provenance),
            decision_time=timestamp(order.origin.decision_ns),
            reduce_only=order.origin.reduce_only,
        )
        try:
            answer = await self._ask(self._stub.SubmitOrder, request)
        except VenueKnowsNothing as error:  # it does not know the symbol
            raise VenueRefused(str(error)) from None
        return view_from_proto(answer.order)

    async def cancel(self, order_id: str) -> VenueView:
        """Cancel an order. Raises VenueRefused, VenueKnowsNothing."""
        request = venue_pb2.CancelOrderRequest(client_order_id=order_id)
        return view_from_proto((await self._ask(self._stub.CancelOrder, request)).order)

    async def cancel_all(self) -> Sequence[VenueView]:
        """Cancel everything that works."""
        answer = await self._query(self._stub.CancelAll, venue_pb2.CancelAllRequest())
        return [view_from_proto(order) for order in answer.orders]

    async def replace(self, order: Order, request_id: str) -> VenueView:
        """Send the terms that an order is PENDING_REPLACE for. Raises VenueRefused, VenueKnowsNothing, VenueConflict."""
        request = venue_pb2.ReplaceOrderRequest(
            client_order_id=order.order_id,
            request_id=request_id,
            quantity=order.replace_quantity,
            limit_price_e9=order.replace_limit_price_e9,
            stop_price_e9=order.replace_stop_price_e9,
        )
        return view_from_proto((await self._ask(self._stub.ReplaceOrder, request)).order)

    async def get(self, order_id: str) -> VenueView:
        """Ask how an order stands, UNKNOWN when the venue does not know it either. Raises VenueKnowsNothing."""
        request = venue_pb2.GetOrderRequest(client_order_id=order_id)
        return view_from_proto((await self._query(self._stub.GetOrder, request)).order)

    async def open_orders(self) -> tuple[Sequence[VenueView], int]:
        """List what works, or of which that is not known, with the revision that the view is of."""
        answer = await self._query(self._stub.ListOpenOrders, venue_pb2.ListOpenOrdersRequest())
        return [view_from_proto(order) for order in answer.orders], answer.revision

    async def fills(self, *, order_id: str | None = None, after_fill_id: str | None = None) -> AsyncGenerator[Fill]:
        """List fills, the oldest first, of one order or behind a fill."""
        token = ""
        while True:
            request = venue_pb2.ListFillsRequest(
                client_order_id=order_id, after_fill_id=after_fill_id, page_size=5000, page_token=token
            )
            try:
                answer = await self._ask(self._stub.ListFills, request)
            except (VenueKnowsNothing, VenueRefused) as error:
                if after_fill_id is None:
                    raise VenueUnavailable(str(error)) from None
                after_fill_id, token = None, ""  # the last known fill is lost there: everything is told again
                continue
            for fill in answer.fills:
                yield fill_from_proto(fill)
            token = answer.next_page_token
            if not token:
                return

    async def positions(self) -> Mapping[str, int]:
        """List the signed contracts that the venue sees, by symbol, without zeros."""
        answer = await self._query(self._stub.ListPositions, venue_pb2.ListPositionsRequest())
        return {position.symbol: position.quantity for position in answer.positions if position.quantity}

    async def watch(self, after_revision: int | None) -> AsyncGenerator[VenueNews]:
        """Follow orders and fills behind a revision. Raises VenuePositionLost; VenueUnavailable at every other end."""
        call = self._stub.WatchOrders(venue_pb2.WatchOrdersRequest(after_revision=after_revision), wait_for_ready=False)
        try:
            while True:
                async with asyncio.timeout(WATCH_SILENCE_S):
                    message = await streams.read(call)
                if message is grpc.aio.EOF:
                    raise VenueUnavailable("the venue ended its stream")
                yield _news_from_proto(message)
        except TimeoutError:
            raise VenueUnavailable(f"the venue was silent for {WATCH_SILENCE_S:g} s") from None
        except grpc.RpcError as error:
            if error.code() is grpc.StatusCode.OUT_OF_RANGE:
                raise VenuePositionLost(_said(error)) from None
            raise VenueUnavailable(_said(error)) from None
        finally:
            call.cancel()

    async def _query(self, method: Any, request: Any) -> Any:
        """Ask something that changes nothing; a refusal is no answer then."""
        try:
            return await self._ask(method, request)
        except VenueRefused as error:
            raise VenueUnavailable(str(error)) from None

    async def _ask(self, method: Any, request: Any) -> Any:
        try:
            return await method(request, timeout=self._timeout_s)
        except grpc.RpcError as error:
            if error.code() in _REFUSALS:
                raise VenueRefused(_said(error)) from None
            if error.code() is grpc.StatusCode.NOT_FOUND:
                raise VenueKnowsNothing(_said(error)) from None
            if error.code() is grpc.StatusCode.ALREADY_EXISTS:
                raise VenueConflict(_said(error)) from None
            raise VenueUnavailable(_said(error)) from None


def view_from_proto(order: venue_pb2.VenueOrder) -> VenueView:
    """An order as the venue tells it; a state that is newer than this program is not known."""
    state, terms = _STATES.get(order.state, OrderState.UNKNOWN), order.terms
    if order.unanswered and order.state == venue_pb2.VENUE_ORDER_STATE_PENDING:
        state = OrderState.SUBMITTING
    return VenueView(
        order_id=order.client_order_id,
        report=VenueReported(
            at_ns=time_from_proto(order.update_time),
            state=state,
            revision=order.revision,
            filled_quantity=order.filled_quantity,
            reason=_CODES.get(order.reason_code) or _REASONS.get(state, Reason.NONE),
            message=order.reason_message,
            venue_order_id=order.venue_order_id or None,
            quantity=terms.quantity or None,
            limit_price_e9=terms.limit_price_e9 if terms.HasField("limit_price_e9") else None,
            stop_price_e9=terms.stop_price_e9 if terms.HasField("stop_price_e9") else None,
            settlement_dispute=order.settlement_dispute,
        ),
    )


def _news_from_proto(message: venue_pb2.WatchOrdersResponse) -> VenueNews:
    kind = message.WhichOneof("update")
    if kind == "snapshot":
        views = tuple(view_from_proto(order) for order in message.snapshot.orders)
        return VenueNews(revision=message.revision, snapshot=views)
    if kind == "order":
        return VenueNews(revision=message.revision, order=view_from_proto(message.order))
    if kind == "fill":
        return VenueNews(revision=message.revision, fill=fill_from_proto(message.fill))
    if kind == "market_progress":
        told = message.market_progress
        progress = VenueProgress(symbol=told.symbol, epoch=told.epoch, through=told.through_sequence)
        return VenueNews(revision=message.revision, progress=progress)
    return VenueNews(revision=message.revision)


def _question_to_proto(question: RiskQuestion) -> risk_pb2.CheckTradeRequest:
    account, evidence = question.account, question.evidence
    return risk_pb2.CheckTradeRequest(
        request_id=question.request_id,
        order_id=question.order_id,
        replaces=question.replaces,
        terms=terms_to_proto(question.terms),
        account=risk_pb2.AccountView(
            positions=[position_to_proto(position) for position in account.positions],
            working_buy=account.working_buy,
            working_sell=account.working_sell,
            realized_today_e9=fit(account.net_today_e9),
            version=account.version,
            working_order_ids=account.working_order_ids,
        ),
        evidence=risk_pb2.MarketEvidence(
            last_price_e9=evidence.last_e9,
            bid_e9=evidence.bid_e9,
            ask_e9=evidence.ask_e9,
            event_time=timestamp(evidence.event_ns),
            decision_time=timestamp(evidence.decision_ns),
            sequence=evidence.sequence,
            epoch=evidence.epoch,
            provenance=provenance_to_proto(evidence.provenance),
        ),
    )


def _passed_on(error: grpc.RpcError) -> Exception:
    """The refusal of another service, as it was told."""
    told = read(error)
    number = error_reason_pb2.ErrorReason.DESCRIPTOR.values_by_name.get(told.reason)
    reason = (
        error_reason_pb2.ERROR_REASON_INTERNAL if number is None else error_reason_pb2.ErrorReason.Value(told.reason)
    )
    return MeshError(told.code, reason, told.message, metadata=told.metadata, violations=told.violations)


def _said(error: grpc.RpcError) -> str:
    return f"{error.code().name}: {error.details() or 'no message'}"
