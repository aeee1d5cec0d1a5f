from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from minhos_mesh.runtime.money import E9
from minhos_mesh.trading_engine.domain.account import Account
from minhos_mesh.trading_engine.domain.errors import TradingError, UnknownOrder
from minhos_mesh.trading_engine.domain.order_events import CancelRequested, OrderEvent, RiskApproved
from minhos_mesh.trading_engine.domain.orders import OrderState, Reason, Side

if TYPE_CHECKING:
    from tests.unit.trading_engine.conftest import Builder

SYMBOL = "NQZ26-CME"
DAY_NS = 86_400 * 10**9


@pytest.fixture
def account() -> Account:
    return Account({SYMBOL: 20 * E9})


def _approved(account: Account, make: Builder, quantity: int = 2, side: Side = Side.BUY) -> str:
    order_id = account.add(make.created(quantity, side)).order.order_id
    account.apply(order_id, RiskApproved(at_ns=2, approval_id="a"))
    return order_id


def test_an_order_counts_as_working_from_its_approval_to_its_end(account: Account, make: Builder) -> None:
    order_id = account.add(make.created(2)).order.order_id
    assert account.exposure(SYMBOL).buying == 0
    account.apply(order_id, RiskApproved(at_ns=2, approval_id="a"))
    assert account.exposure(SYMBOL).buying == 2
    order = account.get(order_id)
    assert order is not None
    account.apply(order_id, make.filled(order, 1))
    assert (account.exposure(SYMBOL).position, account.exposure(SYMBOL).buying) == (1, 1)
    account.apply(order_id, make.report(OrderState.CANCELED))
    assert (account.exposure(SYMBOL).buying, account.exposure(SYMBOL).toward) == (0, 1)
    assert not account.orders


def test_a_repeated_fact_gives_nothing_to_write(account: Account, make: Builder) -> None:
    order_id = _approved(account, make)
    report = make.report(OrderState.WORKING, revision=1)
    assert account.apply(order_id, report) is not None
    assert account.apply(order_id, report) is None


def test_a_late_fill_of_an_ended_order_still_moves_the_position(account: Account, make: Builder) -> None:
    order_id = _approved(account, make)
    account.apply(order_id, make.report(OrderState.CANCELED))
    ended = account.get(order_id)
    assert ended is not None
    change = account.apply(order_id, make.filled(ended, 1))
    assert change is not None
    assert change.booking is not None
    assert (account.exposure(SYMBOL).position, account.version) == (1, 1)


def test_facts_about_an_unknown_order_are_told(account: Account, make: Builder) -> None:
    with pytest.raises(UnknownOrder):
        account.apply("nobody", make.report(OrderState.WORKING))


def test_ended_orders_are_forgotten_beyond_the_bound(make: Builder) -> None:
    account = Account({SYMBOL: 20 * E9}, closed_kept=2)
    ids = [_approved(account, make) for _ in range(4)]
    for order_id in ids:
        account.apply(order_id, make.report(OrderState.CANCELED))
    assert [account.get(order_id) is None for order_id in ids] == [True, True, False, False]


def test_the_day_begins_at_midnight_utc(account: Account, make: Builder) -> None:
    for day, price in ((1, 100), (1, 110), (2, 110), (2, 105)):
        side = Side.BUY if price in (100, 110) and account.exposure(SYMBOL).position == 0 else Side.SELL
        account.restore_fill(make.fill(1, price * E9, side, commission_e9=2 * E9, at_ns=day * DAY_NS))
    assert account.net_today_e9(2 * DAY_NS + 5) == (-100 - 4) * E9
    assert account.net_today_e9(3 * DAY_NS) == 0
    assert account.performance.net_e9 == (200 - 100 - 8) * E9


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32))
def test_working_exposure_is_always_the_sum_over_the_orders(make: Builder, seed: int) -> None:
    randomness = random.Random(seed)
    account = Account({SYMBOL: 20 * E9}, closed_kept=100)
    ids = [account.add(make.created(3, randomness.choice(list(Side)))).order.order_id for _ in range(4)]
    states = [OrderState.WORKING, OrderState.CANCELED, OrderState.REJECTED, OrderState.EXPIRED]
    for _ in range(25):
        order = account.get(randomness.choice(ids))
        assert order is not None
        possible: list[OrderEvent] = [
            RiskApproved(at_ns=2, approval_id="a"),
            CancelRequested(at_ns=3, reason=Reason.CANCELED_BY_USER, actor="ann"),
            make.filled(order, 1),
            make.report(randomness.choice(states)),
        ]
        event = randomness.choice(possible)
        try:
            account.apply(order.order_id, event)
        except TradingError:
            continue
    held = [account.get(order_id) for order_id in ids]
    for side, seen in ((Side.BUY, account.exposure(SYMBOL).buying), (Side.SELL, account.exposure(SYMBOL).selling)):
        working = [o for o in held if o is not None and o.state.is_working and o.terms.side is side]
        assert seen == sum(order.remaining for order in working)
