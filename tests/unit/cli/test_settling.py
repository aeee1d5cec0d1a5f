"""What a person may say of an order that is UNKNOWN, and what the list of orders says of it."""

from __future__ import annotations

from typing import Any

import pytest

from minhos_api.trading.v1 import order_pb2
from minhos_mesh.cli.failure import CommandFailed
from minhos_mesh.cli.settling import request_of
from minhos_mesh.cli.trading import unknown_note

E9 = 10**9


def word(**said: Any) -> Any:
    whole: dict[str, Any] = {
        "filled": [], "canceled": False, "never_arrived": False, "reason": "seen", "request_id": "r",
    }  # fmt: skip
    return request_of("o-1", **{**whole, **said})


def test_fills_are_told_in_contracts_and_points_with_their_time_where_it_is_known() -> None:
    request = word(filled=["2@23500.25", "1@23500.5@2026-11-20T15:04:05Z"])
    assert [(fill.quantity, fill.price_e9) for fill in request.filled.fills] == [
        (2, 23_500_250_000_000),
        (1, 23_500_500_000_000),
    ]
    assert not request.filled.fills[0].HasField("fill_time")
    assert request.filled.fills[1].fill_time.ToJsonString() == "2026-11-20T15:04:05Z"
    assert (request.client_order_id, request.request_id, request.reason) == ("o-1", "r", "seen")


def test_an_order_that_was_not_filled_ended_or_never_arrived() -> None:
    assert word(canceled=True).WhichOneof("outcome") == "canceled"
    assert word(never_arrived=True).WhichOneof("outcome") == "never_arrived"


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ({}, "say what became of the order"),
        ({"canceled": True, "never_arrived": True}, "say what became of the order"),
        ({"canceled": True, "filled": ["1@5"]}, "say what became of the order"),
        ({"filled": ["2"]}, "--filled is '2': allowed is QUANTITY@PRICE"),
        ({"filled": ["x@5"]}, "allowed is QUANTITY@PRICE"),
        ({"filled": ["1@many"]}, "--filled"),
        ({"filled": ["1@5@noon"]}, "--filled has the time 'noon'"),
        ({"filled": ["1@5@2026-11-20T15:04:05"]}, "lacks its zone"),
    ],
)
def test_a_word_that_says_nothing_or_two_things_is_refused_in_the_words_of_the_command(
    said: dict[str, Any], told: str
) -> None:
    with pytest.raises(CommandFailed) as caught:
        word(**said)
    assert told in str(caught.value)


def test_a_list_says_why_an_order_is_unknown_and_what_to_do() -> None:
    known = order_pb2.Order(order_id="o-1", state=order_pb2.ORDER_STATE_FILLED)
    unknown = order_pb2.Order(
        order_id="o-2", state=order_pb2.ORDER_STATE_UNKNOWN, reason_message="the connection broke"
    )
    assert unknown_note([known]) == []
    lines = unknown_note([known, unknown])
    assert lines[0] == "o-2 is UNKNOWN: the connection broke"
    assert "minhos order settle" in lines[1]
