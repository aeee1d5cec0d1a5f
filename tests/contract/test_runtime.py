"""What every service stands on, as a caller sees it: whole contracts, health, reflection, rules, errors, deadlines, one port."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_channelz.v1 import channelz_pb2, channelz_pb2_grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from minhos_api.mesh.v1 import error_reason_pb2 as reasons
from minhos_api.registry.v1 import registry_service_pb2 as registry_pb
from minhos_api.registry.v1.registry_service_pb2_grpc import RegistryServiceServicer, RegistryServiceStub
from minhos_api.state.v1 import state_manager_service_pb2 as pb
from minhos_api.state.v1.state_manager_service_pb2_grpc import StateManagerServiceServicer, StateManagerServiceStub
from minhos_mesh.runtime import interceptors, log
from minhos_mesh.runtime.clients import Clients
from minhos_mesh.runtime.contracts import all_contracts, contract
from minhos_mesh.runtime.errors import CallError, ErrorRow, MeshError, read
from minhos_mesh.runtime.interceptors import checks_requests_itself
from minhos_mesh.runtime.server import BindError, ContractViolation, MeshServer

STATE = "minhos_api.state.v1.StateManagerService"
REGISTRY = "minhos_api.registry.v1.RegistryService"
SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING


# The stubs of these packages leave their asynchronous side without types.
health_stub: Any = health_pb2_grpc.HealthStub
health_list_request: Any = vars(health_pb2)["HealthListRequest"]
reflection_stub: Any = reflection_pb2_grpc.ServerReflectionStub
channelz_stub: Any = channelz_pb2_grpc.ChannelzStub
new_reflection_request: Any = reflection_pb2.ServerReflectionRequest


async def unexpected(_self: Any, _request: Any, _context: Any) -> Any:
    raise AssertionError("this method is not called by the test")


def whole(base: type, contract_name: str, **methods: Callable[..., Any]) -> Any:
    """A servicer that serves every RPC of a contract, those of the test by its functions `(request, context)`."""
    served: dict[str, Any] = dict.fromkeys(contract(contract_name).methods, unexpected)
    for name, function in methods.items():
        served[name] = _method(function)
    return type("FakeServicer", (base,), served)()


def _method(function: Callable[..., Any]) -> Any:
    def method(_self: Any, request: Any, context: Any) -> Any:
        return function(request, context)

    method.__dict__.update(vars(function))
    return method


def state_servicer(**methods: Callable[..., Any]) -> Any:
    return whole(StateManagerServiceServicer, STATE, **methods)


@asynccontextmanager
async def serving(servicer: Any, **options: Any) -> AsyncIterator[tuple[MeshServer, grpc.aio.Channel]]:
    async with (
        MeshServer([servicer], **options) as server,
        grpc.aio.insecure_channel(server.address, options=(("grpc.use_local_subchannel_pool", 1),)) as channel,
    ):
        yield server, channel


async def refusal(call: Awaitable[Any]) -> CallError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        async with asyncio.timeout(10):
            await call
    return read(caught.value)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.002)


# Contracts are served whole.


async def test_missing_method_is_named_before_anyone_can_call_it() -> None:
    half: Any = type("Half", (StateManagerServiceServicer,), {"GetState": unexpected})
    with pytest.raises(ContractViolation) as caught:
        MeshServer([half()])
    assert caught.value.contract == STATE
    assert caught.value.missing == ("UpdateState", "WatchState", "GetPortfolio", "ListTrades", "ListAuditEntries")
    assert str(caught.value).startswith(f"Half does not serve {STATE} whole: UpdateState, WatchState")


async def test_misspelt_method_does_not_count() -> None:
    served = dict.fromkeys(contract(STATE).methods, unexpected)
    served["GetPortolio"] = served.pop("GetPortfolio")
    with pytest.raises(ContractViolation, match="GetPortfolio missing"):
        MeshServer([type("Misspelt", (StateManagerServiceServicer,), served)()])


async def test_method_of_a_parent_counts() -> None:
    parent = type("Parent", (StateManagerServiceServicer,), dict.fromkeys(contract(STATE).methods, unexpected))
    assert MeshServer([type("Child", (parent,), {})()]).contracts == [STATE]


async def test_object_without_a_contract_is_refused() -> None:
    with pytest.raises(ContractViolation, match="its generated base class"):
        MeshServer([object()])


# One port on loopback.


@pytest.mark.parametrize("bind", ["0.0.0.0", "::", "10.0.0.1", "192.168.1.7", "example.org", ""])
async def test_anything_but_loopback_is_refused(bind: str) -> None:
    with pytest.raises(BindError, match="only loopback may be listened on"):
        MeshServer([], bind=bind)


async def test_taken_port_is_told_with_its_address() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(BindError, match=f"127.0.0.1:{port} cannot be listened on"):
            await MeshServer([], port=port).start()


async def test_two_servers_never_share_a_port() -> None:
    async with MeshServer([]) as first:
        with pytest.raises(BindError):
            await MeshServer([], port=first.port).start()


@pytest.mark.parametrize("bind", ["127.0.0.1", "127.0.0.2", "::1"])
async def test_each_loopback_address_serves(bind: str) -> None:
    family = socket.AF_INET6 if ":" in bind else socket.AF_INET
    try:
        socket.create_server((bind, 0), family=family).close()
    except OSError:
        pytest.skip(f"this machine has no {bind}")
    async with MeshServer([], bind=bind) as server, grpc.aio.insecure_channel(server.address) as channel:
        answer = await health_stub(channel).Check(health_pb2.HealthCheckRequest(), timeout=5)
    assert answer.status == SERVING


# Health, reflection, channelz.


async def test_health_is_told_for_the_process_and_each_contract() -> None:
    async with serving(state_servicer()) as (server, channel):
        health = health_stub(channel)
        for name in ("", STATE):
            request = health_pb2.HealthCheckRequest(service=name)
            assert (await health.Check(request, timeout=5)).status == SERVING
        told = await refusal(health.Check(health_pb2.HealthCheckRequest(service="other"), timeout=5))
        assert told.code is grpc.StatusCode.NOT_FOUND
        listed = await health.List(health_list_request(), timeout=5)
        assert {name: item.status for name, item in listed.statuses.items()} == {"": SERVING, STATE: SERVING}
        await server.set_serving(serving=False)
        listed = await health.List(health_list_request(), timeout=5)
        assert {item.status for item in listed.statuses.values()} == {NOT_SERVING}


async def test_server_is_not_serving_until_it_is_told_to_and_for_ever_after_its_shutdown_began() -> None:
    server = MeshServer([state_servicer()])
    await server.start()
    async with grpc.aio.insecure_channel(server.address) as channel:
        watch = health_stub(channel).Watch(health_pb2.HealthCheckRequest(service=STATE), timeout=10)
        seen = [(await watch.read()).status]
        await server.set_serving(serving=True)
        seen.append((await watch.read()).status)
        await server.health.enter_graceful_shutdown()
        seen.append((await watch.read()).status)
        await server.set_serving(serving=True)
        check = await health_stub(channel).Check(health_pb2.HealthCheckRequest(), timeout=5)
        listed = await health_stub(channel).List(health_list_request(), timeout=5)
        watch.cancel()
    await server.stop(0)
    assert seen == [NOT_SERVING, SERVING, NOT_SERVING]
    assert check.status == NOT_SERVING
    assert {item.status for item in listed.statuses.values()} == {NOT_SERVING}


async def reflected(channel: grpc.aio.Channel, **asked: Any) -> Any:
    call = reflection_stub(channel).ServerReflectionInfo(timeout=5)
    await call.write(new_reflection_request(**asked))
    answer = await call.read()
    call.cancel()
    return answer


async def test_reflection_lists_everything_that_is_served_and_shows_it() -> None:
    async with serving(state_servicer()) as (_, channel):
        listed = await reflected(channel, list_services="")
        shown = await reflected(channel, file_containing_symbol=STATE)
    assert {item.name for item in listed.list_services_response.service} == {
        STATE,
        "grpc.health.v1.Health",
        "grpc.channelz.v1.Channelz",
        "grpc.reflection.v1alpha.ServerReflection",
    }
    assert any(b"state_manager_service.proto" in raw for raw in shown.file_descriptor_response.file_descriptor_proto)


async def test_channelz_shows_the_server_and_its_calls() -> None:
    async with serving(state_servicer()) as (_, channel):
        stub = channelz_stub(channel)
        answer = await stub.GetServers(channelz_pb2.GetServersRequest(), timeout=5)
        await health_stub(channel).Check(health_pb2.HealthCheckRequest(), timeout=5)
        later = await stub.GetServers(channelz_pb2.GetServersRequest(), timeout=5)
    names = {ref.name for item in answer.server for ref in item.listen_socket}
    before, after = (sum(item.data.calls_started for item in told.server) for told in (answer, later))
    assert "chttp2 listener ipv4:127.0.0.1:0" in names
    assert after >= before + 2


# Rules of the contract.


async def test_unary_request_that_breaks_its_contract_never_reaches_the_servicer() -> None:
    async with serving(state_servicer()) as (_, channel):
        request = pb.UpdateStateRequest(request_id="", actor="a" * 65)
        told = await refusal(StateManagerServiceStub(channel).UpdateState(request, timeout=5))
    assert (told.code.name, told.reason) == ("INVALID_ARGUMENT", "ERROR_REASON_INVALID_FIELD")
    assert {violation.field for violation in told.violations} == {"request_id", "state", "update_mask", "actor"}
    assert told.metadata["field"] == told.violations[0].field
    assert all(violation.description in told.message for violation in told.violations)


async def test_request_of_a_server_stream_is_checked() -> None:
    async def list_trades(request: Any, _context: Any) -> Any:
        return pb.ListTradesResponse()

    async with serving(state_servicer(ListTrades=list_trades)) as (_, channel):
        stub = StateManagerServiceStub(channel)
        assert await stub.ListTrades(pb.ListTradesRequest(), timeout=5) == pb.ListTradesResponse()
        told = await refusal(stub.ListTrades(pb.ListTradesRequest(page_size=-1), timeout=5))
    assert [violation.description for violation in told.violations] == [
        "page_size is -1: must be greater than or equal to 0"
    ]


def attaching(seen: list[str]) -> Any:
    async def attach(requests: AsyncIterator[Any], _context: Any) -> AsyncIterator[Any]:
        async for request in requests:
            seen.append(request.WhichOneof("message"))
            yield registry_pb.AttachResponse(beat=registry_pb.AttachBeat())

    return attach


async def test_each_message_of_a_stream_is_checked() -> None:
    seen: list[str] = []
    servicer = whole(RegistryServiceServicer, REGISTRY, Attach=attaching(seen))
    async with serving(servicer) as (_, channel):
        call: Any = RegistryServiceStub(channel).Attach(timeout=10)
        beat = registry_pb.AttachRequest(heartbeat=registry_pb.AttachHeartbeat())
        for request in (beat, beat):
            await call.write(request)
            assert (await call.read()).HasField("beat")
        await call.write(registry_pb.AttachRequest(heartbeat=registry_pb.AttachHeartbeat(calls_in_flight=1)))
        await call.read()
        await call.write(registry_pb.AttachRequest())
        told = await refusal(call.read())
    assert (told.code.name, told.reason) == ("INVALID_ARGUMENT", "ERROR_REASON_INVALID_FIELD")
    assert seen == ["heartbeat"] * 3


async def test_method_that_checks_itself_is_given_what_comes() -> None:
    seen: list[str] = []
    servicer = whole(RegistryServiceServicer, REGISTRY, Attach=checks_requests_itself(attaching(seen)))
    async with serving(servicer) as (_, channel):
        call: Any = RegistryServiceStub(channel).Attach(timeout=10)
        await call.write(registry_pb.AttachRequest())
        assert (await call.read()).HasField("beat")
        call.cancel()
    assert seen == [None]


# Errors.


class Missing(Exception):
    def __init__(self, symbol: str) -> None:
        super().__init__(f"{symbol} is not known")
        self.symbol = symbol


ERRORS = {Missing: ErrorRow(grpc.StatusCode.NOT_FOUND, reasons.ERROR_REASON_SYMBOL_UNKNOWN, ("symbol",))}


async def test_exception_of_the_domain_becomes_its_row() -> None:
    async def get(_request: Any, _context: Any) -> Any:
        raise Missing("NQZ99-CME")

    async def watch(_request: Any, _context: Any) -> AsyncIterator[Any]:
        yield pb.WatchStateResponse(revision=1)
        raise Missing("ESZ99-CME")

    async with serving(state_servicer(GetState=get, WatchState=watch), errors=ERRORS) as (server, channel):
        stub: Any = StateManagerServiceStub(channel)
        told = await refusal(stub.GetState(pb.GetStateRequest(), timeout=5))
        call = stub.WatchState(pb.WatchStateRequest(), timeout=5)
        assert (await call.read()).revision == 1
        late = await refusal(call.read())
    assert (told.code.name, told.reason, told.message) == (
        "NOT_FOUND",
        "ERROR_REASON_SYMBOL_UNKNOWN",
        "NQZ99-CME is not known",
    )
    assert told.metadata == {"symbol": "NQZ99-CME"}
    assert (late.code.name, late.metadata) == ("NOT_FOUND", {"symbol": "ESZ99-CME"})
    assert server.counters.internal_errors == 0


async def test_status_that_a_servicer_sets_itself_is_left_alone() -> None:
    async def get(_request: Any, context: Any) -> Any:
        await context.abort(grpc.StatusCode.DATA_LOSS, "by hand")

    async with serving(state_servicer(GetState=get)) as (_, channel):
        told = await refusal(StateManagerServiceStub(channel).GetState(pb.GetStateRequest(), timeout=5))
    assert (told.code, told.message) == (grpc.StatusCode.DATA_LOSS, "by hand")


@pytest.mark.parametrize("method", ["GetState", "WatchState"])
async def test_defect_hides_its_text_and_is_logged_under_its_id(tmp_path: Path, method: str) -> None:
    log.configure("tester", "tester-1", tmp_path / "tester.log")
    request_is_bad = True

    async def get(_request: Any, _context: Any) -> Any:
        raise KeyError("the secret 4711")

    async def watch(_request: Any, _context: Any) -> AsyncIterator[Any]:
        if request_is_bad:
            raise KeyError("the secret 4711")
        yield pb.WatchStateResponse()

    async with serving(state_servicer(GetState=get, WatchState=watch)) as (server, channel):
        stub: Any = StateManagerServiceStub(channel)
        if method == "GetState":
            told = await refusal(stub.GetState(pb.GetStateRequest(), timeout=5))
        else:
            told = await refusal(stub.WatchState(pb.WatchStateRequest(), timeout=5).read())
    log.configure("tester", "tester-1", None)
    assert (told.code.name, told.reason) == ("INTERNAL", "ERROR_REASON_INTERNAL")
    assert "4711" not in told.message
    assert told.metadata["error_id"] in told.message
    assert server.counters.internal_errors == 1
    lines = [json.loads(line) for line in (tmp_path / "tester.log").read_text().splitlines()]
    (line,) = [line for line in lines if line["event"] == "call.failed"]
    assert (line["error_id"], line["method"]) == (told.metadata["error_id"], f"/{STATE}/{method}")
    assert "the secret 4711" in line["exception"]


async def test_bytes_that_are_encoded_already_are_sent_as_they_are() -> None:
    async def get(_request: Any, _context: Any) -> Any:
        return pb.GetStateResponse(state=pb.State(version=7)).SerializeToString()

    async with serving(state_servicer(GetState=get)) as (_, channel):
        answer = await StateManagerServiceStub(channel).GetState(pb.GetStateRequest(), timeout=5)
    assert answer.state.version == 7


async def test_call_in_flight_is_counted_and_waited_for() -> None:
    release = asyncio.Event()

    async def get(_request: Any, _context: Any) -> Any:
        await release.wait()
        return pb.GetStateResponse()

    async with serving(state_servicer(GetState=get)) as (server, channel):
        call = asyncio.ensure_future(StateManagerServiceStub(channel).GetState(pb.GetStateRequest(), timeout=10))
        await until(lambda: server.counters.unary_in_flight == 1)
        assert not await server.drain(0.02)
        release.set()
        assert await server.drain(5)
        await call
        assert (server.counters.in_flight, server.counters.unary_in_flight) == (0, 0)


async def test_stream_whose_reader_is_gone_is_closed_and_no_longer_counted() -> None:
    closed: list[str] = []

    async def watch(_request: Any, _context: Any) -> AsyncIterator[Any]:
        try:
            while True:
                yield pb.WatchStateResponse(state=pb.State(flags={"big": "x" * 60_000}))
        finally:
            closed.append("closed")

    async with serving(state_servicer(WatchState=watch)) as (server, channel):
        call: Any = StateManagerServiceStub(channel).WatchState(pb.WatchStateRequest(), timeout=10)
        await call.read()
        assert (server.counters.in_flight, server.counters.unary_in_flight) == (1, 0)
        call.cancel()
        await until(lambda: server.counters.in_flight == 0 and closed == ["closed"])


# Deadlines.


async def test_caller_without_a_deadline_gets_that_of_the_contract() -> None:
    cancelled: list[str] = []

    async def get(_request: Any, _context: Any) -> Any:
        try:
            await asyncio.sleep(60)
        finally:
            cancelled.append("cancelled")

    async with serving(state_servicer(GetState=get)) as (_, channel):
        began = asyncio.get_running_loop().time()
        told = await refusal(StateManagerServiceStub(channel).GetState(pb.GetStateRequest()))
        took = asyncio.get_running_loop().time() - began
    assert told.code is grpc.StatusCode.DEADLINE_EXCEEDED
    assert told.message == "GetState took longer than its deadline of 1 s"
    assert 0.9 <= took < 5
    assert cancelled == ["cancelled"]


async def test_time_out_inside_a_service_is_its_defect_and_not_the_deadline() -> None:
    async def get(_request: Any, _context: Any) -> Any:
        raise TimeoutError("something inside")

    async with serving(state_servicer(GetState=get)) as (_, channel):
        told = await refusal(StateManagerServiceStub(channel).GetState(pb.GetStateRequest()))
    assert told.code is grpc.StatusCode.INTERNAL


async def test_callers_own_deadline_counts() -> None:
    async def get(_request: Any, _context: Any) -> Any:
        await asyncio.sleep(60)

    async with serving(state_servicer(GetState=get)) as (server, channel):
        told = await refusal(StateManagerServiceStub(channel).GetState(pb.GetStateRequest(), timeout=0.1))
        await until(lambda: server.counters.in_flight == 0)
    assert told.code is grpc.StatusCode.DEADLINE_EXCEEDED


async def test_contract_stub_sends_the_deadline_of_the_contract_unless_it_is_given_one() -> None:
    left: list[float | None] = []

    async def get(_request: Any, context: Any) -> Any:
        left.append(context.time_remaining())
        return pb.GetStateResponse()

    async def watch(_request: Any, context: Any) -> AsyncIterator[Any]:
        left.append(context.time_remaining())
        yield pb.WatchStateResponse()

    async with MeshServer([state_servicer(GetState=get, WatchState=watch)]) as server:
        clients = Clients({STATE: server.address})
        stub: Any = clients.stub(StateManagerServiceStub)
        await stub.GetState(pb.GetStateRequest())
        await stub.GetState(pb.GetStateRequest(), timeout=30)
        await stub.WatchState(pb.WatchStateRequest()).read()
        await clients.close()
    by_contract, own, stream = left
    assert by_contract is not None
    assert own is not None
    assert 0 < by_contract <= 1.5
    assert 20 < own <= 31
    assert stream is None or stream > 1e6


# Clients.


async def test_call_that_is_safe_to_repeat_waits_for_its_service() -> None:
    async def get(_request: Any, _context: Any) -> Any:
        return pb.GetStateResponse(state=pb.State(version=3))

    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    clients = Clients({STATE: f"127.0.0.1:{port}"})
    stub: Any = clients.stub(StateManagerServiceStub)
    call = asyncio.ensure_future(stub.GetState(pb.GetStateRequest(), timeout=10))
    hasty = await refusal(stub.GetState(pb.GetStateRequest(), timeout=10, wait_for_ready=False))
    assert hasty.code is grpc.StatusCode.UNAVAILABLE
    async with MeshServer([state_servicer(GetState=get)], port=port):
        assert (await call).state.version == 3
    await clients.close()


async def test_one_channel_serves_all_stubs_of_a_contract() -> None:
    clients = Clients({STATE: "127.0.0.1:9"})
    assert clients.channel(STATE) is clients.channel(STATE)
    await clients.close()


async def test_contract_without_an_address_is_resolved_by_xds_and_the_registry_directly() -> None:
    clients = Clients({"x": "127.0.0.1:9"}, registry="127.0.0.1:9")
    assert clients.channel(REGISTRY) is clients.channel("minhos_api.health.v1.HealthMonitorService")
    assert clients.channel(REGISTRY) is clients.channel("x")
    await clients.close()


@pytest.mark.parametrize("name", sorted(all_contracts()))
def test_every_method_is_known_by_its_path(name: str) -> None:
    for method in contract(name).methods.values():
        assert interceptors.method_of(method.path) == method
    assert interceptors.method_of(f"/{name}/Nothing") is None
    assert interceptors.method_of("/grpc.health.v1.Health/Check") is None
    assert interceptors.method_of("/minhos_api.none.v1.NoneService/Get") is None


async def test_refusal_of_a_servicer_reaches_its_caller_whole() -> None:
    async def get(_request: Any, _context: Any) -> Any:
        raise MeshError(
            grpc.StatusCode.RESOURCE_EXHAUSTED,
            reasons.ERROR_REASON_LIMIT_REACHED,
            "größer als erlaubt",
            metadata={"limit": "readers"},
        )

    async with serving(state_servicer(GetState=get)) as (_, channel):
        told = await refusal(StateManagerServiceStub(channel).GetState(pb.GetStateRequest(), timeout=5))
    assert (told.code.name, told.reason, told.message) == (
        "RESOURCE_EXHAUSTED",
        "ERROR_REASON_LIMIT_REACHED",
        "größer als erlaubt",
    )
    assert told.metadata == {"limit": "readers"}
