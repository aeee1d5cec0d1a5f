"""A folder that an earlier version has written opens: its orders have fewer members, its server fewer marks."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path

from tests.contract.dtc_harness import SYMBOL, DtcHarness
from tests.contract.venue_conformance import order, submit, terms

from minhos_api.order.v1 import order_terms_pb2 as terms_pb
from minhos_api.venue.v1 import venue_service_pb2 as pb

LATER = {"dispute", "heard", "final_quantity", "disputed", "confirmed"}
"""Members of orders that the earlier version did not have."""


def as_it_was(file: Path) -> None:
    """Takes out of the file what the earlier version did not write."""

    def less(text: str) -> str:
        return json.dumps({key: value for key, value in json.loads(text).items() if key not in LATER})

    with closing(sqlite3.connect(file)) as connection, connection:
        connection.create_function("less", 1, less)
        connection.execute("UPDATE orders SET record = less(record), tracked = less(tracked)")
        connection.execute("UPDATE changes SET body = less(body)")
        server = json.dumps({"account": "Sim1", "simulator": True})
        assert connection.execute("UPDATE facts SET value = ? WHERE name = 'server'", (server,)).rowcount == 1


async def test_orders_that_an_earlier_version_has_left_are_gone_on_with_at_the_same_server(tmp_path: Path) -> None:
    first = DtcHarness(tmp_path)
    await first.serve()
    await first.start()
    await first.show(0, 1)
    filled = await submit(first, terms(SYMBOL, quantity=2))
    resting = await submit(first, terms(SYMBOL, kind=terms_pb.ORDER_TYPE_LIMIT, limit=-4))
    await first.close()
    as_it_was(tmp_path / "orders.db")
    for bought in (3, 4):
        now = DtcHarness(tmp_path)
        await now.serve()  # at another port, as a simulator that was started again has
        await now.start()
        assert (now.core.problems(trades=True), now.core.other_server) == ({}, "")
        assert (await order(now, filled.client_order_id)).filled_quantity == 2
        assert (await order(now, resting.client_order_id)).state == pb.VENUE_ORDER_STATE_WORKING
        await now.show(0, 1)
        assert (await submit(now, terms(SYMBOL, quantity=1))).state == pb.VENUE_ORDER_STATE_FILLED
        assert now.core.book.positions[SYMBOL].position.quantity == bought
        await now.close()
