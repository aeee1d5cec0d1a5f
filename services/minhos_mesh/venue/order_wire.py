"""Decides how side, type and time in force of an order are numbered in the contracts, and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from minhos_api.order.v1 import order_terms_pb2 as pb
from minhos_mesh.matching import OrderType, Side, TimeInForce

SIDES_PB: Final = {side: pb.Side.Value(f"SIDE_{side.name}") for side in Side}
TYPES_PB: Final = {kind: pb.OrderType.Value(f"ORDER_TYPE_{kind.name}") for kind in OrderType}
TIFS_PB: Final = {tif: pb.TimeInForce.Value(f"TIME_IN_FORCE_{tif.name}") for tif in TimeInForce}
SIDES: Final[Mapping[int, Side]] = {value: side for side, value in SIDES_PB.items()}
TYPES: Final[Mapping[int, OrderType]] = {value: kind for kind, value in TYPES_PB.items()}
TIFS: Final[Mapping[int, TimeInForce]] = {value: tif for tif, value in TIFS_PB.items()}


def prices_of(terms: pb.OrderTerms) -> tuple[int | None, int | None]:
    """Limit and stop price of an order, 1e-9 units, None where it has none."""
    return (
        terms.limit_price_e9 if terms.HasField("limit_price_e9") else None,
        terms.stop_price_e9 if terms.HasField("stop_price_e9") else None,
    )
