"""The bridge as clients of SierraClientService see it, from the configuration on."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from grpclib.client import Channel
from tests.contract.sierra.sierra_mesh import CLIENT, INGEST, MarketData
from tests.unit.sierra_client.fake_bridge import FakeBridge
from tests.waiting import eventually

from minhos_api.market.v1 import provenance_pb2, tick_pb2
from minhos_api.sierra.v1 import sierra_client_service_pb2 as pb2
from minhos_api.sierra.v1.sierra_client_service_pb2_grpc import SierraClientServiceStub
from minhos_dataclasses.sierra import v1 as dataclasses
from minhos_mesh.registry.domain.actions import ACTIONS
from minhos_mesh.runtime.clients import Clients
from minhos_mesh.runtime.config import ConfigError, load
from minhos_mesh.runtime.context import ServiceContext
from minhos_mesh.runtime.paths import MeshPaths
from minhos_mesh.runtime.server import MeshServer
from minhos_mesh.sierra_client.bootstrap import build

NQ, ES = "NQZ26-CME", "ESZ26-CME"


class Served:
    """A Sierra client that reads a bridge, and the market data that takes its ticks."""

    def __init__(self, folder: Path) -> None:
        self.paths = MeshPaths(folder)
        self.paths.create()
        self.market = MarketData()
        self._stack = contextlib.AsyncExitStack()

    async def start(self, bridge: dict[str, Any]) -> None:
        overrides = {
            "market_data": {"symbols": [NQ, ES]},
            "feed": {"kind": "none"},
            "bridge": {"silent_s": 0.5, **bridge},
        }
        config = load(None, environment={}, overrides=overrides).resolved(datetime.now(UTC))
        market = await self._stack.enter_async_context(MeshServer([self.market]))
        clients = Clients({INGEST: market.address})
        self._stack.push_async_callback(clients.close)
        self.context = ServiceContext("sierra_client", "sierra_client-1", config, self.paths, clients)
        parts = await self._stack.enter_async_context(build(self.context))
        self._stack.push_async_callback(self.context.tasks.close)
        self.server = await self._stack.enter_async_context(MeshServer(parts.servicers, errors=parts.errors))
        await parts.start()
        own = Clients({CLIENT: self.server.address})
        self._stack.push_async_callback(own.close)
        self.stub: Any = own.stub(SierraClientServiceStub)

    async def stop(self) -> None:
        await self._stack.aclose()

    async def status(self) -> pb2.SierraStatus:
        found = (await self.stub.GetStatus(pb2.GetStatusRequest())).status
        assert isinstance(found, pb2.SierraStatus)
        return found

    async def bridge(self) -> pb2.SierraBridgeStatus:
        return (await self.status()).bridge


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[Served]:
    found = Served(tmp_path / "mesh")
    yield found
    await found.stop()


async def test_prices_of_the_bridge_are_delayed_ticks_without_a_size(served: Served) -> None:
    async with FakeBridge().running() as bridge:
        bridge.set(NQ, 23500.25)
        await served.start({"address": bridge.address, "symbols": [NQ], "provenance": "DELAYED"})

        async def read() -> bool:
            return (await served.bridge()).quotes_read > 0

        await eventually(read, "a quote was read")
        bridge.set(NQ, 23500.5)
        await eventually(lambda: served.market.newest, "market data has a tick")
        (tick,) = served.market.newest
        assert (tick.price_e9, tick.kind) == (23_500_500_000_000, tick_pb2.TICK_KIND_TRADE)
        assert tick.flags == tick_pb2.TICK_FLAG_HAS_PRICE
        (opened,) = served.market.opens
        assert (opened.source, opened.symbol) == (f"sierra_client:bridge/{NQ}.scid", NQ)
        assert opened.provenance == provenance_pb2.PROVENANCE_DELAYED

        async def reported() -> bool:
            return (await served.status()).feeds[-1].records_acknowledged == 1

        await eventually(reported, "the tick is acknowledged")
        status = await served.status()
        assert [(feed.symbol, feed.state) for feed in status.feeds] == [
            (ES, pb2.SIERRA_FEED_STATE_WAITING_FOR_FILE),
            (NQ, pb2.SIERRA_FEED_STATE_TAILING),
        ]
        told = status.bridge
        assert (told.address, told.state) == (bridge.address, pb2.SIERRA_BRIDGE_STATE_STREAMING)
        assert (told.way, told.reason, told.dialect) == (pb2.SIERRA_BRIDGE_WAY_MARKET_DATA, "", "price")
        assert (told.version, told.ticks_written, list(told.symbols_offered)) == ("3.1.0", 1, [NQ])
        assert told.trade_status == pb2.SIERRA_BRIDGE_TRADE_STATUS_INVENTED
        assert "FILLED at 18000" in told.trade_status_reason
        assert told.quote_time.ToNanoseconds() >= tick.event_time_ns
        assert {method for method, _ in bridge.asked} == {"GET"}
        host, port = served.server.address.rsplit(":", 1)
        async with Channel(host, int(port)) as channel:
            other = await dataclasses.SierraClientServiceStub(channel).get_status(dataclasses.GetStatusRequest())
        assert other.status.bridge.trade_status_reason == told.trade_status_reason


async def test_a_bridge_that_is_away_is_a_condition_with_an_action_until_it_is_back(served: Served) -> None:
    bridge = FakeBridge()
    async with bridge.running():
        pass
    await served.start({"address": bridge.address})
    held = served.context.conditions.held
    await eventually(
        lambda: "cannot be reached: Connection refused" in held().get("BRIDGE_UNREACHABLE", ""), "the condition is held"
    )
    assert (await served.bridge()).state == pb2.SIERRA_BRIDGE_STATE_DISCONNECTED
    assert {"BRIDGE_UNREACHABLE", "BRIDGE_SILENT"} <= set(ACTIONS)
    assert [feed.symbol for feed in (await served.status()).feeds] == [ES, NQ]
    async with bridge.running():
        bridge.set(NQ, 23500.25)
        await eventually(lambda: held() == {}, "the condition is over", within_s=20)


@pytest.mark.parametrize(
    ("bridge", "others", "words"),
    [
        ({"address": "here"}, {}, "bridge.address: allowed is host:port such as 192.168.1.20:8765, seen 'here'"),
        ({"address": "h:1", "provenance": "LIVE"}, {}, "bridge.provenance"),
        ({"address": "h:1", "symbols": ["YMZ26-CBOT"]}, {}, "bridge.symbols names 'YMZ26-CBOT'"),
        ({"address": "h:1"}, {"feed": {"kind": "simulated"}}, 'feed.kind is "simulated" and bridge.symbols is empty'),
        ({"address": "h:1", "poll_s": 0.1}, {}, "bridge.poll_s"),
    ],
)
def test_a_wrong_configuration_is_refused_in_words(bridge: dict[str, Any], others: dict[str, Any], words: str) -> None:
    overrides = {"market_data": {"symbols": [NQ]}, "feed": {"kind": "none"}, "bridge": bridge, **others}
    with pytest.raises(ConfigError) as raised:
        load(None, environment={}, overrides=overrides)
    assert words in str(raised.value)


def test_without_a_bridge_nothing_of_it_is_loaded() -> None:
    import subprocess
    import sys

    code = "import sys; import minhos_mesh.sierra_client.bootstrap; sys.exit('aiohttp' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=30).returncode == 0
