"""One short method per RPC of VenueService, whatever venue is behind it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, Final

from minhos_api.venue.v1 import venue_service_pb2 as pb
from minhos_api.venue.v1.venue_service_pb2_grpc import VenueServiceServicer
from minhos_mesh.runtime.paging import make_token, page_size, read_token
from minhos_mesh.venue import translate
from minhos_mesh.venue.port import Venue

HEARTBEAT_S: Final = 1.0
"""Half of what the contract promises."""

PAGE_DEFAULT, PAGE_LIMIT = 500, 5_000


class VenueServicer(VenueServiceServicer):
    """Serves a venue."""

    def __init__(self, venue: Venue) -> None:
        self._venue = venue

    async def SubmitOrder(self, request: pb.SubmitOrderRequest, context: Any) -> pb.SubmitOrderResponse:
        """The order as it stands, on disk."""
        record = await self._venue.submit(translate.submission_from_proto(request))
        return pb.SubmitOrderResponse(order=translate.order_to_proto(record))

    async def CancelOrder(self, request: pb.CancelOrderRequest, context: Any) -> pb.CancelOrderResponse:
        """The order as it stands."""
        record = await self._venue.cancel(request.client_order_id)
        return pb.CancelOrderResponse(order=translate.order_to_proto(record))

    async def ReplaceOrder(self, request: pb.ReplaceOrderRequest, context: Any) -> pb.ReplaceOrderResponse:
        """The order as it stands."""
        record = await self._venue.replace(
            request.client_order_id,
            request.request_id,
            quantity=request.quantity if request.HasField("quantity") else None,
            limit_price_e9=request.limit_price_e9 if request.HasField("limit_price_e9") else None,
            stop_price_e9=request.stop_price_e9 if request.HasField("stop_price_e9") else None,
        )
        return pb.ReplaceOrderResponse(order=translate.order_to_proto(record))

    async def CancelAll(self, request: pb.CancelAllRequest, context: Any) -> pb.CancelAllResponse:
        """The orders that were cancelled."""
        records = await self._venue.cancel_all(request.symbol if request.HasField("symbol") else None)
        return pb.CancelAllResponse(orders=[translate.order_to_proto(record) for record in records])

    async def SettleUnknownOrder(
        self, request: pb.SettleUnknownOrderRequest, context: Any
    ) -> pb.SettleUnknownOrderResponse:
        """The order as a person settled it."""
        record = await self._venue.settle_unknown(translate.settlement_from_proto(request))
        return pb.SettleUnknownOrderResponse(order=translate.order_to_proto(record))

    async def ConfirmSettlement(
        self, request: pb.ConfirmSettlementRequest, context: Any
    ) -> pb.ConfirmSettlementResponse:
        """The order, of which nothing is in dispute any more."""
        record = await self._venue.confirm_settlement(translate.confirmation_from_proto(request))
        return pb.ConfirmSettlementResponse(order=translate.order_to_proto(record))

    async def GetOrder(self, request: pb.GetOrderRequest, context: Any) -> pb.GetOrderResponse:
        """One order by either id."""
        if request.WhichOneof("id") == "venue_order_id":
            record = await self._venue.order_by_venue_id(request.venue_order_id)
        else:
            record = await self._venue.order(request.client_order_id)
        return pb.GetOrderResponse(order=translate.order_to_proto(record))

    async def ListOpenOrders(self, request: pb.ListOpenOrdersRequest, context: Any) -> pb.ListOpenOrdersResponse:
        """The working orders."""
        records, revision = await self._venue.open_orders(request.symbol if request.HasField("symbol") else None)
        return pb.ListOpenOrdersResponse(
            orders=[translate.order_to_proto(record) for record in records], revision=revision
        )

    async def ListFills(self, request: pb.ListFillsRequest, context: Any) -> pb.ListFillsResponse:
        """A page of fills."""
        start = read_token(request)
        fills, rest = await self._venue.fills(
            request.client_order_id if request.HasField("client_order_id") else None,
            request.after_fill_id if request.HasField("after_fill_id") else None,
            limit=page_size(request, default=PAGE_DEFAULT, largest=PAGE_LIMIT),
            after=int(start[0]) if start else None,
        )
        token = make_token(request, [rest]) if rest is not None else ""
        return pb.ListFillsResponse(fills=[translate.fill_to_proto(fill) for fill in fills], next_page_token=token)

    async def ListPositions(self, request: pb.ListPositionsRequest, context: Any) -> pb.ListPositionsResponse:
        """What is held."""
        views = await self._venue.positions()
        return pb.ListPositionsResponse(positions=[translate.position_to_proto(view) for view in views])

    async def GetAccount(self, request: pb.GetAccountRequest, context: Any) -> pb.GetAccountResponse:
        """The account."""
        return translate.account_to_proto(await self._venue.account())

    async def WatchOrders(self, request: pb.WatchOrdersRequest, context: Any) -> AsyncIterator[pb.WatchOrdersResponse]:
        """Orders and fills as they change."""
        after = request.after_revision if request.HasField("after_revision") else None
        async for revision, update in self._venue.watch(after, HEARTBEAT_S):
            yield translate.update_to_proto(revision, update)

    async def GetVenueStatus(self, request: pb.GetVenueStatusRequest, context: Any) -> pb.GetVenueStatusResponse:
        """Whether orders are taken."""
        return translate.status_to_proto(self._venue.status())
