"""Serves TradingEngineService, OrderService and TradingControlService."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, Final, Protocol

import grpc

from minhos_api.mesh.v1 import error_reason_pb2
from minhos_api.trading.v1 import order_service_pb2 as order_pb2
from minhos_api.trading.v1 import order_service_pb2_grpc as order_grpc
from minhos_api.trading.v1 import trading_control_service_pb2 as control_pb2
from minhos_api.trading.v1 import trading_control_service_pb2_grpc as control_grpc
from minhos_api.trading.v1 import trading_engine_service_pb2 as engine_pb2
from minhos_api.trading.v1 import trading_engine_service_pb2_grpc as engine_grpc
from minhos_mesh.runtime.errors import FieldViolation, MeshError
from minhos_mesh.runtime.money import INT64_MAX
from minhos_mesh.runtime.paging import make_token, page_size, read_token
from minhos_mesh.trading_engine.domain.control import TradingState
from minhos_mesh.trading_engine.error_table import fields_under
from minhos_mesh.trading_engine.service import ControlRequest, TradingEngine
from minhos_mesh.trading_engine.translate import (
    fill_to_proto,
    holdings_to_proto,
    order_to_proto,
    performance_to_proto,
    position_to_proto,
    replacement_from_proto,
    signal_to_act_on,
    states_from_proto,
    terms_from_proto,
    time_from_proto,
)
from minhos_mesh.trading_engine.translate_control import (
    asked_from_proto,
    control_to_proto,
    halt_from_proto,
    mode_from_proto,
    stopped_to_proto,
)

HEARTBEAT_S: Final = 4.0
"""Longest silence of a watch; its contract promises 5 s."""


class LimitsOwner(Protocol):
    """Who owns the limits of risk."""

    async def set_limits(self, request: engine_pb2.SetRiskLimitsRequest) -> engine_pb2.SetRiskLimitsResponse:
        """Pass new limits on."""
        ...


class TradingEngineServicer(engine_grpc.TradingEngineServiceServicer):
    """Positions, orders out of signals, performance."""

    def __init__(self, engine: TradingEngine, limits: LimitsOwner) -> None:
        self._engine = engine
        self._limits = limits

    async def GetPositions(
        self, request: engine_pb2.GetPositionsRequest, _context: Any
    ) -> engine_pb2.GetPositionsResponse:
        return holdings_to_proto(await self._engine.holdings(include_flat=request.include_flat))

    async def ExecuteTrade(
        self, request: engine_pb2.ExecuteTradeRequest, _context: Any
    ) -> engine_pb2.ExecuteTradeResponse:
        signal = signal_to_act_on(request)
        quantity = request.quantity if request.HasField("quantity") else None
        with fields_under(""):
            order = await self._engine.execute_trade(request.request_id, signal, actor=request.actor, quantity=quantity)
        return engine_pb2.ExecuteTradeResponse(order=order_to_proto(order))

    async def GetPerformanceMetrics(
        self, request: engine_pb2.GetPerformanceMetricsRequest, _context: Any
    ) -> engine_pb2.GetPerformanceMetricsResponse:
        since_ns = time_from_proto(request.since_time) if request.HasField("since_time") else None
        figures = await self._engine.performance(since_ns)
        return engine_pb2.GetPerformanceMetricsResponse(metrics=performance_to_proto(figures))

    async def SetRiskLimits(
        self, request: engine_pb2.SetRiskLimitsRequest, _context: Any
    ) -> engine_pb2.SetRiskLimitsResponse:
        return await self._limits.set_limits(request)

    async def ListFills(self, request: engine_pb2.ListFillsRequest, _context: Any) -> engine_pb2.ListFillsResponse:
        fills, following = await self._engine.list_fills(
            symbol=request.symbol if request.HasField("symbol") else None,
            before=_begin(request),
            limit=page_size(request, default=100, largest=5000),
        )
        token = "" if following is None else make_token(request, [following])
        return engine_pb2.ListFillsResponse(fills=[fill_to_proto(fill) for fill in fills], next_page_token=token)


class OrderServicer(order_grpc.OrderServiceServicer):
    """Orders of people and programs."""

    def __init__(self, engine: TradingEngine) -> None:
        self._engine = engine

    async def PlaceOrder(self, request: order_pb2.PlaceOrderRequest, _context: Any) -> order_pb2.PlaceOrderResponse:
        with fields_under("terms."):
            order = await self._engine.place_order(
                request.request_id,
                terms_from_proto(request.terms),
                actor=request.actor,
                reduce_only=request.reduce_only,
            )
        return order_pb2.PlaceOrderResponse(order=order_to_proto(order))

    async def CancelOrder(self, request: order_pb2.CancelOrderRequest, _context: Any) -> order_pb2.CancelOrderResponse:
        order = await self._engine.cancel_order(request.order_id, actor=request.actor)
        return order_pb2.CancelOrderResponse(order=order_to_proto(order))

    async def ReplaceOrder(
        self, request: order_pb2.ReplaceOrderRequest, _context: Any
    ) -> order_pb2.ReplaceOrderResponse:
        wish = replacement_from_proto(
            request_id=request.request_id,
            quantity=request.quantity if request.HasField("quantity") else None,
            limit_price_e9=request.limit_price_e9 if request.HasField("limit_price_e9") else None,
            stop_price_e9=request.stop_price_e9 if request.HasField("stop_price_e9") else None,
        )
        with fields_under(""):
            order = await self._engine.replace_order(request.order_id, wish)
        return order_pb2.ReplaceOrderResponse(order=order_to_proto(order))

    async def GetOrder(self, request: order_pb2.GetOrderRequest, _context: Any) -> order_pb2.GetOrderResponse:
        if request.WhichOneof("id") == "order_id":
            order = await self._engine.get_order(order_id=request.order_id)
        else:
            order = await self._engine.get_order(request_id=request.request_id)
        return order_pb2.GetOrderResponse(order=order_to_proto(order))

    async def ListOrders(self, request: order_pb2.ListOrdersRequest, _context: Any) -> order_pb2.ListOrdersResponse:
        revision = self._engine.ledger.orders.newest
        orders, following, count = await self._engine.list_orders(
            symbol=request.symbol if request.HasField("symbol") else None,
            states=states_from_proto(request.states),
            before=_begin(request),
            limit=page_size(request, default=100, largest=1000),
        )
        return order_pb2.ListOrdersResponse(
            orders=[order_to_proto(order) for order in orders],
            next_page_token="" if following is None else make_token(request, [following]),
            all_orders_count=count,
            revision=revision,
        )

    async def WatchOrders(
        self, request: order_pb2.WatchOrdersRequest, _context: Any
    ) -> AsyncIterator[order_pb2.WatchOrdersResponse]:
        ledger = self._engine.ledger
        after = request.after_revision if request.HasField("after_revision") else ledger.orders.newest
        ledger.orders.check(after)
        if not request.HasField("after_revision"):
            shown = order_pb2.OrdersSnapshot(orders=[order_to_proto(order) for order in ledger.shown_orders.values()])
            yield order_pb2.WatchOrdersResponse(snapshot=shown, revision=after)
        async for revision, order in ledger.orders.follow(after, HEARTBEAT_S):
            if order is None:
                yield order_pb2.WatchOrdersResponse(heartbeat=order_pb2.OrdersHeartbeat(), revision=revision)
            else:
                yield order_pb2.WatchOrdersResponse(order=order_to_proto(order), revision=revision)

    async def WatchPositions(
        self, request: order_pb2.WatchPositionsRequest, _context: Any
    ) -> AsyncIterator[order_pb2.WatchPositionsResponse]:
        log = self._engine.ledger.positions
        after = request.after_revision if request.HasField("after_revision") else log.newest
        log.check(after)
        if not request.HasField("after_revision"):
            held = sorted(self._engine.ledger.shown_positions.values(), key=lambda position: position.symbol)
            shown = order_pb2.PositionsSnapshot(positions=[position_to_proto(position) for position in held])
            yield order_pb2.WatchPositionsResponse(snapshot=shown, revision=after)
        async for revision, position in log.follow(after, HEARTBEAT_S):
            if position is None:
                yield order_pb2.WatchPositionsResponse(heartbeat=order_pb2.PositionsHeartbeat(), revision=revision)
            else:
                yield order_pb2.WatchPositionsResponse(position=position_to_proto(position), revision=revision)


class TradingControlServicer(control_grpc.TradingControlServiceServicer):
    """Mode, state and emergency stop."""

    def __init__(self, engine: TradingEngine) -> None:
        self._engine = engine

    async def GetTradingState(
        self, _request: control_pb2.GetTradingStateRequest, _context: Any
    ) -> control_pb2.GetTradingStateResponse:
        revision = self._engine.ledger.controls.newest
        return control_pb2.GetTradingStateResponse(status=control_to_proto(self._engine.control()), revision=revision)

    async def SetTradingMode(
        self, request: control_pb2.SetTradingModeRequest, _context: Any
    ) -> control_pb2.SetTradingModeResponse:
        view = await self._engine.set_mode(asked_from_proto(request), mode_from_proto(request.mode))
        return control_pb2.SetTradingModeResponse(status=control_to_proto(view))

    async def EmergencyStop(
        self, request: control_pb2.EmergencyStopRequest, _context: Any
    ) -> control_pb2.EmergencyStopResponse:
        stopped = await self._engine.emergency_stop(actor=request.actor, reason=request.reason, flatten=request.flatten)
        return stopped_to_proto(stopped, self._engine.view(stopped.control))

    async def ClearEmergencyStop(
        self, request: control_pb2.ClearEmergencyStopRequest, _context: Any
    ) -> control_pb2.ClearEmergencyStopResponse:
        view = await self._engine.clear_emergency(asked_from_proto(request))
        return control_pb2.ClearEmergencyStopResponse(status=control_to_proto(view))

    async def Halt(self, request: control_pb2.HaltRequest, _context: Any) -> control_pb2.HaltResponse:
        asked = ControlRequest(request_id=request.request_id, actor=request.actor, reason=request.reason)
        view = await self._engine.set_state(asked, halt_from_proto(request.state))
        return control_pb2.HaltResponse(status=control_to_proto(view))

    async def Resume(self, request: control_pb2.ResumeRequest, _context: Any) -> control_pb2.ResumeResponse:
        view = await self._engine.set_state(asked_from_proto(request), TradingState.ACTIVE)
        return control_pb2.ResumeResponse(status=control_to_proto(view))

    async def WatchTradingState(
        self, request: control_pb2.WatchTradingStateRequest, _context: Any
    ) -> AsyncIterator[control_pb2.WatchTradingStateResponse]:
        log = self._engine.ledger.controls
        after = request.after_revision if request.HasField("after_revision") else log.newest
        log.check(after)
        if not request.HasField("after_revision"):
            shown = control_pb2.TradingStateSnapshot(status=control_to_proto(self._engine.control()))
            yield control_pb2.WatchTradingStateResponse(snapshot=shown, revision=after)
        async for revision, control in log.follow(after, HEARTBEAT_S):
            if control is None:
                heartbeat = control_pb2.TradingStateHeartbeat()
                yield control_pb2.WatchTradingStateResponse(heartbeat=heartbeat, revision=revision)
            else:
                status = control_to_proto(self._engine.view(control))
                yield control_pb2.WatchTradingStateResponse(status=status, revision=revision)


def _begin(request: engine_pb2.ListFillsRequest | order_pb2.ListOrdersRequest) -> int | None:
    """Number before which the asked page begins; None for the first. Raises MeshError PAGE_TOKEN_INVALID."""
    position = read_token(request)
    if position is None:
        return None
    match position:
        case [int(number)] if 0 < number <= INT64_MAX:
            return number
        case _:
            text = "page_token was not made by this service: begin again without one"
            raise MeshError(
                grpc.StatusCode.INVALID_ARGUMENT,
                error_reason_pb2.ERROR_REASON_PAGE_TOKEN_INVALID,
                text,
                metadata={"field": "page_token"},
                violations=(FieldViolation("page_token", text),),
            )
