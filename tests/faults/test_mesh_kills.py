"""`kill -9` of every service of a running mesh, in turn and together, under a client that never gives up."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from functools import partial
from typing import Any

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from grpc_health.v1 import health_pb2, health_pb2_grpc
from tests.e2e.books import Books, assert_books_agree, events, settled
from tests.e2e.running_mesh import SERVICES, Mesh
from tests.faults.mesh_client import MeshClient
from tests.faults.mesh_client_child import AGAIN, SOURCE
from tests.waiting import alive, until

from minhos_api.health.v1 import health_monitor_service_pb2 as health_pb
from minhos_api.health.v1.health_monitor_service_pb2_grpc import HealthMonitorServiceStub
from minhos_api.health.v1.service_health_pb2 import SERVICE_STATE_DEGRADED
from minhos_api.market.v1 import market_data_provider_service_pb2 as market_pb
from minhos_api.market.v1.market_data_provider_service_pb2_grpc import MarketDataProviderServiceStub
from minhos_api.mesh.v1.contract_options_pb2 import DEPENDENCY_KIND_OPTIONAL
from minhos_api.registry.v1 import registry_service_pb2 as registry_pb
from minhos_api.registry.v1.registry_service_pb2_grpc import RegistryServiceStub

pytestmark = pytest.mark.timeout(120)

BACK_S = 10.0
"""A killed service serves again within this."""


@pytest.fixture(scope="module")
def client(mesh: Mesh) -> Iterator[MeshClient]:
    symbol = mesh.stub(MarketDataProviderServiceStub).GetMarketData(market_pb.GetMarketDataRequest()).symbol
    made = MeshClient(mesh, symbol)
    try:
        until(lambda: made.beyond(dict.fromkeys(made.count(), 0)), "the client reads, trades and publishes")
        yield made
    finally:
        made.close()


@pytest.fixture(scope="module")
def needs(mesh: Mesh) -> set[tuple[str, str]]:
    """(dependent, what it requires)."""
    graph = mesh.stub(RegistryServiceStub).GetDependencyGraph(registry_pb.GetDependencyGraphRequest())
    return {(e.from_service, e.to_service) for e in graph.edges if e.kind != DEPENDENCY_KIND_OPTIONAL}


def kill(mesh: Mesh, *services: str) -> Timestamp:
    """Ends processes without a word; returns the time just before."""
    pids, before = mesh.pids(), Timestamp()
    before.GetCurrentTime()
    for service in services:
        os.kill(pids[service], signal.SIGKILL)
    return before


def serving(address: str) -> bool:
    with grpc.insecure_channel(address) as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        answer = stub.Check(health_pb2.HealthCheckRequest(), timeout=2, wait_for_ready=True)
    return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


def replaced(mesh: Mesh, service: str, before: int) -> bool:
    return mesh.pids().get(service, before) != before


def await_back(mesh: Mesh, before: dict[str, int], *killed: str) -> float:
    """Waits until new processes of the killed services are HEALTHY with all others; returns the seconds."""
    began = time.monotonic()

    def back() -> bool:
        if not mesh.healthy():
            return False
        now = mesh.pids()
        return set(now) == SERVICES and all(now[service] != before[service] for service in killed)

    until(back, f"{', '.join(killed)} back and all HEALTHY", BACK_S + 10)
    return time.monotonic() - began


@pytest.mark.parametrize("service", sorted(SERVICES))
def test_a_killed_service_is_back_within_seconds_and_the_others_serve_on(
    mesh: Mesh, client: MeshClient, needs: set[tuple[str, str]], service: str
) -> None:
    until(mesh.healthy, "all HEALTHY before the kill")
    before, addresses = mesh.pids(), mesh.addresses()
    killed_at = kill(mesh, service)
    others = SERVICES - {service}
    assert {other: serving(addresses[other]) for other in others} == dict.fromkeys(others, True)
    assert await_back(mesh, before, service) < BACK_S
    assert {other: pid for other, pid in mesh.pids().items() if other != service} == {o: before[o] for o in others}
    assert not alive(before[service])
    if service != "registry":  # which is the one that judges
        for dependent in sorted(low for low, high in needs if high == service):
            assert_was_degraded(mesh, dependent, service, killed_at)
    done = client.count()
    until(lambda: client.beyond(done), "ticks, orders and events go on")


def assert_was_degraded(mesh: Mesh, dependent: str, by: str, since: Timestamp) -> None:
    request = health_pb.ListHealthChangesRequest(service=dependent, since_time=since, page_size=100)
    changes = mesh.stub(HealthMonitorServiceStub).ListHealthChanges(request).changes
    degraded = [change for change in changes if change.new_state == SERVICE_STATE_DEGRADED]
    told = [reason.message for change in degraded for reason in change.reasons]
    assert any(by in message for message in told), f"{dependent}, when {by} was killed: {told or changes}"


@pytest.mark.parametrize(
    "services",
    [("event_bus", "trading_engine"), ("paper_venue", "risk_manager"), ("registry", "market_data")],
    ids=" and ".join,
)
def test_two_services_killed_at_once_are_back(mesh: Mesh, client: MeshClient, services: tuple[str, str]) -> None:
    until(mesh.healthy, "all HEALTHY before the kill")
    before = mesh.pids()
    kill(mesh, *services)
    await_back(mesh, before, *services)
    done = client.count()
    until(lambda: client.beyond(done), "ticks, orders and events go on")


def test_a_service_killed_again_as_soon_as_it_is_back_comes_back_again(mesh: Mesh, client: MeshClient) -> None:
    until(mesh.healthy, "all HEALTHY before the kill")
    for _ in range(2):
        before = mesh.pids()["trading_engine"]
        kill(mesh, "trading_engine")
        until(partial(replaced, mesh, "trading_engine", before), "a new one runs")
    until(mesh.healthy, "all HEALTHY again")
    done = client.count()
    until(lambda: client.beyond(done), "ticks, orders and events go on")


class TestAftermath:
    """What was promised while all this went on was kept."""

    @pytest.fixture
    def books(self, aftermath: Books) -> Books:
        return aftermath

    def test_the_client_was_never_refused_for_good(self, client: MeshClient, aftermath: Books) -> None:
        assert [f for f in client.told("failed") if f["code"] not in {code.name for code in AGAIN}] == []
        refused = {f["message"] for f in client.told("failed") if f["code"] == "FAILED_PRECONDITION"}
        assert all("no price" in message or "market data does not answer" in message for message in refused), refused

    def test_ticks_went_on_without_a_gap_and_without_a_double(self, client: MeshClient, aftermath: Books) -> None:
        assert client.told("gap") == []
        assert client.told("epoch") == []
        (start,) = client.told("snapshot")
        batches = client.told("ticks")
        assert {batch["epoch"] for batch in batches} == {start["epoch"]}
        assert [batch["first"] for batch in batches] == [start["last"] + 1, *(b["last"] + 1 for b in batches[:-1])]

    def test_every_record_of_the_feed_was_sequenced_or_counted_as_refused(self, mesh: Mesh, aftermath: Books) -> None:
        stub = mesh.stub(MarketDataProviderServiceStub)
        (symbol,) = stub.GetAllMarketData(market_pb.GetAllMarketDataRequest()).symbols
        assert symbol.records_read == symbol.ticks_sequenced + sum(symbol.rejected.values())

    def test_no_acknowledged_event_is_lost_or_doubled(self, mesh: Mesh, client: MeshClient, aftermath: Books) -> None:
        promised = {event["event_id"]: event["sequence"] for event in client.told("event")}
        stored = events(mesh, source=SOURCE)
        assert len({event.event_id for event in stored}) == len(stored)
        kept = {event.event_id: event.sequence for event in stored}
        assert {event_id: kept.get(event_id) for event_id in promised} == promised
        assert promised

    def test_the_journal_has_no_hole(self, mesh: Mesh, aftermath: Books) -> None:
        sequences = [event.sequence for event in events(mesh)]
        assert sequences == list(range(sequences[0], sequences[0] + len(sequences)))

    def test_no_acknowledged_order_is_lost_or_doubled(self, client: MeshClient, aftermath: Books) -> None:
        promised = {order["request_id"]: order["order_id"] for order in client.told("order")}
        known = {order.request_id: order.order_id for order in aftermath.orders if order.actor == SOURCE}
        assert known == promised
        assert len(promised) > len(SERVICES)

    def test_engine_venue_bus_and_portfolio_hold_the_same_fills(self, aftermath: Books) -> None:
        assert aftermath.venue_fills


@pytest.fixture(scope="module")
def aftermath(mesh: Mesh, client: MeshClient) -> Books:
    """Everyone's books after the client has finished and nothing is on its way."""
    client.finish()
    until(lambda: settled(mesh), "no order is on its way", 30)
    return assert_books_agree(mesh)
