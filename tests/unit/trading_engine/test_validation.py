from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from minhos_mesh.runtime.money import E9
from minhos_mesh.trading_engine.domain.errors import InvalidOrder
from minhos_mesh.trading_engine.domain.orders import OrderState, OrderTerms, OrderType, Side
from minhos_mesh.trading_engine.domain.validation import InstrumentSpec, check_replacement, check_terms

if TYPE_CHECKING:
    from tests.unit.trading_engine.conftest import Builder

NQ = InstrumentSpec(symbol="NQZ26-CME", tick_e9=E9 // 4, multiplier_e9=20 * E9, currency="USD")
LAST_E9 = 23_400 * E9
MARKET = OrderTerms(symbol="NQZ26-CME", side=Side.BUY, quantity=1, order_type=OrderType.MARKET)


def _check(terms: OrderTerms, *, reference_e9: int | None = LAST_E9, spec: InstrumentSpec = NQ) -> None:
    check_terms(terms, spec, max_quantity=1000, reference_e9=reference_e9)


def _violations(terms: OrderTerms, **more: Any) -> dict[str, str]:
    with pytest.raises(InvalidOrder) as caught:
        _check(terms, **more)
    return {violation.field: violation.description for violation in caught.value.violations}


@pytest.mark.parametrize(
    ("kind", "limit", "stop"),
    [
        (OrderType.MARKET, None, None),
        (OrderType.LIMIT, 23_500 * E9, None),
        (OrderType.STOP, None, 23_500 * E9),
        (OrderType.STOP_LIMIT, 23_500 * E9, 23_500_250_000_000),
    ],
)
def test_each_type_is_accepted_with_just_its_prices(kind: OrderType, limit: int | None, stop: int | None) -> None:
    _check(replace(MARKET, order_type=kind, limit_price_e9=limit, stop_price_e9=stop))


@pytest.mark.parametrize("quantity", [0, -1, 1001, 10**18])
def test_a_quantity_that_is_none_or_enormous_is_refused_with_what_is_allowed(quantity: int) -> None:
    assert _violations(replace(MARKET, quantity=quantity)) == {
        "quantity": f"{quantity} is not allowed: whole contracts from 1 to 1000"
    }


@pytest.mark.parametrize(
    ("kind", "missing"),
    [
        (OrderType.LIMIT, {"limit_price_e9"}),
        (OrderType.STOP, {"stop_price_e9"}),
        (OrderType.STOP_LIMIT, {"limit_price_e9", "stop_price_e9"}),
    ],
)
def test_a_missing_price_is_named(kind: OrderType, missing: set[str]) -> None:
    assert set(_violations(replace(MARKET, order_type=kind))) == missing


def test_a_price_that_the_type_has_not_is_refused() -> None:
    assert "MARKET order has no such price" in _violations(replace(MARKET, limit_price_e9=LAST_E9))["limit_price_e9"]


@pytest.mark.parametrize("price_e9", [0, -1, -23_500 * E9])
def test_a_price_of_zero_or_below_is_refused(price_e9: int) -> None:
    found = _violations(replace(MARKET, order_type=OrderType.LIMIT, limit_price_e9=price_e9))
    assert "not a price above 0" in found["limit_price_e9"]


@pytest.mark.parametrize("reference_e9", [LAST_E9, None])
def test_plain_points_are_recognised_with_and_without_a_last_price(reference_e9: int | None) -> None:
    terms = replace(MARKET, order_type=OrderType.LIMIT, limit_price_e9=23_500)
    with pytest.raises(InvalidOrder) as caught:
        _check(terms, reference_e9=reference_e9)
    (violation,) = caught.value.violations
    assert violation.scale_meant_e9 == 23_500 * E9
    assert "probably meant 23500.00" in violation.description


def test_a_price_off_the_tick_names_its_neighbours() -> None:
    terms = replace(MARKET, order_type=OrderType.LIMIT, limit_price_e9=23_500_100_000_000)
    with pytest.raises(InvalidOrder) as caught:
        _check(terms)
    (violation,) = caught.value.violations
    assert violation.tick_e9 == E9 // 4
    assert "23500.00 and 23500.25" in violation.description


def test_all_violations_are_told_at_once() -> None:
    terms = replace(MARKET, order_type=OrderType.STOP_LIMIT, quantity=0, limit_price_e9=1)
    assert set(_violations(terms)) == {"quantity", "limit_price_e9", "stop_price_e9"}


def test_an_index_cannot_be_traded() -> None:
    assert "symbol" in _violations(MARKET, spec=replace(NQ, tradeable=False))


def test_a_replacement_must_change_something_and_leave_something_to_fill(make: Builder) -> None:
    order = make.order(OrderState.PARTIALLY_FILLED, quantity=4, filled=2)
    with pytest.raises(InvalidOrder, match="same as the present"):
        check_replacement(order, order.terms, NQ, max_quantity=9, reference_e9=None)
    with pytest.raises(InvalidOrder, match="2 are filled already"):
        check_replacement(order, replace(order.terms, quantity=2), NQ, max_quantity=9, reference_e9=None)
    check_replacement(order, replace(order.terms, quantity=3), NQ, max_quantity=9, reference_e9=None)
