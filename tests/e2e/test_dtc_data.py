"""A mesh that has everything over DTC: prices, order books, fills, and an order that only a person can settle."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, Final

import pytest
from tests.e2e.books import assert_books_agree, settled
from tests.e2e.running_mesh import SERVICES, Mesh, started, state_of
from tests.ports import free_port
from tests.waiting import until

from minhos_api.health.v1 import health_monitor_service_pb2 as health_pb
from minhos_api.health.v1.health_monitor_service_pb2_grpc import HealthMonitorServiceStub
from minhos_api.market.v1 import market_data_provider_service_pb2 as market_pb
from minhos_api.market.v1.market_data_provider_service_pb2_grpc import MarketDataProviderServiceStub
from minhos_api.market.v1.provenance_pb2 import PROVENANCE_SIMULATED
from minhos_api.order.v1 import order_terms_pb2 as terms_pb
from minhos_api.risk.v1 import risk_manager_service_pb2 as risk_pb
from minhos_api.risk.v1.risk_manager_service_pb2_grpc import RiskManagerServiceStub
from minhos_api.sierra.v1 import sierra_client_service_pb2 as sierra_pb
from minhos_api.sierra.v1 import sierra_simulator_service_pb2 as simulator_pb
from minhos_api.sierra.v1.sierra_client_service_pb2_grpc import SierraClientServiceStub
from minhos_api.sierra.v1.sierra_simulator_service_pb2_grpc import SierraSimulatorServiceStub
from minhos_api.trading.v1 import order_pb2
from minhos_api.trading.v1 import order_service_pb2 as orders_pb
from minhos_api.trading.v1 import trading_engine_service_pb2 as engine_pb
from minhos_api.trading.v1.order_service_pb2_grpc import OrderServiceStub
from minhos_api.trading.v1.trading_engine_service_pb2_grpc import TradingEngineServiceStub
from minhos_mesh.runtime.config import load

pytestmark = pytest.mark.timeout(120)

RUNNING: Final = SERVICES - {"paper_venue"}
SYMBOL: Final = load(None, environment={}).resolved(datetime.now(UTC)).primary()


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mesh]:
    """The server grants market data, and its account is one on which others may trade too."""
    port = str(free_port())
    settings = {
        "MINHOS_MARKET_DATA__SYMBOLS": SYMBOL,
        "MINHOS_FEED__DTC_PORT": port,
        "MINHOS_FEED__HISTORY_HOURS": "0.1",
        "MINHOS_FEED__TICKS_PER_SECOND": "50",
        "MINHOS_DTC__PORT": port,
        "MINHOS_DTC__MARKET_DATA": SYMBOL,
        "MINHOS_ENGINE__VENUE": "sierra_client",
        "MINHOS_ENGINE__MODE": "MANUAL",
    }
    with started(tmp_path_factory.mktemp("dtc_data") / "data", settings=settings) as made:
        yield made


def status(mesh: Mesh) -> sierra_pb.SierraStatus:
    found: sierra_pb.SierraStatus = mesh.stub(SierraClientServiceStub).GetStatus(sierra_pb.GetStatusRequest()).status
    return found


def place(mesh: Mesh, name: str, quantity: int) -> str:
    terms = terms_pb.OrderTerms(
        symbol=SYMBOL, side=terms_pb.SIDE_BUY, type=terms_pb.ORDER_TYPE_MARKET, quantity=quantity,
        time_in_force=terms_pb.TIME_IN_FORCE_DAY,
    )  # fmt: skip
    request = orders_pb.PlaceOrderRequest(request_id=name, actor="a person", terms=terms)
    return str(mesh.stub(OrderServiceStub).PlaceOrder(request).order.order_id)


def state(mesh: Mesh, order_id: str) -> int:
    return int(mesh.stub(OrderServiceStub).GetOrder(orders_pb.GetOrderRequest(order_id=order_id)).order.state)


def fills_at_the_server(mesh: Mesh) -> list[dict[str, Any]]:
    with sqlite3.connect(f"file:{mesh.paths.store_file('sierra_simulator_orders')}?mode=ro", uri=True) as file:
        return [json.loads(body) for (body,) in file.execute("SELECT body FROM fills")]


def held(mesh: Mesh) -> int:
    positions = mesh.stub(TradingEngineServiceStub).GetPositions(engine_pb.GetPositionsRequest()).positions
    return sum(each.quantity for each in positions)


def test_ticks_and_order_books_come_over_dtc_and_no_file_is_read(mesh: Mesh) -> None:
    seen = status(mesh)
    (data,) = seen.dtc.market_data
    assert (data.symbol, data.state) == (SYMBOL, sierra_pb.SIERRA_DTC_DATA_STATE_GRANTED)
    until(lambda: [feed for feed in status(mesh).feeds if feed.records_acknowledged > 20], "ticks go to market data")
    seen = status(mesh)
    (feed,) = seen.feeds
    (book,) = seen.books
    assert (feed.symbol, book.symbol, book.file) == (SYMBOL, SYMBOL, "dtc")
    kept = mesh.data_dir / "dtc" / f"{SYMBOL}.scid"
    assert kept.stat().st_size > 20 * 40, "what came is written down"
    market = mesh.stub(MarketDataProviderServiceStub)
    quote = market.GetMarketData(market_pb.GetMarketDataRequest(symbol=SYMBOL)).quote
    assert quote.provenance == PROVENANCE_SIMULATED
    assert quote.bid_e9 < quote.ask_e9


def test_tail_shows_the_order_book_that_came_over_dtc(mesh: Mesh) -> None:
    book = mesh.json("tail", "depth", "--count", "1")
    bids, asks = ([int(level["price_e9"]) for level in book[side]] for side in ("bids", "asks"))
    assert (len(bids), len(asks)) == (10, 10)
    assert bids == sorted(bids, reverse=True)
    assert asks == sorted(asks)
    assert bids[0] < asks[0]


def reasons(mesh: Mesh) -> dict[str, str]:
    """What is wrong, sentence and what to do by code, of all services."""
    health = mesh.stub(HealthMonitorServiceStub).GetMeshHealth(health_pb.GetMeshHealthRequest())
    return {each.code: f"{each.message} -> {each.action}" for item in health.services for each in item.reasons}


def test_order_that_nobody_tells_of_is_settled_by_a_person_and_all_books_agree(mesh: Mesh) -> None:
    """The person reads the price wrongly, which is told until they let it stand."""
    place(mesh, "first", 2)
    until(lambda: held(mesh) == 2, "the first order is filled")
    faults = mesh.stub(SierraSimulatorServiceStub)
    cut = simulator_pb.SIMULATOR_FAULT_KIND_DTC_DISCONNECT
    faults.InjectFault(simulator_pb.InjectFaultRequest(request_id="cut", kind=cut, probability=1.0))
    lost = place(mesh, "lost", 1)
    until(lambda: state(mesh, lost) == order_pb2.ORDER_STATE_UNKNOWN, "its answer is lost")
    faults.ClearFaults(simulator_pb.ClearFaultsRequest())
    told = until(
        lambda: [fill for fill in fills_at_the_server(mesh) if fill["quantity"] == 1], "the server has filled it"
    )
    degraded = until(
        lambda: {name for name, each in mesh.services().items() if state_of(each) == "DEGRADED"}, "it is told"
    )
    assert degraded <= {"sierra_client", "trading_engine"}
    until(lambda: status(mesh).dtc.state == sierra_pb.SIERRA_DTC_STATE_READY, "the connection is back")
    assert state(mesh, lost) == order_pb2.ORDER_STATE_UNKNOWN, "a fill of an unknown order may be of somebody else"
    wrong_e9 = told[0]["price_e9"] + 250_000_000
    price = f"{wrong_e9 // 10**9}.{wrong_e9 % 10**9:09d}"
    said = mesh.ok("order", "settle", lost, "--filled", f"1@{price}", "--reason", "Trade Activity Log")
    assert "is FILLED at the venue with 1 of 1 filled" in said
    until(lambda: held(mesh) == 3, "the engine books it")
    until(lambda: settled(mesh), "no order is on its way")
    books = assert_books_agree(mesh)
    assert [fill.quantity for fill in books.venue_fills] == [2, 1]
    assert books.venue_fills[-1].price_e9 == wrong_e9
    risk = mesh.stub(RiskManagerServiceStub)

    def projected() -> bool:
        return dict(risk.GetRiskMetrics(risk_pb.GetRiskMetricsRequest()).metrics.positions) == {SYMBOL: 3}

    until(projected, "the risk manager projects the same")
    assert sum(fill["quantity"] for fill in fills_at_the_server(mesh)) == 3
    until(lambda: {"SETTLED_OTHERWISE", "DTC_SETTLED_OTHERWISE"} <= set(reasons(mesh)), "the difference is told")
    alarm = reasons(mesh)["SETTLED_OTHERWISE"]
    assert f"BUY 1 {SYMBOL} ({lost}): a person has told 1 @ " in alarm
    assert "minhos order confirm ORDER" in alarm
    mesh.ok("order", "confirm", lost, "--reason", "the log was misread")
    assert held(mesh) == 3, "what is booked stays"

    def healthy() -> bool:
        listed = mesh.services()
        return set(listed) == RUNNING and {state_of(service) for service in listed.values()} == {"HEALTHY"}

    until(healthy, "all HEALTHY again")
