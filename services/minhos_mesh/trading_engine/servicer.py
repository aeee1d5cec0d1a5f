"""Serves TradingEngineService, OrderService and TradingControlService."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, Final, Protocol

from minhos_api.trading.v1 import order_service_pb2 as order_pb2
from minhos_api.trading.v1 import order_service_pb2_grpc as order_grpc
from minhos_api.trading.v1 import trading_control_service_pb2 as control_pb2
from minhos_api.trading.v1 import trading_control_service_pb2_grpc as control_grpc
from minhos_api.trading.v1 import trading_engine_service_pb2 as engine_pb2
from minhos_api.trading.v1 import trading_engine_service_pb2_grpc as engine_grpc
from minhos_mesh.runtime.errors import invalid_field
from minhos_mesh.trading_engine.domain.control import TradingState
from minhos_mesh.trading_engine.error_table import fields_under
from minhos_mesh.trading_engine.service import TradingEngine
from minhos_mesh.trading_engine.translate import (
    fill_to_proto,
    holdings_to_proto,
    order_to_proto,
    performance_to_proto,
    position_to_proto,
    replacement_from_proto,
    signal_from_proto,
    states_from_proto,
    terms_from_proto,
    time_from_proto,
)
from minhos_mesh.trading_engine.translate_control import (
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
        signal = signal_from_proto(request.signal)
        if signal is None:
            raise invalid_field("signal.quote.provenance", "PROVENANCE_UNSPECIFIED", "where the data comes from")
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
        symbol = request.symbol if request.HasField("symbol") else None
        fills, token = await self._engine.list_fills(
            symbol=symbol, page_size=request.page_size, page_token=request.page_token
        )
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
        orders, token, count = await self._engine.list_orders(
            symbol=request.symbol if request.HasField("symbol") else None,
            states=states_from_proto(request.states),
            page_size=request.page_size,
            page_token=request.page_token,
        )
        found = [order_to_proto(order) for order in orders]
        return order_pb2.ListOrdersResponse(orders=found, next_page_token=token, total_count=count)

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
                yield order_pb2.WatchPositionsResponse(heartbeat=order_pb2.OrdersHeartbeat(), revision=revision)
            else:
                yield order_pb2.WatchPositionsResponse(position=position_to_proto(position), revision=revision)


class TradingControlServicer(control_grpc.TradingControlServiceServicer):
    """Mode, state and emergency stop."""

    def __init__(self, engine: TradingEngine) -> None:
        self._engine = engine

    async def GetTradingState(
        self, _request: control_pb2.GetTradingStateRequest, _context: Any
    ) -> control_pb2.GetTradingStateResponse:
        return control_pb2.GetTradingStateResponse(status=control_to_proto(self._engine.control()))

    async def SetTradingMode(
        self, request: control_pb2.SetTradingModeRequest, _context: Any
    ) -> control_pb2.SetTradingModeResponse:
        view = await self._engine.set_mode(mode_from_proto(request.mode), actor=request.actor, reason=request.reason)
        return control_pb2.SetTradingModeResponse(status=control_to_proto(view))

    async def EmergencyStop(
        self, request: control_pb2.EmergencyStopRequest, _context: Any
    ) -> control_pb2.EmergencyStopResponse:
        stopped = await self._engine.emergency_stop(actor=request.actor, reason=request.reason, flatten=request.flatten)
        return stopped_to_proto(stopped, self._engine.view(stopped.control))

    async def ClearEmergencyStop(
        self, request: control_pb2.ClearEmergencyStopRequest, _context: Any
    ) -> control_pb2.ClearEmergencyStopResponse:
        view = await self._engine.clear_emergency(actor=request.actor, reason=request.reason)
        return control_pb2.ClearEmergencyStopResponse(status=control_to_proto(view))

    async def Halt(self, request: control_pb2.HaltRequest, _context: Any) -> control_pb2.HaltResponse:
        state = halt_from_proto(request.state)
        view = await self._engine.set_state(state, actor=request.actor, reason=request.reason)
        return control_pb2.HaltResponse(status=control_to_proto(view))

    async def Resume(self, request: control_pb2.ResumeRequest, _context: Any) -> control_pb2.ResumeResponse:
        view = await self._engine.set_state(TradingState.ACTIVE, actor=request.actor, reason=request.reason)
        return control_pb2.ResumeResponse(status=control_to_proto(view))

    async def WatchTradingState(
        self, request: control_pb2.WatchTradingStateRequest, _context: Any
    ) -> AsyncIterator[control_pb2.WatchTradingStateResponse]:
        log = self._engine.ledger.controls
        after = request.after_revision if request.HasField("after_revision") else log.newest
        log.check(after)
        if not request.HasField("after_revision"):
            status = control_to_proto(self._engine.control())
            yield control_pb2.WatchTradingStateResponse(status=status, revision=after)
        async for revision, control in log.follow(after, HEARTBEAT_S):
            status_now = None if control is None else control_to_proto(self._engine.view(control))
            yield control_pb2.WatchTradingStateResponse(status=status_now, revision=revision)
