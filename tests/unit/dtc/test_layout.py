from __future__ import annotations

import re
from typing import Any

import pytest

from minhos_mesh.dtc import enums
from minhos_mesh.dtc.layout import Layout, define
from minhos_mesh.dtc.tables import ALL, BY_NAME, BY_TYPE
from minhos_mesh.dtc.tables.trading import ORDER_UPDATE

RENAMED = {("LOGON_REQUEST", "Unused1"): "TradeMode"}


def plain(name: str) -> str:
    return re.sub("[^a-z0-9]", "", name.lower())


def structure(facts: dict[str, Any], layout: Layout, part: str) -> dict[str, Any] | None:
    found = {plain(name[2:]): body for name, body in facts[part].items()}.get(plain(layout.name))
    return found if found is None else dict(found)


def test_numbers_and_names_are_unique() -> None:
    assert len(BY_TYPE) == len(BY_NAME) == len(ALL)


@pytest.mark.parametrize("layout", ALL, ids=lambda layout: layout.name)
def test_every_member_lies_where_the_measured_layout_has_it(facts: dict[str, Any], layout: Layout) -> None:
    assert facts["message_types"][layout.name] == layout.type
    for part, header in (("fixed", 2), ("vls", 3)):
        measured = structure(facts, layout, part)
        if measured is None:
            assert part == "vls"
            assert layout.variable_size is None
            continue
        assert measured["size"] == (layout.fixed_size if part == "fixed" else layout.variable_size)
        offsets = {field["name"]: field["offset"] for field in measured["fields"][header:]}
        known = {member.name: member for member in layout.members}
        for name, offset in offsets.items():
            ours = known.get(RENAMED.get((layout.name, name), name))
            if ours is None:
                assert name.startswith(("Unused", "Reserve")) or (layout.type, name) == (803, "OpenInterest")
                continue
            assert offset == (ours.fixed_offset if part == "fixed" else ours.variable_offset), name


def test_enumerations_have_the_measured_numbers(facts: dict[str, Any]) -> None:
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
        assert sorted(facts["enums"][name]["values"].values()) == sorted(int(value) for value in ours), name


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
