"""History that a source tells again fills no order of now: its file was replaced, cut off, or is read for the first time."""

from __future__ import annotations

from typing import Any

import pytest

from minhos_mesh.matching import MatchingRules, OrderType, Side, TimeInForce
from minhos_mesh.paper_venue.domain.exchange import Exchange
from minhos_mesh.runtime.instruments import DEFAULT_INSTRUMENTS
from minhos_mesh.runtime.tick_layout import Tick, TickKind, TradeSide
from minhos_mesh.venue.domain.orders import DELAYED, LIVE, REPLAY, SIMULATED, OrderState, Submission, Terms

E9 = 1_000_000_000
TICK, P, NQ = 250_000_000, 23_500 * E9, "NQZ26-CME"
NOW = 1_795_446_000 * E9
"""Monday 23 November 2026, 15:00 UTC: the exchange is open."""
DELAY_S = 1_200


def trade(sequence: int, away: int, age_s: float) -> Tick:
    """A trade so many steps from 23,500, with its quote, that happened so long ago and comes now."""
    price, at_ns = P + away * TICK, NOW - round(age_s * E9)
    quote = (price - TICK, price, 9, 9)
    return Tick(sequence, at_ns, NOW, TickKind.TRADE, price, 9, TradeSide.SELL, *quote, 63)


def at_rest(provenance: int = SIMULATED, order_type: OrderType = OrderType.LIMIT) -> Exchange:
    """A venue with a sell far above a market that was fresh, whose source then began anew."""
    rules = MatchingRules(max_quote_age_ns=10 * E9)
    made = Exchange({NQ: DEFAULT_INSTRUMENTS["NQ"]}, rules, initial_cash_e9=100_000 * E9, latency_ns=0)
    made.on_epoch(NQ, 1, provenance)
    made.on_ticks(NQ, [trade(1, 0, DELAY_S if provenance == DELAYED else 0)], NOW)
    prices: dict[str, Any] = (
        {"limit_price_e9": P + 40 * TICK} if order_type is OrderType.LIMIT else {"stop_price_e9": P - 40 * TICK}
    )
    terms = Terms(symbol=NQ, side=Side.SELL, order_type=order_type, quantity=1, time_in_force=TimeInForce.DAY, **prices)
    made.submit(Submission(client_order_id="a", terms=terms, provenance=provenance), NOW)
    made.on_epoch(NQ, 2, provenance)
    return made


def state(made: Exchange) -> OrderState:
    return made.orders["a"].state


@pytest.mark.parametrize("provenance", [SIMULATED, LIVE, DELAYED])
@pytest.mark.parametrize(("order_type", "through"), [(OrderType.LIMIT, 50), (OrderType.STOP, -50)])
def test_prices_of_the_past_fill_and_trigger_nothing_and_prices_of_now_do(
    provenance: int, order_type: OrderType, through: int
) -> None:
    made, late = at_rest(provenance, order_type), DELAY_S if provenance == DELAYED else 0
    history = [trade(sequence, through, late + age_s) for sequence, age_s in enumerate((3_600, 60, 11), 1)]
    assert made.on_ticks(NQ, history, NOW) == ()
    assert not state(made).done
    assert made.on_ticks(NQ, [trade(4, 0, late)], NOW) == ()
    assert not state(made).done
    mixed = [trade(5, through, late + 11), trade(6, 0, late + 10), trade(7, through, late + 1)]
    assert made.on_ticks(NQ, mixed, NOW)
    assert state(made) is OrderState.FILLED
    assert made.markets[NQ].sequence == 7


def test_the_place_in_the_market_follows_what_passed_by() -> None:
    made = at_rest()
    made.on_ticks(NQ, [trade(1, 7, 3_600), trade(2, 8, 3_599)], NOW)
    market = made.markets[NQ]
    assert (market.sequence, market.last_price_e9) == (2, P + 8 * TICK)
    assert made.on_ticks(NQ, [trade(2, 50, 0)], NOW) == (), "each tick counts once"


def test_replay_is_the_past_and_fills_by_its_own_clock() -> None:
    made = at_rest(REPLAY)
    made.on_ticks(NQ, [trade(1, 0, 7_200), trade(2, 50, 7_000)], NOW)
    assert state(made) is OrderState.FILLED
