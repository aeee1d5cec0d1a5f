from __future__ import annotations

import pytest

from minhos_api.trading.v1 import order_service_pb2 as orders
from minhos_api.trading.v1 import trading_engine_service_pb2 as engine
from minhos_mesh.runtime.errors import MeshError
from minhos_mesh.runtime.paging import make_token, page_size, read_token


def test_a_token_leads_to_the_position_it_was_made_for() -> None:
    request = orders.ListOrdersRequest(symbol="NQZ26-CME", page_size=10)
    request.page_token = make_token(request, [17, "a"])
    request.page_size = 20
    assert read_token(request) == [17, "a"]


def test_the_first_page_needs_no_token() -> None:
    assert read_token(orders.ListOrdersRequest()) is None


@pytest.mark.parametrize(
    "other",
    [
        orders.ListOrdersRequest(),
        orders.ListOrdersRequest(symbol="ESZ26-CME"),
        engine.ListFillsRequest(symbol="NQZ26-CME"),
    ],
    ids=["without the filter", "another filter", "another list"],
)
def test_a_token_is_refused_where_it_was_not_made(other: orders.ListOrdersRequest | engine.ListFillsRequest) -> None:
    other.page_token = make_token(orders.ListOrdersRequest(symbol="NQZ26-CME"), [17])
    with pytest.raises(MeshError) as refused:
        read_token(other)
    assert refused.value.metadata["field"] == "page_token"


@pytest.mark.parametrize("token", ["16", "!!", "e30", "WyJ4IiwgMV0"])
def test_a_made_up_token_is_refused(token: str) -> None:
    with pytest.raises(MeshError, match="page_token"):
        read_token(orders.ListOrdersRequest(page_token=token))


@pytest.mark.parametrize(("asked", "given"), [(0, 100), (1, 1), (1000, 1000), (5000, 1000)])
def test_a_page_is_never_larger_than_allowed(asked: int, given: int) -> None:
    assert page_size(orders.ListOrdersRequest(page_size=asked), default=100, largest=1000) == given
