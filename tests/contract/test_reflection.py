"""Contracts of a running server, read by reflection: whole, bounded, and clear when nobody tells them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from google.protobuf import descriptor_pb2
from grpc_reflection.v1alpha import reflection_pb2 as pb
from grpc_reflection.v1alpha import reflection_pb2_grpc as rpc

from minhos_mesh.compatibility.descriptors import resolve
from minhos_mesh.runtime import reflection
from minhos_mesh.runtime.reflection import NotReflected, served_contracts
from minhos_mesh.runtime.server import MeshServer
from minhos_mesh.runtime.service_control import ServiceControlServicer

CONTROL = "minhos_api.mesh.v1.ServiceControlService"


class Told:
    """A server that answers to reflection as a test wants it."""

    def __init__(self, answer: Any) -> None:
        self._answer = answer

    async def ServerReflectionInfo(self, requests: AsyncIterator[Any], _context: Any) -> AsyncIterator[Any]:
        async for request in requests:
            if request.HasField("list_services"):
                listed = pb.ListServiceResponse(service=[pb.ServiceResponse(name="acme.S")])
                yield pb.ServerReflectionResponse(list_services_response=listed)
            else:
                yield await self._answer(request)


async def refused(answer: Any, deadline_s: float = 3.0) -> str:
    server = grpc.aio.server()
    adder: Any = rpc.add_ServerReflectionServicer_to_server
    adder(Told(answer), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        with pytest.raises(NotReflected) as caught:
            await served_contracts(f"127.0.0.1:{port}", deadline_s=deadline_s)
    finally:
        await server.stop(None)
    return str(caught.value)


def files(*protos: bytes) -> pb.ServerReflectionResponse:
    return pb.ServerReflectionResponse(file_descriptor_response=pb.FileDescriptorResponse(file_descriptor_proto=protos))


async def test_a_server_tells_its_contracts_with_all_that_they_import() -> None:
    async with MeshServer([ServiceControlServicer.__new__(ServiceControlServicer)]) as server:
        names, data = await served_contracts(server.address)
    assert names == (CONTROL,)
    assert CONTROL in resolve(data).services


async def test_nobody_there_is_said_at_once() -> None:
    began = time.monotonic()
    with pytest.raises(NotReflected, match="127.0.0.1:1 cannot be asked for its contracts: UNAVAILABLE"):
        await served_contracts("127.0.0.1:1")
    assert time.monotonic() - began < 20


async def test_a_server_without_reflection_is_said() -> None:
    server = grpc.aio.server()
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    with pytest.raises(NotReflected, match="UNIMPLEMENTED"):
        await served_contracts(f"127.0.0.1:{port}")
    await server.stop(None)


async def test_a_server_that_never_answers_ends_at_the_deadline() -> None:
    async def never(_request: Any) -> Any:
        await asyncio.Event().wait()

    assert "no answer within 0.3 s" in await refused(never, deadline_s=0.3)


async def test_garbage_is_no_descriptor() -> None:
    async def garbage(_request: Any) -> Any:
        return files(b"\xff\xff\xff")

    assert "bytes that are no file descriptor" in await refused(garbage)


async def test_a_refusal_is_passed_on() -> None:
    async def error(_request: Any) -> Any:
        return pb.ServerReflectionResponse(error_response=pb.ErrorResponse(error_code=5, error_message="not today"))

    assert "not today" in await refused(error)


async def test_an_import_that_is_never_told_ends_the_questions() -> None:
    async def same(_request: Any) -> Any:
        return files(descriptor_pb2.FileDescriptorProto(name="a.proto", dependency=["b.proto"]).SerializeToString())

    assert "does not tell b.proto" in await refused(same)


async def test_a_server_that_tells_without_end_is_not_read_to_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reflection, "MAX_FILES", 20)
    count = iter(range(10_000))

    async def more(_request: Any) -> Any:
        number = next(count)
        file = descriptor_pb2.FileDescriptorProto(name=f"{number}.proto", dependency=[f"{number + 1}.proto"])
        return files(file.SerializeToString())

    assert "more than 20 files" in await refused(more)
