"""What a broken rule of a contract tells: the field, what was seen and what is allowed, by name."""

from __future__ import annotations

from typing import Any

import pytest

from minhos_api.events.v1 import event_bus_service_pb2 as bus_pb
from minhos_api.order.v1 import order_terms_pb2 as terms_pb
from minhos_api.state.v1 import state_manager_service_pb2 as state_pb
from minhos_mesh.runtime.errors import FieldViolation, MeshError
from minhos_mesh.runtime.validation import check, violations_of


def found(message: Any, field: str) -> FieldViolation:
    return next(violation for violation in violations_of(message) if violation.field == field)


def test_metadata_shows_field_seen_and_allowed() -> None:
    with pytest.raises(MeshError) as caught:
        check(bus_pb.SubscribeCredit(count=0))
    assert caught.value.metadata == {
        "field": "count",
        "seen": "0",
        "allowed": "greater than or equal to 1 and less than or equal to 100000",
    }
    assert caught.value.message == ("count is 0: must be greater than or equal to 1 and less than or equal to 100000")


def test_enum_is_told_by_name_with_the_names_that_are_allowed() -> None:
    terms = terms_pb.OrderTerms(symbol="NQZ26-CME", quantity=1, side=terms_pb.SIDE_BUY)
    broken = found(terms, "type")
    assert broken.seen == "ORDER_TYPE_UNSPECIFIED"
    assert broken.allowed.split(", ")[0] == "ORDER_TYPE_MARKET"
    assert "UNSPECIFIED" not in broken.allowed
    assert broken.description == f"type is ORDER_TYPE_UNSPECIFIED: allowed is {broken.allowed}"


def test_enum_value_that_nobody_knows_is_told_by_number() -> None:
    broken = found(terms_pb.OrderTerms.FromString(b"\x10\x09"), "side")
    assert (broken.seen, broken.allowed) == ("9", "SIDE_BUY, SIDE_SELL")


def test_text_that_does_not_match_names_the_pattern_and_its_place_in_a_list() -> None:
    broken = found(bus_pb.SubscribeOpen(types=["a", "A"], credit=1), "types[1]")
    assert broken.seen == "A"
    assert broken.allowed.startswith("text that matches `^(")


@pytest.mark.parametrize("field", ["state", "update_mask"])
def test_what_is_missing_is_seen_as_nothing(field: str) -> None:
    request = state_pb.UpdateStateRequest(request_id="r", actor="a")
    broken = found(request, field)
    assert (broken.seen, broken.allowed) == ("nothing", "a value")
    assert broken.description == f"{field}: value is required"


def test_a_field_that_a_mask_does_not_name_may_be_unset() -> None:
    assert violations_of(state_pb.State()) == ()
    assert found(state_pb.State(auto_threshold=0.4), "auto_threshold").seen == "0.4"
    assert found(state_pb.State(order_quantity=10_001), "order_quantity").seen == "10001"


def test_long_text_is_cut_in_what_is_shown() -> None:
    broken = found(state_pb.ListTradesRequest(page_token="x" * 201), "page_token")
    assert broken.seen == "x" * 80 + "..."


def test_message_without_its_choice_is_named_itself() -> None:
    (broken,) = violations_of(bus_pb.SubscribeRequest())
    assert broken.field == "message"
