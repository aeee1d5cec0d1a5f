"""What contracts say about themselves is read from them, and nowhere else."""

from __future__ import annotations

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool

from minhos_api.trading.v1 import trading_events_pb2
from minhos_mesh.runtime.contracts import (
    all_contracts,
    contract,
    descriptor_set,
    event_catalogue,
    event_of,
    load_all,
)

RISK = "minhos_api.risk.v1.RiskManagerService"
STATE = "minhos_api.state.v1.StateManagerService"
BUS = "minhos_api.events.v1.EventBusService"


def test_state_manager_says_what_it_needs_publishes_and_consumes() -> None:
    found = all_contracts()[STATE]
    assert (found.short_name, found.interface) == ("StateManagerService", "IStateManager")
    assert [(need.contract, need.required) for need in found.needs] == [(BUS, True)]
    assert found.publishes == ("state.changed",)
    assert "trade.executed" in found.consumes
    assert contract(STATE) == found


def test_method_says_deadline_access_and_safety() -> None:
    get, update, watch = (contract(STATE).methods[name] for name in ("GetState", "UpdateState", "WatchState"))
    assert get.path == f"/{STATE}/GetState"
    assert (get.timeout_s, get.heartbeat_s, get.access, get.retry_safe) == (1.0, None, "READ", True)
    assert (update.timeout_s, update.access, update.retry_safe) == (2.0, "OPERATE", True)
    assert (watch.timeout_s, watch.heartbeat_s) == (None, 5.0)
    assert (watch.request_streaming, watch.response_streaming) == (False, True)


@pytest.mark.parametrize("name", sorted(all_contracts()))
def test_every_method_has_an_access_and_a_bound_on_silence(name: str) -> None:
    for method in all_contracts()[name].methods.values():
        assert method.access in {"READ", "TRADE", "OPERATE", "MESH"}, method.path
        assert (method.timeout_s is None) != (method.heartbeat_s is None), method.path
        assert method.response_streaming or method.timeout_s is not None, method.path


@pytest.mark.parametrize("name", sorted(all_contracts()))
def test_what_a_contract_names_exists(name: str) -> None:
    found = all_contracts()[name]
    assert {need.contract for need in found.needs} <= all_contracts().keys()
    assert {*found.publishes, *found.consumes} <= event_catalogue().keys()


def test_unknown_contract_is_a_key_error() -> None:
    with pytest.raises(KeyError):
        contract("minhos_api.risk.v1.RiskMangerService")


def test_catalogue_holds_every_event_by_its_payload() -> None:
    found = event_of(trading_events_pb2.TradeExecuted.DESCRIPTOR)
    assert found is not None
    assert (found.type, found.version) == ("trade.executed", 1)
    assert event_catalogue()["trade.executed"] == found
    assert event_of(trading_events_pb2.TradeExecuted.DESCRIPTOR.fields_by_name["fill"].message_type) is None


def test_all_modules_are_loaded_once_in_order_of_name() -> None:
    names = [str(file.name) for file in load_all()]
    assert names == sorted(names)
    assert load_all() is load_all()
    assert "minhos_api/events/v1/event_bus_service.proto" in names


def test_descriptor_set_stands_alone_with_dependencies_first() -> None:
    files = descriptor_pb2.FileDescriptorSet.FromString(descriptor_set([RISK, STATE]))
    pool, seen = descriptor_pool.DescriptorPool(), set[str]()
    for file in files.file:
        assert set(file.dependency) <= seen, file.name
        assert file.name not in seen
        pool.Add(file)
        seen.add(file.name)
    assert {str(method.name) for method in pool.FindServiceByName(STATE).methods} >= {"GetState", "UpdateState"}
    assert descriptor_set([RISK, STATE]) == descriptor_set([RISK, STATE])
