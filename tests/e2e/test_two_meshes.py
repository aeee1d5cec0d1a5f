from __future__ import annotations

from pathlib import Path

import pytest
from tests.e2e.running_mesh import Mesh, processes_of, started

from minhos_api.market.v1 import market_data_provider_service_pb2 as market_pb
from minhos_api.market.v1.market_data_provider_service_pb2_grpc import MarketDataProviderServiceStub

pytestmark = pytest.mark.timeout(90)


def symbol_of(mesh: Mesh) -> str:
    stub = mesh.stub(MarketDataProviderServiceStub)
    return str(stub.GetMarketData(market_pb.GetMarketDataRequest()).symbol)


def test_two_meshes_run_side_by_side_and_the_end_of_one_leaves_the_other(mesh: Mesh, tmp_path: Path) -> None:
    before = mesh.pids()
    with started(tmp_path / "data", settings={"MINHOS_FEED__ROOT": "ES"}) as other:
        assert other.healthy()
        assert not mesh.ports_seen & other.ports_seen
        assert not set(mesh.pids().values()) & set(other.pids().values())
        assert symbol_of(mesh).startswith("NQ")
        assert symbol_of(other).startswith("ES")
        placed = other.json("order", "place", "buy", "1")
        assert placed["order_id"] not in mesh.ok("orders", "--count", "1000")
        other.down()
        other.assert_nothing_left()
    assert mesh.pids() == before
    assert mesh.healthy()
    assert processes_of(mesh.data_dir)
