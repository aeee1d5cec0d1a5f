"""Discovery as a stock gRPC client sees it: services in processes of their own that are killed, frozen and restarted."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc
import pytest
from tests.waiting import freeze, thaw

from minhos_mesh.registry.ads import AggregatedDiscovery
from minhos_mesh.registry.envoy import ADS_METHOD, ADS_SERVICE, EnvoyMessages
from minhos_mesh.registry.xds_resources import CDS, LDS, RDS

SIMULATOR = "minhos_api.sierra.v1.SierraSimulatorService"
GET_STATUS = f"/{SIMULATOR}/GetStatus"
RISK = "minhos_api.risk.v1.RiskManagerService"


def discovery_of(mesh: Any) -> AggregatedDiscovery:
    found = mesh.parts.handlers[0]._method_handlers[f"/{ADS_SERVICE}/{ADS_METHOD}"].stream_stream.__self__
    assert isinstance(found, AggregatedDiscovery)
    return found


async def simulator(mesh: Any, processes: Any, instance_id: str) -> Any:
    """A running instance that is in rotation."""
    # In a thread: the registry lives in this process and must not stand still while another one starts.
    process = await asyncio.to_thread(processes.service, mesh.address, "sierra_simulator", instance_id, SIMULATOR)

    async def there() -> bool:
        found = (await mesh.services())["sierra_simulator"].instances
        return any(instance.instance_id == instance_id and instance.in_rotation for instance in found)

    await mesh.eventually(there, f"{instance_id} is in rotation")
    return process


async def call(
    client: Any, path: str = GET_STATUS, *, n: int = 1, timeout: float = 3.0, wait: bool = False
) -> list[Any]:
    found = await client.ask("call", path=path, n=n, timeout=timeout, wait=wait)
    assert isinstance(found, list)
    return found


async def test_a_stock_client_resolves_and_calls_two_instances_in_turn(mesh: Any, processes: Any) -> None:
    await simulator(mesh, processes, "sim-1")
    await simulator(mesh, processes, "sim-2")
    client = await asyncio.to_thread(processes.caller, mesh.address)
    await client.ask("until", path=GET_STATUS, wanted="sim-1", limit=5)
    await client.ask("until", path=GET_STATUS, wanted="sim-2", limit=5)
    by = [who for who, _took in await call(client, n=40)]
    assert (by.count("sim-1"), by.count("sim-2")) == (20, 20)
    assert discovery_of(mesh).stats().refused == 0


async def test_a_new_instance_is_used_and_a_leaving_one_is_not_at_once(mesh: Any, processes: Any) -> None:
    await simulator(mesh, processes, "sim-1")
    client = await asyncio.to_thread(processes.caller, mesh.address)
    await call(client)
    for number in range(2, 6):
        process = await simulator(mesh, processes, f"sim-{number}")
        found = await client.ask("until", path=GET_STATUS, wanted=f"sim-{number}", limit=5)
        assert found["at"] is not None
        await client.ask("start", path=GET_STATUS, timeout=3.0, wait=True)
        await asyncio.sleep(0.1)
        process.send_signal(signal.SIGTERM)
        await asyncio.to_thread(process.wait, 10)
        report = await client.ask("stop")
        assert not [who for who in report["by"] if not who.startswith("sim-")], report


async def test_no_call_fails_when_one_of_two_instances_is_killed(mesh: Any, processes: Any) -> None:
    await simulator(mesh, processes, "sim-1")
    victim = await simulator(mesh, processes, "sim-2")
    client = await asyncio.to_thread(processes.caller, mesh.address)
    await client.ask("until", path=GET_STATUS, wanted="sim-2", limit=5)
    await client.ask("start", path=GET_STATUS, timeout=3.0, wait=False)
    await asyncio.sleep(0.2)
    victim.kill()
    killed_at = time.monotonic()
    await asyncio.sleep(0.5)
    report = await client.ask("stop")
    failed = {who: at for who, at in report["last"].items() if not who.startswith("sim-")}
    assert not failed, f"a method that is safe to retry failed: {failed}"
    assert report["last"]["sim-1"] > killed_at
    assert report["by"]["sim-2"] > 0


async def test_a_frozen_instance_leaves_rotation_by_its_lease(mesh: Any, processes: Any) -> None:
    await simulator(mesh, processes, "sim-1")
    frozen = await simulator(mesh, processes, "sim-2")
    client = await asyncio.to_thread(processes.caller, mesh.address)
    await client.ask("until", path=GET_STATUS, wanted="sim-2", limit=5)
    await asyncio.to_thread(freeze, frozen.pid)

    async def out() -> bool:
        found = (await mesh.services())["sierra_simulator"].instances
        return not any(instance.instance_id == "sim-2" and instance.in_rotation for instance in found)

    await mesh.eventually(out, "out of rotation")
    answers = await call(client, n=30, timeout=1.0)
    assert {who for who, _took in answers[2:]} == {"sim-1"}
    thaw(frozen.pid)
    found = await client.ask("until", path=GET_STATUS, wanted="sim-2", limit=8)
    assert found["at"] is not None, "it comes back by itself"


async def test_a_contract_that_nobody_serves_fails_at_once_even_for_those_who_wait(mesh: Any, processes: Any) -> None:
    client = await asyncio.to_thread(processes.caller, mesh.address)
    for path in (f"/{RISK}/GetRiskMetrics", "/minhos_api.ghost.v1.GhostService/Boo"):
        for wait in (False, True):
            ((who, _took),) = await call(client, path, wait=wait, timeout=10.0)
            assert who.startswith("UNAVAILABLE: No matching route found"), who


async def test_a_name_that_becomes_known_later_is_served_then(mesh: Any, processes: Any) -> None:
    client = await asyncio.to_thread(processes.caller, mesh.address)
    ((who, _took),) = await call(client)
    assert who.startswith("UNAVAILABLE")
    await simulator(mesh, processes, "sim-1")
    found = await client.ask("until", path=GET_STATUS, wanted="sim-1", limit=5)
    assert found["at"] is not None


async def test_calls_wait_while_a_lost_service_may_come_back(mesh: Any, processes: Any) -> None:
    victim = await simulator(mesh, processes, "sim-1")
    client = await asyncio.to_thread(processes.caller, mesh.address)
    await call(client)
    await client.ask("start", path=GET_STATUS, timeout=8.0, wait=True)
    await asyncio.sleep(0.2)
    victim.kill()
    await asyncio.sleep(0.3)
    await simulator(mesh, processes, "sim-2")
    await asyncio.sleep(0.3)
    report = await client.ask("stop")
    assert set(report["by"]) == {"sim-1", "sim-2"}, report


async def test_a_registry_that_is_killed_and_restarted_fails_no_call(processes: Any) -> None:
    registry, address = await processes.registry()
    processes.service(address, "sierra_simulator", "sim-1", SIMULATOR)
    processes.service(address, "sierra_simulator", "sim-2", SIMULATOR)
    client = processes.caller(address)
    for name in ("sim-1", "sim-2"):
        assert (await client.ask("until", path=GET_STATUS, wanted=name, limit=10))["at"] is not None
    await client.ask("start", path=GET_STATUS, timeout=3.0, wait=False)
    for pause_s in (0.3, 3.5):  # the second is longer than a recovered lease: it has had to prove itself
        registry.kill()
        await asyncio.to_thread(registry.wait)
        registry, again = await processes.registry()
        assert again == address
        await asyncio.sleep(pause_s)
    report = await client.ask("stop")
    assert set(report["by"]) == {"sim-1", "sim-2"}, report
    assert min(report["by"].values()) > 100


async def test_a_registry_that_comes_back_drops_an_instance_that_died_meanwhile(processes: Any) -> None:
    registry, address = await processes.registry()
    victim = processes.service(address, "sierra_simulator", "sim-1", SIMULATOR)
    processes.service(address, "sierra_simulator", "sim-2", SIMULATOR)
    client = processes.caller(address)
    for name in ("sim-1", "sim-2"):
        assert (await client.ask("until", path=GET_STATUS, wanted=name, limit=10))["at"] is not None
    registry.kill()
    await asyncio.to_thread(registry.wait)
    victim.kill()
    await asyncio.to_thread(victim.wait)
    _registry, _address = await processes.registry()
    fresh = processes.caller(address)
    answers = await call(fresh, n=20, wait=True)
    assert {who for who, _took in answers} == {"sim-2"}


# The stream itself.


class Stream:
    """A discovery stream written by hand."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        messages = EnvoyMessages.from_file()
        self.request = messages.discovery_request
        self.call: Any = channel.stream_stream(
            f"/{ADS_SERVICE}/{ADS_METHOD}",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=messages.discovery_response.FromString,
        )()

    async def ask(self, type_url: str, *names: str, to: Any = None, error: str | None = None) -> None:
        fields: dict[str, Any] = {"type_url": type_url, "resource_names": names, "node": {"id": "by-hand"}}
        if to is not None:
            fields.update(response_nonce=to.nonce, version_info="" if error else to.version_info)
        if error is not None:
            fields["error_detail"] = {"code": 3, "message": error}
        await self.call.write(self.request(**fields))

    async def heard(self) -> Any:
        async with asyncio.timeout(5):
            return await self.call.read()

    async def silent(self) -> bool:
        try:
            async with asyncio.timeout(0.3):
                await self.call.read()
        except TimeoutError:
            return True
        return False


@pytest.fixture
async def stream(mesh: Any) -> AsyncIterator[Stream]:
    made = Stream(mesh.channel)
    yield made
    made.call.cancel()


async def test_a_refusal_is_counted_logged_and_shown_and_the_rest_is_sent_again(mesh: Any, stream: Stream) -> None:
    await stream.ask(CDS, SIMULATOR, RISK)
    first = await stream.heard()
    assert len(first.resources) == 2
    await stream.ask(CDS, SIMULATOR, RISK, to=first, error=f"{RISK}: LB policy not supported")
    second = await stream.heard()
    assert len(second.resources) == 1
    await stream.ask(CDS, SIMULATOR, RISK, to=second)
    discovery = discovery_of(mesh)
    await mesh.eventually(lambda: discovery.stats().acknowledged == 1, "acknowledged")
    assert discovery.stats().refused == 1
    (refused,) = discovery.refusals()
    assert (refused.client, refused.refusal.names) == ("by-hand", (RISK,))
    assert refused.refusal.text == f"{RISK}: LB policy not supported"
    health = (await mesh.services())["registry"]
    assert list(health.reasons) == [
        f"by-hand does not take {RISK} ({RISK}: LB policy not supported); 1 refused since the registry started"
    ]
    stream.call.cancel()

    async def healthy() -> bool:
        return not (await mesh.services())["registry"].reasons

    await mesh.eventually(healthy, "the client that refused is gone")


async def test_only_changes_are_pushed_and_a_contract_that_gets_served_gets_its_route(
    mesh: Any, stream: Stream, attach: Callable[..., Any]
) -> None:
    await stream.ask(LDS, SIMULATOR)
    await stream.ask(LDS, SIMULATOR, to=await stream.heard())
    await stream.ask(RDS, SIMULATOR)
    response = await stream.heard()
    await stream.ask(RDS, SIMULATOR, to=response)
    routes = EnvoyMessages.from_file().message_class("envoy.config.route.v3.RouteConfiguration")
    table: Any = routes.FromString(response.resources[0].value)
    assert list(table.virtual_hosts[0].routes) == []
    instance = await attach("sierra_simulator", "sim-1", SIMULATOR)
    await instance.beat()
    push = await stream.heard()
    assert push.type_url == RDS
    table = routes.FromString(push.resources[0].value)
    paths = {route.match.path for route in table.virtual_hosts[0].routes}
    assert GET_STATUS in paths


async def test_a_client_that_asks_for_too_much_is_told(stream: Stream) -> None:
    await stream.ask(LDS, *(f"n{number}" for number in range(2_001)))
    with pytest.raises(grpc.aio.AioRpcError, match="2001 names, allowed are 2000") as caught:
        await stream.heard()
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_a_type_that_is_not_served_and_a_stale_answer_are_ignored(stream: Stream) -> None:
    await stream.ask("type.googleapis.com/envoy.config.runtime.v3.Runtime", "x")
    await stream.ask(LDS, "x")
    response = await stream.heard()
    response.nonce = "0"
    await stream.ask(LDS, "x", "y", to=response)
    assert await stream.silent()


async def test_nothing_is_answered_before_the_endpoints_were_loaded_and_probed() -> None:
    discovery = AggregatedDiscovery(EnvoyMessages.from_file(), generation="g")
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((discovery.handler(),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        stream = Stream(channel)
        await stream.ask(LDS, "x")
        reading = asyncio.ensure_future(stream.heard())
        await asyncio.sleep(0.2)
        assert not reading.done()
        discovery.open()
        assert len((await reading).resources) == 1
        discovery.close()
        with pytest.raises(grpc.aio.AioRpcError, match="the registry is stopping"):
            await stream.heard()
    await server.stop(0)
