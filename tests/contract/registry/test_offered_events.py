"""Event types that instances bring: told with their descriptors to who asks, as long as the instance is attached."""

from __future__ import annotations

from typing import Any

import grpc
import pytest
from tests.contract.event_bus.own_types import OWN_CONTRACT, descriptors

from minhos_api.registry.v1 import contract_service_pb2 as pb
from minhos_api.registry.v1 import contract_service_pb2_grpc as rpc
from minhos_api.registry.v1.registry_service_pb2 import AttachHello
from minhos_mesh.compatibility.descriptors import resolve
from minhos_mesh.runtime.contracts import built_with

ENGINE = "minhos_api.trading.v1.TradingEngineService"


@pytest.fixture
def contracts(mesh: Any) -> rpc.ContractServiceAsyncStub:
    channel: grpc.aio.Channel = mesh.channel
    return rpc.ContractServiceStub(channel)


async def test_what_an_instance_brought_is_told_once_and_what_the_mesh_has_is_not(
    mesh: Any, attach: Any, contracts: rpc.ContractServiceAsyncStub
) -> None:
    await attach("trading_engine", "engine-1", ENGINE, descriptor_set=built_with([ENGINE]))
    assert not (await contracts.ListOfferedEvents(pb.ListOfferedEventsRequest())).offers
    stream = mesh.stream()
    hello = AttachHello(
        service="weather",
        instance_id="weather-1",
        address="127.0.0.1:9",
        contracts=[OWN_CONTRACT],
        descriptor_set=descriptors(),
    )
    await stream.say(hello=hello)
    assert (await stream.heard()).HasField("granted")
    (offer,) = (await contracts.ListOfferedEvents(pb.ListOfferedEventsRequest())).offers
    assert list(offer.instances) == ["weather/weather-1"]
    assert [(each.type, each.version, each.payload) for each in offer.events] == [
        ("weather.measured", 1, "acme.v1.Measured")
    ]
    assert "acme.v1.Measured" in resolve(offer.descriptor_set).symbols.messages
    again = pb.ListOfferedEventsRequest(known_builds=[offer.build])
    (known,) = (await contracts.ListOfferedEvents(again)).offers
    assert known.descriptor_set == b""
    assert known.events == offer.events
