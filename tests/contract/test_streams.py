from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest

from minhos_api.registry.v1 import registry_service_pb2 as registry
from minhos_mesh.runtime.clients import Clients
from minhos_mesh.runtime.streams import messages, read
from minhos_mesh.runtime.tasks import OwnedTasks

SERVICE = "minhos_api.registry.v1.RegistryService"


class Ending:
    """Handlers that hang until the server is stopped."""

    def __init__(self) -> None:
        self.reached = asyncio.Event()

    async def resolve(self, _request: Any, _context: Any) -> registry.ResolveResponse:
        self.reached.set()
        await asyncio.Event().wait()
        return registry.ResolveResponse()

    async def watch(self, _request: Any, _context: Any) -> AsyncIterator[registry.WatchServicesResponse]:
        yield registry.WatchServicesResponse(revision=1)
        self.reached.set()
        await asyncio.Event().wait()

    def handlers(self) -> grpc.GenericRpcHandler:
        return grpc.method_handlers_generic_handler(
            SERVICE,
            {
                "Resolve": grpc.unary_unary_rpc_method_handler(
                    self.resolve,
                    registry.ResolveRequest.FromString,
                    registry.ResolveResponse.SerializeToString,
                ),
                "WatchServices": grpc.unary_stream_rpc_method_handler(
                    self.watch,
                    registry.WatchServicesRequest.FromString,
                    registry.WatchServicesResponse.SerializeToString,
                ),
            },
        )


@pytest.fixture
async def ending() -> AsyncIterator[tuple[Ending, grpc.aio.Server, Any]]:
    from minhos_api.registry.v1.registry_service_pb2_grpc import RegistryServiceStub

    made, server = Ending(), grpc.aio.server()
    server.add_generic_rpc_handlers((made.handlers(),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    clients = Clients({SERVICE: f"127.0.0.1:{port}"})
    yield made, server, clients.stub(RegistryServiceStub)
    await clients.close()
    await server.stop(0)


async def test_a_stream_that_the_server_cuts_is_unavailable_and_not_the_end_of_its_reader(
    ending: tuple[Ending, grpc.aio.Server, Any],
) -> None:
    made, server, stub = ending
    call = stub.WatchServices(registry.WatchServicesRequest())
    assert (await read(call)).revision == 1
    await made.reached.wait()
    stopping = asyncio.create_task(server.stop(0))
    with pytest.raises(grpc.aio.AioRpcError) as cut:
        async for _ in messages(call):
            pass
    assert cut.value.code() is grpc.StatusCode.UNAVAILABLE
    await stopping


async def test_a_unary_call_that_the_server_cuts_is_unavailable(ending: tuple[Ending, grpc.aio.Server, Any]) -> None:
    made, server, stub = ending
    calling = asyncio.create_task(stub.Resolve(registry.ResolveRequest(name="x"), wait_for_ready=False))
    await made.reached.wait()
    stopping = asyncio.create_task(server.stop(0))
    with pytest.raises(grpc.aio.AioRpcError) as cut:
        await calling
    assert cut.value.code() is grpc.StatusCode.UNAVAILABLE
    await stopping


async def test_a_reader_that_is_cancelled_itself_ends(ending: tuple[Ending, grpc.aio.Server, Any]) -> None:
    made, _server, stub = ending
    call = stub.WatchServices(registry.WatchServicesRequest())

    async def reading() -> None:
        async for _ in messages(call):
            pass

    task = asyncio.create_task(reading())
    await made.reached.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_task_that_ends_by_a_cancellation_nobody_asked_for_is_a_failure() -> None:
    failed: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    tasks = OwnedTasks(lambda name, error: failed.set_result(f"{name}: {error}"))

    async def cut_off() -> None:
        raise asyncio.CancelledError

    tasks.start(cut_off(), "reader")
    assert "reader" in await asyncio.wait_for(failed, 5)
    await tasks.close()
