"""What a stranger without our code can do: grpcurl and buf against every service of a running mesh."""

from __future__ import annotations

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.e2e.running_mesh import SERVICES, Mesh

from minhos_mesh.runtime.contracts import all_contracts

pytestmark = pytest.mark.timeout(90)

TOOLS = Path(sys.executable).parent


@dataclass(frozen=True)
class Call:
    """One call of a contract and what its answer must hold."""

    method: str
    request: dict[str, Any]
    holds: str


CALLS: dict[str, Call] = {
    "minhos_api.registry.v1.RegistryService": Call("Resolve", {"name": "event_bus"}, "127.0.0.1:"),
    "minhos_api.registry.v1.SupervisorService": Call("StartService", {"service": "event_bus"}, "PHASE_UNCHANGED"),
    "minhos_api.registry.v1.ContractService": Call("GetContract", {"name": "TradingEngine"}, "descriptorSet"),
    "minhos_api.registry.v1.RouteService": Call("ListRoutes", {}, "{"),
    "minhos_api.health.v1.HealthMonitorService": Call("GetMeshHealth", {}, "SERVICE_STATE_HEALTHY"),
    "minhos_api.mesh.v1.ServiceControlService": Call("Describe", {}, "instanceId"),
    "minhos_api.events.v1.EventBusService": Call("ListEvents", {"page_size": 1}, "type.googleapis.com/minhos_api."),
    "minhos_api.events.v1.EventAdminService": Call("GetStats", {}, "published"),
    "minhos_api.market.v1.MarketDataProviderService": Call("GetMarketData", {}, "PROVENANCE_SIMULATED"),
    "minhos_api.market.v1.MarketDataIngestService": Call("IngestTicks", {}, "INVALID_FIELD"),
    "minhos_api.market.v1.HistoryService": Call("GetBars", {"page_size": 1}, "tradingDay"),
    "minhos_api.market.v1.InstrumentService": Call("ResolveSymbol", {"symbol": "NQ"}, '"byRule": true'),
    "minhos_api.sierra.v1.SierraClientService": Call("GetStatus", {}, "SIERRA_FEED_STATE_TAILING"),
    "minhos_api.sierra.v1.SierraSimulatorService": Call("GetStatus", {}, "SIMULATOR_ACTIVITY_"),
    "minhos_api.venue.v1.VenueService": Call("GetVenueStatus", {}, '"accepting": true'),
    "minhos_api.state.v1.StateManagerService": Call("GetState", {}, "systemState"),
    "minhos_api.risk.v1.RiskManagerService": Call("GetRiskLimits", {}, "limits"),
    "minhos_api.brain.v1.AIBrainService": Call("ListSignals", {"page_size": 1}, "progress"),
    "minhos_api.trading.v1.TradingEngineService": Call("GetPerformanceMetrics", {}, "metrics"),
    "minhos_api.trading.v1.OrderService": Call("ListOrders", {"page_size": 1}, "{"),
    "minhos_api.trading.v1.TradingControlService": Call("GetTradingState", {}, '"venue": "paper"'),
}


def tool(name: str) -> str:
    path = TOOLS / name
    if not path.exists():
        pytest.skip(f"{name} is not installed here: it comes with the development dependencies on Linux x86_64")
    return str(path)


def grpcurl(address: str, *arguments: str, options: tuple[str, ...] = ()) -> str:
    done = subprocess.run(
        [tool("grpcurl"), "-plaintext", *options, address, *arguments],
        capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def served(mesh: Mesh) -> dict[str, tuple[str, list[str]]]:
    """Address and contracts of each service."""
    tool("grpcurl")
    return {name: (s.instances[0].address, list(s.contracts)) for name, s in mesh.services().items()}


def test_every_contract_is_served_and_is_called_below(served: dict[str, tuple[str, list[str]]]) -> None:
    assert {contract for _address, contracts in served.values() for contract in contracts} == set(CALLS)
    assert set(CALLS) == set(all_contracts())


@pytest.mark.parametrize("service", sorted(SERVICES))
def test_grpcurl_lists_and_describes_what_a_service_serves(
    served: dict[str, tuple[str, list[str]]], service: str
) -> None:
    address, contracts = served[service]
    listed = set(grpcurl(address, "list").split())
    assert listed - set(contracts) == {
        "grpc.channelz.v1.Channelz",
        "grpc.health.v1.Health",
        "grpc.reflection.v1alpha.ServerReflection",
    }
    assert set(contracts) <= listed
    for contract in contracts:
        described = grpcurl(address, "describe", contract)
        assert all(f"rpc {method} (" in described for method in all_contracts()[contract].methods)


@pytest.mark.parametrize("service", sorted(SERVICES))
def test_grpcurl_calls_every_contract_of_a_service(served: dict[str, tuple[str, list[str]]], service: str) -> None:
    address, contracts = served[service]
    for contract in contracts:
        call = CALLS[contract]
        said = grpcurl(address, f"{contract}/{call.method}", options=("-d", json.dumps(call.request)))
        assert call.holds in said, f"{contract}/{call.method}: {said}"


@pytest.mark.parametrize("service", sorted(SERVICES))
def test_grpc_health_answers_check_and_list(served: dict[str, tuple[str, list[str]]], service: str) -> None:
    address, contracts = served[service]
    for name in ("", *contracts):
        said = grpcurl(address, "grpc.health.v1.Health/Check", options=("-d", json.dumps({"service": name})))
        assert json.loads(said) == {"status": "SERVING"}
    statuses = json.loads(grpcurl(address, "grpc.health.v1.Health/List"))["statuses"]
    assert {name: status["status"] for name, status in statuses.items()} == dict.fromkeys(("", *contracts), "SERVING")
    unknown = grpcurl(address, "grpc.health.v1.Health/Check", options=("-d", '{"service": "nope"}'))
    assert "NotFound" in unknown


def test_grpc_health_watch_begins_with_the_present_state_everywhere(served: dict[str, tuple[str, list[str]]]) -> None:
    def watch(address: str) -> str:
        return grpcurl(address, "grpc.health.v1.Health/Watch", options=("-max-time", "1"))

    with ThreadPoolExecutor(len(served)) as pool:
        said = dict(zip(served, pool.map(watch, [address for address, _contracts in served.values()]), strict=True))
    assert {name: text.count('"status": "SERVING"') for name, text in said.items()} == dict.fromkeys(served, 1)


def test_grpcurl_is_told_what_is_wrong_with_a_request(served: dict[str, tuple[str, list[str]]]) -> None:
    address, _contracts = served["market_data"]
    said = grpcurl(
        address,
        "minhos_api.market.v1.MarketDataProviderService/GetMarketData",
        options=("-d", '{"symbol": "NOPEZ26-CME"}'),
    )
    assert "NotFound" in said
    assert "SYMBOL_UNKNOWN" in said
    assert '"domain":"minhos"' in said


@pytest.mark.parametrize(
    "contract",
    [
        "minhos_api.registry.v1.RegistryService",
        "minhos_api.market.v1.MarketDataProviderService",
        "minhos_api.trading.v1.TradingControlService",
        "minhos_api.risk.v1.RiskManagerService",
    ],
)
def test_buf_curl_calls_by_reflection(served: dict[str, tuple[str, list[str]]], contract: str) -> None:
    address = next(address for address, contracts in served.values() if contract in contracts)
    call = CALLS[contract]
    command = [tool("buf"), "curl", "--protocol", "grpc", "--http2-prior-knowledge", "-d", json.dumps(call.request)]
    done = subprocess.run(
        [*command, f"http://{address}/{contract}/{call.method}"],
        capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert call.holds.replace('": ', '":').replace('"', "") in done.stdout.replace('": ', '":').replace('"', "")
