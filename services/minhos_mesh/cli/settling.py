"""Command by which a person says at the venue what became of an order of which nobody else can tell it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime
from typing import Final

import grpc

from minhos_api.venue.v1 import venue_service_pb2 as venue_pb
from minhos_api.venue.v1.venue_service_pb2_grpc import VenueServiceStub
from minhos_mesh.cli import show
from minhos_mesh.cli.asking import actor, fresh_id
from minhos_mesh.cli.failure import CommandFailed
from minhos_mesh.cli.mesh import connected, unreachable
from minhos_mesh.runtime.money import MoneyError, parse_e9
from minhos_mesh.runtime.paths import MeshPaths

_FILL: Final = re.compile(r"(?P<quantity>[0-9]{1,5})@(?P<price>[^@]+?)(?:@(?P<time>.+))?")


async def settle(
    paths: MeshPaths,
    order_id: str,
    *,
    filled: Sequence[str],
    canceled: bool,
    never_arrived: bool,
    reason: str,
    request_id: str | None,
    as_json: bool,
) -> None:
    """Settles an order that is UNKNOWN at the venue. Raises CommandFailed."""
    request = request_of(
        order_id, filled=filled, canceled=canceled, never_arrived=never_arrived, reason=reason, request_id=request_id
    )
    async with connected(paths, "nothing was settled") as link:
        try:
            answer = await link.clients.stub(VenueServiceStub).SettleUnknownOrder(request)
        except grpc.aio.AioRpcError as error:
            if unreachable(error):
                raise CommandFailed(_not_known(request.request_id)) from None
            raise
    if as_json:
        show.as_json(show.message_dict(answer.order))
        return
    order = answer.order
    why = f": {order.reason_message}" if order.reason_message else ""
    show.out.print(
        f"order {order.client_order_id} is {show.enum_name(order, 'state')} at the venue with"
        f" {order.filled_quantity} of {order.terms.quantity} filled{why}"
    )


async def confirm(paths: MeshPaths, order_id: str, *, reason: str, request_id: str | None, as_json: bool) -> None:
    """Lets a settled order stand although the venue told otherwise of it later. Raises CommandFailed."""
    request = venue_pb.ConfirmSettlementRequest(
        request_id=request_id or fresh_id(), client_order_id=order_id, actor=actor(), reason=reason
    )
    async with connected(paths, "nothing was confirmed") as link:
        answer = await link.clients.stub(VenueServiceStub).ConfirmSettlement(request)
    if as_json:
        show.as_json(show.message_dict(answer.order))
        return
    order = answer.order
    show.out.print(
        f"order {order.client_order_id} stays {show.enum_name(order, 'state')} with {order.filled_quantity} of"
        f" {order.terms.quantity} filled, as it is booked"
    )


def request_of(
    order_id: str,
    *,
    filled: Sequence[str],
    canceled: bool,
    never_arrived: bool,
    reason: str,
    request_id: str | None,
) -> venue_pb.SettleUnknownOrderRequest:
    """The word of a person as the venue takes it. Raises CommandFailed when it says nothing, or two things."""
    if bool(filled) + canceled + never_arrived != 1:
        raise CommandFailed(
            "say what became of the order: --filled QUANTITY@PRICE once for each fill, or --canceled, or --never-arrived"
        )
    request = venue_pb.SettleUnknownOrderRequest(
        request_id=request_id or fresh_id(), client_order_id=order_id, actor=actor(), reason=reason
    )
    if filled:
        request.filled.fills.extend(_fill(text) for text in filled)
    elif canceled:
        request.canceled.SetInParent()
    else:
        request.never_arrived.SetInParent()
    return request


def _fill(text: str) -> venue_pb.SettledFill:
    found = _FILL.fullmatch(text.strip())
    if found is None:
        raise CommandFailed(
            f"--filled is {text!r}: allowed is QUANTITY@PRICE, such as 2@23500.25, or with @TIME behind it"
        )
    try:
        fill = venue_pb.SettledFill(
            quantity=int(found["quantity"]), price_e9=parse_e9(found["price"], field="--filled")
        )
    except MoneyError as error:
        raise CommandFailed(str(error)) from None
    if found["time"] is not None:
        fill.fill_time.FromDatetime(_time(found["time"]))
    return fill


def _time(text: str) -> datetime:
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        raise CommandFailed(f"--filled has the time {text!r}: allowed is 2026-11-20T15:04:05Z") from None
    if time.tzinfo is None:
        raise CommandFailed(f"--filled has the time {text!r}, which lacks its zone: write a Z behind it for UTC")
    return time


def _not_known(request_id: str) -> str:
    return (
        "the venue did not answer in time, so it is not known whether the order was settled: `minhos orders` shows it"
        f" once it was; with --request-id {request_id} it can be tried again and is never done twice"
    )
