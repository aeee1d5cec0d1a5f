"""A mesh whose venue is a DTC server: orders are filled there, and `kill -9` of either side loses and doubles nothing."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
from collections.abc import Iterator

import grpc
import pytest
from tests.e2e.books import Books, assert_books_agree, settled
from tests.e2e.running_mesh import SERVICES, Mesh, started, state_of
from tests.faults.conftest import ROOM
from tests.faults.mesh_client import MeshClient
from tests.ports import free_port
from tests.waiting import until

from minhos_api.market.v1 import market_data_provider_service_pb2 as market_pb
from minhos_api.market.v1.market_data_provider_service_pb2_grpc import MarketDataProviderServiceStub
from minhos_api.registry.v1 import registry_service_pb2 as registry_pb
from minhos_api.registry.v1.registry_service_pb2_grpc import RegistryServiceStub
from minhos_api.sierra.v1 import sierra_client_service_pb2 as sierra_pb
from minhos_api.sierra.v1.sierra_client_service_pb2_grpc import SierraClientServiceStub
from minhos_api.trading.v1 import trading_engine_service_pb2 as engine_pb
from minhos_api.trading.v1.trading_engine_service_pb2_grpc import TradingEngineServiceStub
from minhos_api.venue.v1 import venue_service_pb2 as venue_pb
from minhos_api.venue.v1.venue_service_pb2_grpc import VenueServiceStub

pytestmark = pytest.mark.timeout(120)

RUNNING = SERVICES - {"paper_venue"}
BACK_S = 30.0


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mesh]:
    settings = {
        **ROOM,
        "MINHOS_FEED__DTC_PORT": str(free_port()),
        "MINHOS_FEED__HISTORY_HOURS": "0.5",
        "MINHOS_ENGINE__VENUE": "sierra_client",
        "MINHOS_ENGINE__MODE": "MANUAL",
    }
    with started(tmp_path_factory.mktemp("dtc") / "data", settings=settings) as made:
        yield made


@pytest.fixture(scope="module")
def client(mesh: Mesh) -> Iterator[MeshClient]:
    symbol = mesh.stub(MarketDataProviderServiceStub).GetMarketData(market_pb.GetMarketDataRequest()).symbol
    made = MeshClient(mesh, symbol)
    try:
        until(lambda: made.beyond(dict.fromkeys(made.count(), 0)), "the client reads, trades and publishes")
        yield made
    finally:
        made.close()


def healthy(mesh: Mesh) -> bool:
    try:
        listed = mesh.services()
    except grpc.RpcError:
        return False
    return set(listed) == RUNNING and {state_of(service) for service in listed.values()} == {"HEALTHY"}


def kill(mesh: Mesh, *services: str) -> None:
    """Ends processes without a word, and waits until others are in their place and all is HEALTHY."""
    before = mesh.pids()
    for service in services:
        os.kill(before[service], signal.SIGKILL)

    def back() -> bool:
        if not healthy(mesh):
            return False
        now = mesh.pids()
        return all(now.get(service, before[service]) != before[service] for service in services)

    until(back, f"{', '.join(services)} back and all HEALTHY", BACK_S)


def test_the_venue_is_the_dtc_server_and_the_engine_needs_it(mesh: Mesh) -> None:
    assert set(mesh.services()) == RUNNING
    graph = mesh.stub(RegistryServiceStub).GetDependencyGraph(registry_pb.GetDependencyGraphRequest())
    assert ("trading_engine", "sierra_client") in {(edge.from_service, edge.to_service) for edge in graph.edges}
    status = mesh.stub(VenueServiceStub).GetVenueStatus(venue_pb.GetVenueStatusRequest())
    assert (status.venue, status.accepting, status.live) == ("sierra", True, False)
    dtc = mesh.stub(SierraClientServiceStub).GetStatus(sierra_pb.GetStatusRequest()).status.dtc
    assert (dtc.state, dtc.account, dtc.simulated) == (sierra_pb.SIERRA_DTC_STATE_READY, "Sim1", True)
    assert "is a simulator" in dtc.live_refused


def test_orders_are_filled_at_the_server_and_change_the_position(mesh: Mesh) -> None:
    assert mesh.json("mode")["venue"] == "sierra"
    engine, venue = mesh.stub(TradingEngineServiceStub), mesh.stub(VenueServiceStub)
    for side, wanted in (("buy", 2), ("sell", 0)):
        mesh.ok("order", "place", side, "2")

        def held(wanted: int = wanted) -> bool:
            ours = engine.GetPositions(engine_pb.GetPositionsRequest()).positions
            theirs = venue.ListPositions(venue_pb.ListPositionsRequest()).positions
            return [sum(p.quantity for p in held) for held in (ours, theirs)] == [wanted, wanted]

        until(held, f"engine and server hold {wanted}")


@pytest.mark.parametrize(
    "services",
    [("sierra_client",), ("sierra_simulator",), ("sierra_client", "trading_engine")],
    ids=" and ".join,
)
def test_killed_in_the_middle_of_trading_they_are_back_and_orders_go_on(
    mesh: Mesh, client: MeshClient, services: tuple[str, ...]
) -> None:
    until(lambda: healthy(mesh), "all HEALTHY before the kill")
    kill(mesh, *services)
    done = client.count()
    until(lambda: client.beyond(done), "ticks, orders and events go on", BACK_S)
    until(lambda: client.count()["order"] > done["order"] + 2, "several orders are placed", BACK_S)


class TestAftermath:
    """What was promised while all this went on was kept."""

    def test_engine_venue_bus_and_portfolio_hold_the_same_fills(self, aftermath: Books) -> None:
        assert aftermath.venue_fills

    def test_the_server_has_the_same_fills_and_no_order_twice(self, mesh: Mesh, aftermath: Books) -> None:
        with sqlite3.connect(f"file:{mesh.paths.store_file('sierra_simulator_orders')}?mode=ro", uri=True) as file:
            fills = [json.loads(body) for (body,) in file.execute("SELECT body FROM fills")]
            orders = [json.loads(body) for (body,) in file.execute("SELECT body FROM orders")]
        assert sum(fill["quantity"] for fill in fills) == sum(fill.quantity for fill in aftermath.venue_fills)
        assert len(fills) == len(aftermath.venue_fills)
        ids = [order["client_order_id"] for order in orders]
        assert len(set(ids)) == len(ids)

    def test_no_acknowledged_order_is_lost_or_doubled(self, client: MeshClient, aftermath: Books) -> None:
        promised = {order["request_id"]: order["order_id"] for order in client.told("order")}
        known = {order.request_id: order.order_id for order in aftermath.orders if order.request_id in promised}
        assert known == promised
        assert len(promised) > 9


@pytest.fixture(scope="module")
def aftermath(mesh: Mesh, client: MeshClient) -> Books:
    """Everyone's books after the client has finished and nothing is on its way."""
    client.finish()
    until(lambda: settled(mesh), "no order is on its way", BACK_S)
    return assert_books_agree(mesh)
