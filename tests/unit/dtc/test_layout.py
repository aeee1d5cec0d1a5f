from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from minhos_mesh.dtc import enums
from minhos_mesh.dtc.layout import Layout, define
from minhos_mesh.dtc.tables import ALL, BY_NAME, BY_TYPE
from minhos_mesh.dtc.tables.trading import ORDER_UPDATE

if TYPE_CHECKING:
    from tests.unit.dtc.conftest import Measured

RENAMED = {("LOGON_REQUEST", "Unused1"): "TradeMode"}


def test_numbers_and_names_are_unique() -> None:
    assert len(BY_TYPE) == len(BY_NAME) == len(ALL)


def test_the_table_has_every_message_and_no_other(measured: Measured) -> None:
    assert list(measured.types) == list(measured.fixed) == [layout.name for layout in ALL]
    assert sum(len(part.offsets) for part in measured.fixed.values()) > 400


@pytest.mark.parametrize("layout", ALL, ids=lambda layout: layout.name)
def test_every_member_lies_where_the_measured_layout_has_it(measured: Measured, layout: Layout) -> None:
    assert measured.types[layout.name] == layout.type
    fixed, variable = measured.fixed[layout.name], measured.variable.get(layout.name)
    assert fixed.size == layout.fixed_size
    assert (None if variable is None else variable.size) == layout.variable_size
    known = {member.name: member for member in layout.members}
    for part in (fixed, variable):
        for name, offset in part.offsets.items() if part is not None else ():
            ours = known.get(RENAMED.get((layout.name, name), name))
            if ours is None:
                assert name.startswith(("Unused", "Reserve")) or (layout.type, name) == (803, "OpenInterest")
                continue
            assert offset == (ours.fixed_offset if part is fixed else ours.variable_offset), name


def test_enumerations_have_the_measured_numbers(measured: Measured) -> None:
    pairs = {
        "EncodingEnum": enums.Encoding,
        "LogonStatusEnum": enums.LogonStatus,
        "RequestActionEnum": enums.RequestAction,
        "OrderStatusEnum": enums.OrderStatus,
        "OrderUpdateReasonEnum": enums.UpdateReason,
        "OrderTypeEnum": enums.OrderType,
        "TimeInForceEnum": enums.TimeInForce,
        "BuySellEnum": enums.BuySell,
        "AtBidOrAskEnum": enums.AtBidOrAsk,
        "UnbundledTradeIndicatorEnum": enums.UnbundledTrade,
        "MarketDepthUpdateTypeEnum": enums.DepthUpdate,
        "FinalUpdateInBatchEnum": enums.FinalUpdate,
        "MarketDataFeedStatusEnum": enums.FeedStatus,
        "HistoricalPriceDataRejectReasonCodeEnum": enums.HistoryRejectReason,
    }
    for name, ours in pairs.items():
        assert measured.enums[name] == sorted(int(value) for value in ours), name
    assert measured.enums.keys() == pairs.keys()


def test_an_unknown_member_is_named() -> None:
    with pytest.raises(ValueError, match="ORDER_UPDATE has no member Colour"):
        ORDER_UPDATE.member("Colour")


def test_alignment_and_padding_follow_the_widest_member() -> None:
    natural = define(1, "X", "u8 A; f64 B; u8 C")
    packed = define(1, "X", "u8 A; f64 B; u8 C", pack=1)
    assert [member.fixed_offset for member in natural.members] == [4, 8, 16]
    assert natural.fixed_size == 24
    assert [member.fixed_offset for member in packed.members] == [4, 5, 13]
    assert packed.fixed_size == 14
