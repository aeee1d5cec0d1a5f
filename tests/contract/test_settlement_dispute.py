"""What the engine tells of an order that a person has settled and the venue tells otherwise of, until a person has confirmed it."""

from __future__ import annotations

from pathlib import Path

from tests.contract.test_trading_engine import order_of, place, reaches
from tests.contract.trading_engine_peers import SYMBOL, Peers, Stubs, until
from tests.waiting import eventually

from minhos_api.trading.v1.order_pb2 import ORDER_STATE_FILLED

BOTH = "a person has told 1 @ 23500.25, and the server tells 1 @ 23500.50"
CONDITION = "SETTLED_OTHERWISE"


async def shows(engine: Stubs, order_id: str, dispute: str) -> bool:
    order = await order_of(engine, order_id)
    assert order.state == ORDER_STATE_FILLED
    return order.settlement_dispute == dispute


async def test_dispute_about_a_filled_order_is_a_condition_over_a_restart_until_the_venue_ends_it(
    tmp_path: Path,
) -> None:
    async with Peers(tmp_path) as peers:
        async with peers.engine() as engine:
            order_id = (await place(engine)).order_id
            await reaches(engine, order_id, ORDER_STATE_FILLED)
            order = peers.venue.orders[order_id]
            order.settlement_dispute = BOTH
            peers.venue.tell(order)
            said = await until(lambda: engine.conditions.held().get(CONDITION))
            assert said == f"the venue tells otherwise than was settled of BUY 1 {SYMBOL} ({order_id}): {BOTH}"
            await eventually(lambda: shows(engine, order_id, BOTH), "the order tells it once it is on disk")
        async with peers.engine() as engine:
            await until(lambda: engine.conditions.held().get(CONDITION) == said)
            order.settlement_dispute = ""
            peers.venue.tell(order)
            await until(lambda: CONDITION not in engine.conditions.held())
            await eventually(lambda: shows(engine, order_id, ""), "the order tells of no dispute")
        async with peers.engine() as engine:
            assert CONDITION not in engine.conditions.held()
