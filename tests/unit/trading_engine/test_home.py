"""Whether what is open is at the venue to trade at."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from minhos_mesh.trading_engine.domain.home import stranded
from minhos_mesh.trading_engine.domain.orders import OrderState
from minhos_mesh.trading_engine.domain.positions import Position

if TYPE_CHECKING:
    from tests.unit.trading_engine.conftest import Builder

HELD = Position(symbol="NQZ26-CME", multiplier_e9=20, quantity=-2)
FLAT = Position(symbol="ESZ26-CME", multiplier_e9=50)


def test_what_is_open_at_another_venue_is_told_with_where_and_what_to_do(make: Builder) -> None:
    orders = [make.order(OrderState.WORKING) for _ in range(5)]
    told = stranded("paper_venue", "sierra_client", orders, [HELD, FLAT])
    assert told.startswith("open at paper_venue: the orders BUY 4 NQZ26-CME (o-1); ")
    assert "; 2 more orders and the positions -2 NQZ26-CME. " in told
    assert (
        'set [engine] venue = "paper_venue" and end them there, or take another data folder for sierra_client' in told
    )


@pytest.mark.parametrize("state", [OrderState.SUBMITTING, OrderState.UNKNOWN, OrderState.PENDING_CANCEL])
def test_an_order_that_the_other_venue_may_have_is_open_there(make: Builder, state: OrderState) -> None:
    assert stranded("paper_venue", "sierra_client", [make.order(state)], [])


@pytest.mark.parametrize("home", ["", "sierra_client"])
def test_nothing_is_stranded_where_it_belongs(make: Builder, home: str) -> None:
    assert not stranded(home, "sierra_client", [make.order(OrderState.WORKING)], [HELD])


def test_what_was_never_sent_has_ended_or_is_flat_is_at_no_venue(make: Builder) -> None:
    orders = [make.order(state) for state in (OrderState.NEW, OrderState.FILLED, OrderState.CANCELED)]
    assert not stranded("paper_venue", "sierra_client", orders, [FLAT])
