"""Decides how the terms of an order stand in the contracts, and back, and in which states there it is done."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from minhos_api.order.v1 import order_terms_pb2 as pb
from minhos_api.trading.v1 import order_pb2
from minhos_mesh.matching import OrderType, Side, TimeInForce
from minhos_mesh.venue.domain.orders import Terms

SIDES_PB: Final = {side: pb.Side.Value(f"SIDE_{side.name}") for side in Side}
TYPES_PB: Final = {kind: pb.OrderType.Value(f"ORDER_TYPE_{kind.name}") for kind in OrderType}
TIFS_PB: Final = {tif: pb.TimeInForce.Value(f"TIME_IN_FORCE_{tif.name}") for tif in TimeInForce}
SIDES: Final[Mapping[int, Side]] = {value: side for side, value in SIDES_PB.items()}
TYPES: Final[Mapping[int, OrderType]] = {value: kind for kind, value in TYPES_PB.items()}
TIFS: Final[Mapping[int, TimeInForce]] = {value: tif for tif, value in TIFS_PB.items()}
DONE_PB: Final = frozenset(
    {
        order_pb2.ORDER_STATE_DENIED,
        order_pb2.ORDER_STATE_FILLED,
        order_pb2.ORDER_STATE_CANCELED,
        order_pb2.ORDER_STATE_REJECTED,
        order_pb2.ORDER_STATE_EXPIRED,
    }
)
"""States of an order of the trading engine that it does not leave."""


def terms_from_proto(terms: pb.OrderTerms) -> Terms:
    """Terms of an order that the contract's rules let through; a time in force that is unset is DAY."""
    return Terms(
        symbol=terms.symbol,
        side=SIDES[terms.side],
        order_type=TYPES[terms.type],
        quantity=terms.quantity,
        time_in_force=TIFS.get(terms.time_in_force, TimeInForce.DAY),
        limit_price_e9=terms.limit_price_e9 if terms.HasField("limit_price_e9") else None,
        stop_price_e9=terms.stop_price_e9 if terms.HasField("stop_price_e9") else None,
    )


def terms_to_proto(terms: Terms) -> pb.OrderTerms:
    """Terms of an order."""
    return pb.OrderTerms(
        symbol=terms.symbol,
        side=SIDES_PB[terms.side],
        type=TYPES_PB[terms.order_type],
        quantity=terms.quantity,
        time_in_force=TIFS_PB[terms.time_in_force],
        limit_price_e9=terms.limit_price_e9,
        stop_price_e9=terms.stop_price_e9,
    )
