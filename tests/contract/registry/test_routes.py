"""RouteService through its stub, on a registry with a real store: what is set, refused, brought back and still there later."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import pytest

from minhos_api.mesh.v1 import error_reason_pb2 as reasons
from minhos_api.registry.v1 import registry_service_pb2 as registry_pb
from minhos_api.registry.v1 import registry_service_pb2_grpc as registry_rpc
from minhos_api.registry.v1 import route_service_pb2 as pb
from minhos_api.registry.v1 import route_service_pb2_grpc as rpc
from minhos_mesh.registry.envoy import ADS_METHOD, ADS_SERVICE, EnvoyMessages
from minhos_mesh.registry.xds_resources import EDS
from minhos_mesh.runtime.errors import read

SIMULATOR = "minhos_api.sierra.v1.SierraSimulatorService"
CONTROL = "minhos_api.mesh.v1.ServiceControlService"
GET_STATUS = f"/{SIMULATOR}/GetStatus"
OWN_CONNECTION = (("grpc.use_local_subchannel_pool", 1),)
V2 = pb.InstanceSelector(version="v2")
TENTH = pb.RouteRule(targets=[pb.RouteTarget(selector=V2, percent=10)])
HALF = pb.RouteRule(targets=[pb.RouteTarget(selector=V2, percent=50)])


class Routes:
    """RouteService with the fields that every request needs."""

    def __init__(self, mesh: Any) -> None:
        self._stub: Any = rpc.RouteServiceStub(mesh.channel)
        self._requests = 0

    def _given(self, fields: dict[str, Any]) -> dict[str, Any]:
        self._requests += 1
        return {"request_id": f"r{self._requests}", "actor": "tester", "name": SIMULATOR, **fields}

    async def set(self, rule: pb.RouteRule = TENTH, **fields: Any) -> Any:
        return await self._stub.SetRoute(pb.SetRouteRequest(rule=rule, **self._given(fields)), timeout=5)

    async def delete(self, **fields: Any) -> Any:
        return await self._stub.DeleteRoute(pb.DeleteRouteRequest(**self._given(fields)), timeout=5)

    async def back(self, **fields: Any) -> Any:
        return await self._stub.RollbackRoute(pb.RollbackRouteRequest(**self._given(fields)), timeout=5)

    async def list(self, **fields: Any) -> Any:
        return await self._stub.ListRoutes(pb.ListRoutesRequest(**fields), timeout=5)


async def all_serve(mesh: Any, count: int) -> None:
    """Waits until so many instances of the simulator's contract get calls: the registry derives that a moment later."""
    stub: Any = registry_rpc.RegistryServiceStub(mesh.channel)

    async def serve() -> bool:
        answer = await stub.Resolve(registry_pb.ResolveRequest(name=SIMULATOR), timeout=5)
        return [instance.in_rotation for instance in answer.instances].count(True) == count

    await mesh.eventually(serve, f"{count} in rotation")


async def refused(call: Any) -> tuple[grpc.StatusCode, str, Any]:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    told = read(caught.value)
    return told.code, told.reason.removeprefix("ERROR_REASON_"), told


@pytest.fixture
async def routes(mesh: Any, attach: Callable[..., Any]) -> Routes:
    """Two instances serve: sim-1 of version v1 and sim-2 of version v2."""
    for name, version in (("sim-1", "v1"), ("sim-2", "v2")):
        instance = await attach(
            "sierra_simulator", name, SIMULATOR, version=version, address=f"127.0.0.1:{9 + len(version)}"
        )
        await instance.beat()
    await all_serve(mesh, 2)
    return Routes(mesh)


async def test_a_route_is_set_and_listed_with_who_is_meant(routes: Routes) -> None:
    assert (await routes.list()).routes == []
    answer = await routes.set(reason="try it")
    (route,) = answer.routes
    assert (route.contract, route.current.revision, route.current.actor, route.current.reason) == (
        SIMULATOR, 1, "tester", "try it",
    )  # fmt: skip
    assert route.current.rule == TENTH
    (state,) = route.selectors
    assert (list(state.instances), list(state.serving)) == (["sierra_simulator/sim-2"],) * 2
    listed = await routes.list()
    assert list(listed.routes) == [route]
    assert listed.revision == answer.revision == 1


async def test_a_service_stands_for_all_its_contracts_and_a_short_name_for_one(routes: Routes) -> None:
    assert [route.contract for route in (await routes.set(name="sierra_simulator")).routes] == [SIMULATOR]
    assert [route.contract for route in (await routes.set(HALF, name="SierraSimulatorService")).routes] == [SIMULATOR]
    code, reason, told = await refused(routes.set(name="sierra_simulater"))
    assert (code, reason) == (grpc.StatusCode.NOT_FOUND, "SERVICE_UNKNOWN")
    assert told.metadata["nearest"] == "sierra_simulator"


async def test_a_rollback_brings_the_route_before_back_and_then_none(routes: Routes) -> None:
    await routes.set()
    await routes.set(HALF)
    back = (await routes.back(reason="worse")).routes[0]
    assert (back.current.rule, back.current.restored_revision, back.current.revision) == (TENTH, 1, 3)
    none = (await routes.back()).routes[0]
    assert (none.current.HasField("rule"), none.current.restored_revision) == (False, 0)
    assert (await routes.list()).routes == []
    (known,) = (await routes.list(with_earlier=True)).routes
    assert [each.revision for each in known.earlier] == [3, 2, 1]
    assert (await refused(routes.back()))[:2] == (grpc.StatusCode.NOT_FOUND, "ROUTE_UNKNOWN")
    again = (await routes.back(to_revision=2)).routes[0]
    assert again.current.rule == HALF
    assert (await refused(routes.back(to_revision=99)))[2].metadata == {"contract": SIMULATOR, "revision": "99"}


async def test_a_removed_route_is_gone_and_comes_back(routes: Routes) -> None:
    assert (await refused(routes.delete()))[:2] == (grpc.StatusCode.NOT_FOUND, "ROUTE_UNKNOWN")
    await routes.set()
    assert list((await routes.delete()).contracts) == [SIMULATOR]
    assert (await routes.list()).routes == []
    assert (await routes.back()).routes[0].current.rule == TENTH


async def test_a_route_to_nobody_is_refused_with_the_names_that_there_are(routes: Routes) -> None:
    ghost = pb.RouteRule(targets=[pb.RouteTarget(selector=pb.InstanceSelector(version="v9"), percent=1)])
    code, reason, told = await refused(routes.set(ghost))
    assert (code, reason) == (grpc.StatusCode.FAILED_PRECONDITION, "ROUTE_TARGET_UNKNOWN")
    assert told.metadata["selector"] == "version v9"
    assert told.metadata["known"] == (
        "version v1, version v2, service sierra_simulator, instance sierra_simulator/sim-1,"
        " instance sierra_simulator/sim-2"
    )
    assert (await routes.list()).routes == []


async def test_a_target_that_goes_away_is_told_of_and_its_share_goes_to_the_others(
    mesh: Any, attach: Callable[..., Any]
) -> None:
    stays = await attach("sierra_simulator", "sim-1", SIMULATOR, version="v1")
    goes = await attach("sierra_simulator", "sim-2", SIMULATOR, version="v2", address="127.0.0.1:10")
    await stays.beat()
    await goes.beat()
    await all_serve(mesh, 2)
    routes = Routes(mesh)
    await routes.set()
    goes.call.cancel()
    note = "version v2 has no instance that serves: its 10 % go to the others"

    async def noted() -> bool:
        return [list(route.notes) for route in (await routes.list()).routes] == [[note]]

    await mesh.eventually(noted, "the route is not followed")

    assert not (await mesh.services())["registry"].reasons, "no call is lost by it"
    strict = pb.RouteRule(targets=TENTH.targets, strict=True)
    assert (await refused(routes.set(strict)))[1] == "ROUTE_TARGET_UNKNOWN"
    back = await attach("sierra_simulator", "sim-2", SIMULATOR, version="v2", address="127.0.0.1:10")
    await back.beat()
    await all_serve(mesh, 2)
    await routes.set(strict)
    back.call.cancel()

    async def shown() -> bool:
        told = "SierraSimulatorService: version v2 has no instance that serves: its 10 % wait or fail"
        return told in list((await mesh.services())["registry"].reasons)

    await mesh.eventually(shown, "a strict route that is not followed is trouble")
    await routes.delete()

    async def healthy() -> bool:
        return not (await mesh.services())["registry"].reasons

    await mesh.eventually(healthy, "and no more once the route is gone")


async def test_the_same_request_is_done_once_and_another_under_its_id_is_refused(routes: Routes) -> None:
    first = await routes.set(request_id="mine")
    await routes.set(HALF)
    again = await routes.set(request_id="mine")
    assert again.routes[0].current.rule == HALF, "what came after it is not undone"
    assert first.revision == 1
    code, reason, told = await refused(routes.set(HALF, request_id="mine"))
    assert (code, reason) == (grpc.StatusCode.ALREADY_EXISTS, "REQUEST_CONFLICT")
    assert told.metadata == {"field": "request_id", "request_id": "mine"}
    await routes.back(request_id="back")
    before = await routes.list()
    await routes.back(request_id="back")
    assert await routes.list() == before, "a rollback that is sent twice goes back once"


async def test_a_change_from_an_older_revision_is_refused(routes: Routes) -> None:
    await routes.set(expected_revision=0)
    code, reason, told = await refused(routes.set(HALF, expected_revision=0))
    assert (code, reason) == (grpc.StatusCode.ABORTED, "VERSION_MISMATCH")
    assert told.metadata == {"expected": "0", "current": "1"}
    await routes.set(HALF, expected_revision=1)
    assert (await refused(routes.delete(expected_revision=1)))[1] == "VERSION_MISMATCH"
    assert (await refused(routes.back(expected_revision=1)))[1] == "VERSION_MISMATCH"


def headed(**fields: Any) -> pb.RouteRule:
    return pb.RouteRule(headers=[pb.HeaderRoute(selector=V2, **fields)])


BAD: list[tuple[str, dict[str, Any], str]] = [
    ("nothing", {"rule": pb.RouteRule()}, "rule"),
    ("too much", {"rule": pb.RouteRule(targets=[pb.RouteTarget(selector=V2, percent=101)])}, "rule.targets[0].percent"),
    ("nobody", {"rule": pb.RouteRule(targets=[pb.RouteTarget(percent=1)])}, "rule.targets[0].selector"),
    ("an empty version", {"rule": pb.RouteRule(targets=[pb.RouteTarget(selector=pb.InstanceSelector(version=""))])},
     "rule.targets[0].selector.version"),
    ("twice", {"rule": pb.RouteRule(targets=[pb.RouteTarget(selector=V2), pb.RouteTarget(selector=V2)])},
     "rule.targets[1].selector"),
    ("upper case", {"rule": headed(header="X-Canary", exact="1")}, "rule.headers[0].header"),
    ("gRPC's own", {"rule": headed(header="grpc-timeout", exact="1")}, "rule.headers[0].header"),
    ("binary", {"rule": headed(header="trace-bin", exact="1")}, "rule.headers[0].header"),
    ("no condition", {"rule": headed(header="x")}, "rule.headers[0].match"),
    ("absent", {"rule": headed(header="x", present=False)}, "rule.headers[0].present"),
    ("no id", {"request_id": ""}, "request_id"),
    ("nobody's change", {"actor": ""}, "actor"),
]  # fmt: skip


@pytest.mark.parametrize(("_name", "fields", "field"), BAD, ids=[row[0] for row in BAD])
async def test_what_cannot_be_meant_is_refused_by_field(
    _name: str, fields: dict[str, Any], field: str, routes: Routes
) -> None:
    code, reason, told = await refused(routes.set(**fields))
    assert (code, reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD")
    assert [violation.field for violation in told.violations] == [field]
    assert (await routes.list()).routes == []


async def test_shares_above_all_calls_are_refused(routes: Routes) -> None:
    shares = [(V2, 60), (pb.InstanceSelector(version="v1"), 50)]
    rule = pb.RouteRule(targets=[pb.RouteTarget(selector=s, percent=p) for s, p in shares])
    _code, _reason, told = await refused(routes.set(rule))
    assert told.metadata == {
        "field": "rule.targets", "seen": "60 + 50 = 110 percent", "allowed": "at most 100 percent together",
    }  # fmt: skip


async def test_routes_are_listed_in_pages(mesh: Any, attach: Callable[..., Any]) -> None:
    both = await attach("sierra_simulator", "sim-1", SIMULATOR, CONTROL, version="v2")
    await both.beat()
    routes = Routes(mesh)
    await routes.set()
    await routes.set(name=CONTROL)
    first = await routes.list(page_size=1)
    second = await routes.list(page_size=1, page_token=first.next_page_token)
    assert [route.contract for page in (first, second) for route in page.routes] == [CONTROL, SIMULATOR]
    assert second.next_page_token == ""


async def test_a_route_outlives_the_registry(new_registry: Any, tmp_path: Path) -> None:
    registry = new_registry(tmp_path / "mesh")
    await registry.start()
    instance = registry.stream()
    await instance.say(hello=registry.hello("sierra_simulator", "sim-1", SIMULATOR, version="v2"))
    await instance.heard()
    await Routes(registry).set()
    await Routes(registry).set(HALF, request_id="second")
    await registry.stop()
    again = new_registry(tmp_path / "mesh")
    await again.start()
    (route,) = (await Routes(again).list(with_earlier=True)).routes
    assert (route.current.rule, [each.rule for each in route.earlier]) == (HALF, [TENTH])
    back = await Routes(again).back(request_id="back")
    assert (back.routes[0].current.rule, back.revision) == (TENTH, 3)
    assert (await Routes(again).set(HALF, request_id="second")).routes[0].current.rule == TENTH, (
        "done before the restart"
    )
    await again.stop()


async def test_traffic_can_move_from_one_service_to_another_that_serves_the_same(
    mesh: Any, attach: Callable[..., Any]
) -> None:
    for service, port in (("legacy_bridge", 9), ("sierra_simulator", 10)):
        instance = await attach(service, f"{service}-1", SIMULATOR, address=f"127.0.0.1:{port}")
        await instance.beat()
    await all_serve(mesh, 2)
    routes = Routes(mesh)
    new = pb.InstanceSelector(service="sierra_simulator")
    rule = pb.RouteRule(targets=[pb.RouteTarget(selector=new, percent=10)])
    (route,) = (await routes.set(rule, name="sierra_simulator")).routes
    assert [list(state.serving) for state in route.selectors] == [["sierra_simulator/sierra_simulator-1"]]
    assert list(route.notes) == []
    back = (await routes.back()).routes[0]
    assert not back.current.HasField("rule")


async def test_zone_and_priority_of_an_instance_reach_the_clients_that_ask(
    mesh: Any, attach: Callable[..., Any]
) -> None:
    for port, fields in ((11, {"zone": "east"}), (12, {"zone": "west"}), (13, {"zone": "east", "priority": 1})):
        instance = await attach("sierra_simulator", f"sim-{port}", SIMULATOR, address=f"127.0.0.1:{port}", **fields)
        await instance.beat()
    envoy = EnvoyMessages.from_file()
    tables: Any = envoy.message_class("envoy.config.endpoint.v3.ClusterLoadAssignment")

    async def seen_from(zone: str) -> list[list[int]]:
        call: Any = mesh.channel.stream_stream(
            f"/{ADS_SERVICE}/{ADS_METHOD}", None, envoy.discovery_response.FromString
        )()
        node = {"id": "by-hand", "locality": {"zone": zone}}
        request = envoy.discovery_request(type_url=EDS, resource_names=[SIMULATOR], node=node)
        await call.write(request.SerializeToString())
        answer = await call.read()
        call.cancel()
        table = tables.FromString(answer.resources[0].value)
        assert [each.priority for each in table.endpoints] == list(range(len(table.endpoints)))
        return [[e.endpoint.address.socket_address.port_value for e in each.lb_endpoints] for each in table.endpoints]

    async def east() -> bool:
        return await seen_from("east") == [[11], [12], [13]]

    await mesh.eventually(east, "all three are told")
    assert await seen_from("west") == [[12], [11], [13]]
    assert await seen_from("nowhere") == [[11, 12], [13]]


async def test_a_route_holds_while_the_registry_is_killed_and_no_call_fails(processes: Any) -> None:
    registry, address = await processes.registry()
    for name in ("sim-1", "sim-2"):
        await asyncio.to_thread(processes.service, address, "sierra_simulator", name, SIMULATOR)
    client = await asyncio.to_thread(processes.caller, address)
    for name in ("sim-1", "sim-2"):
        assert (await client.ask("until", path=GET_STATUS, wanted=name, limit=10))["at"] is not None
    only = pb.RouteRule(
        targets=[pb.RouteTarget(selector=pb.InstanceSelector(instance="sierra_simulator/sim-2"), percent=100)]
    )
    async with grpc.aio.insecure_channel(address, options=OWN_CONNECTION) as channel:
        request = pb.SetRouteRequest(request_id="r", name=SIMULATOR, rule=only, actor="tester")
        await rpc.RouteServiceStub(channel).SetRoute(request, timeout=5)
    await client.ask("until", path=GET_STATUS, wanted="sim-2", limit=5)
    await asyncio.sleep(0.1)
    await client.ask("start", path=GET_STATUS, timeout=3.0, wait=False)
    await asyncio.sleep(0.2)
    registry.kill()
    await asyncio.to_thread(registry.wait)
    await processes.registry()
    await asyncio.sleep(2.0)  # longer than a lease, so that all have attached again
    report = await client.ask("stop")
    assert set(report["by"]) == {"sim-2"}, report["by"]


def test_every_reason_of_a_route_is_in_the_catalogue() -> None:
    names = set(reasons.ErrorReason.keys())
    assert {"ERROR_REASON_ROUTE_TARGET_UNKNOWN", "ERROR_REASON_ROUTE_UNKNOWN"} <= names
