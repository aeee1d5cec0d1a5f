"""Orders at the simulator's DTC server outlive its process as they stood."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from minhos_mesh.dtc.message import make
from minhos_mesh.dtc.tables import trading
from minhos_mesh.matching import Quote, Side, Trade
from minhos_mesh.sierra_simulator.dtc_exchange import SimulatedExchange
from minhos_mesh.sierra_simulator.dtc_file import OrderFile
from minhos_mesh.sierra_simulator.dtc_settings import DtcServerSettings

SYMBOL = "NQZ26-CME"
TICK = 250_000_000
P = 23_500_000_000_000
SECOND = 1_000_000_000


def seen(exchange: SimulatedExchange) -> dict[str, Any]:
    """Everything that a client can ask for."""
    return {
        "open": [(order, order.server_order_ids) for order in exchange.open_orders()],
        "fills": exchange.fills,
        "positions": exchange.positions,
        "ids": sorted(exchange.orders),
    }


class Session:
    """Random orders and a random market, the same for the same seed."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.now_ns = 1_790_000_000 * SECOND
        self.sent = 0

    def step(self, exchange: SimulatedExchange) -> None:
        """One thing that happens."""
        draw, self.now_ns = self.random, self.now_ns + SECOND
        kind = draw.choice(["order", "order", "cancel", "change", "market"])
        open_orders = exchange.open_orders()
        if kind == "order":
            self._order(exchange)
        elif kind == "market" or not open_orders:
            bid = draw.randrange(-6, 6)
            sizes = {"bid_size": draw.randrange(1, 9), "ask_size": draw.randrange(1, 9)}
            prices = {"bid_e9": P + bid * TICK, "ask_e9": P + (bid + draw.randrange(1, 4)) * TICK}
            exchange.on_quote(SYMBOL, Quote(time_ns=self.now_ns, **prices, **sizes))
            trade = Trade(time_ns=self.now_ns, price_e9=prices["ask_e9"], size=draw.randrange(1, 9), aggressor=Side.BUY)
            exchange.on_trade(SYMBOL, trade)
        else:
            chosen = draw.choice(open_orders)
            ids = {"ServerOrderID": chosen.server_order_id, "ClientOrderID": chosen.client_order_id}
            if kind == "cancel":
                exchange.cancel(make(trading.CANCEL_ORDER, **ids), self.now_ns)
            else:
                changed = make(
                    trading.CANCEL_REPLACE_ORDER, Quantity=draw.randrange(1, 12), Price1IsSet=0, Price2IsSet=0, **ids
                )
                exchange.replace(changed, self.now_ns)

    def _order(self, exchange: SimulatedExchange) -> None:
        draw = self.random
        self.sent += 1
        kind, price = draw.choice([1, 2, 3, 4]), (P + draw.randrange(-8, 9) * TICK) / 1e9
        values = {
            "OrderType": kind,
            "BuySell": draw.choice([1, 2]),
            "TimeInForce": draw.choice([1, 2] if kind > 2 else [1, 2, 4, 6]),
        }
        prices = {} if kind == 1 else {"Price1": price, "Price2": price if kind == 4 else 0.0}
        order = make(
            trading.SUBMIT_NEW_SINGLE_ORDER, Symbol=SYMBOL, ClientOrderID=f"o{self.sent}", Quantity=draw.randrange(1, 12), **values, **prices
        )  # fmt: skip
        exchange.submit(order, self.now_ns)


@pytest.mark.parametrize("seed", range(8))
def test_orders_fills_and_positions_are_there_again_after_any_step_and_go_on(tmp_path: Path, seed: int) -> None:
    path, session = tmp_path / "orders.db", Session(seed)
    exchange, file = SimulatedExchange(DtcServerSettings(), [SYMBOL]), OrderFile(path)
    deaths = {session.random.randrange(5, 120) for _ in range(4)}
    for number in range(120):
        session.step(exchange)
        file.save(exchange.take_changes())
        if number in deaths:
            file.close()  # what is in the file is all that is left
            file, again = OrderFile(path), SimulatedExchange(DtcServerSettings(), [SYMBOL])
            again.restore(file.load())
            assert seen(again) == seen(exchange)
            exchange = again
    assert len(exchange.fills) > 10
    ids = [order.server_order_id for order in exchange.open_orders()]
    assert len(set(ids)) == len(ids)
    file.close()


def test_file_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    path = tmp_path / "orders.db"
    path.write_bytes(b"no database, but long enough to look at" * 40)
    with pytest.raises(OSError, match=r"orders\.db cannot be used"):
        OrderFile(path)
