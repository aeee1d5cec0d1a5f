"""Decides how the contracts of a running server are read: by server reflection, file by file, within bounds and one deadline."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, Final, cast

import grpc
from google.protobuf import descriptor_pb2
from google.protobuf.message import DecodeError
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from minhos_mesh.runtime import channel_options

STANDARD: Final = ("grpc.",)
"""Packages that every server serves and nobody builds against."""
MAX_FILES: Final = 512
MAX_BYTES: Final = 4_194_304
"""All files together; a server that tells more is not read to its end."""

Request = reflection_pb2.ServerReflectionRequest
Response = reflection_pb2.ServerReflectionResponse


class NotReflected(Exception):
    """Expected: nobody answers to server reflection there, or not with descriptors."""

    def __init__(self, address: str, why: str) -> None:
        super().__init__(f"{address} cannot be asked for its contracts: {why}")
        self.address = address


async def served_contracts(address: str, *, deadline_s: float = 5.0) -> tuple[tuple[str, ...], bytes]:
    """Names of the contracts served there and their FileDescriptorSet with all imports. Raises NotReflected."""
    try:
        async with (
            asyncio.timeout(deadline_s),
            grpc.aio.insecure_channel(address, options=channel_options.CHANNEL) as channel,
        ):
            return await _read(address, channel)
    except TimeoutError:
        raise NotReflected(address, f"no answer within {deadline_s:g} s") from None
    except grpc.aio.AioRpcError as error:
        raise NotReflected(address, f"{error.code().name}: {error.details() or 'no reason given'}"[:300]) from None


async def _read(address: str, channel: grpc.aio.Channel) -> tuple[tuple[str, ...], bytes]:
    questions: asyncio.Queue[Request | None] = asyncio.Queue()

    async def asked() -> AsyncIterator[Request]:
        while (question := await questions.get()) is not None:
            yield question

    stub = cast("Any", reflection_pb2_grpc).ServerReflectionStub(channel)
    call = stub.ServerReflectionInfo(asked())

    async def ask(question: Request) -> Response:
        questions.put_nowait(question)
        answer = await call.read()
        if not isinstance(answer, Response):
            raise NotReflected(address, "it ended the stream")
        if answer.HasField("error_response"):
            raise NotReflected(address, answer.error_response.error_message[:300])
        return answer

    try:
        listed = await ask(Request(list_services="*"))
        names = sorted(s.name for s in listed.list_services_response.service if not s.name.startswith(STANDARD))
        files: dict[str, descriptor_pb2.FileDescriptorProto] = {}
        for name in names:
            _add(address, files, await ask(Request(file_containing_symbol=name)))
        while missing := sorted({d for file in files.values() for d in file.dependency} - files.keys()):
            for name in missing:
                _add(address, files, await ask(Request(file_by_filename=name)))
                if name not in files:
                    raise NotReflected(address, f"it does not tell {name[:200]}, which its contracts import")
    finally:
        questions.put_nowait(None)
        call.cancel()
    return tuple(names), descriptor_pb2.FileDescriptorSet(file=files.values()).SerializeToString()


def _add(address: str, files: dict[str, descriptor_pb2.FileDescriptorProto], answer: Response) -> None:
    for data in answer.file_descriptor_response.file_descriptor_proto:
        try:
            file = descriptor_pb2.FileDescriptorProto.FromString(data)
        except DecodeError:
            raise NotReflected(address, "it tells bytes that are no file descriptor") from None
        files.setdefault(file.name, file)
    if len(files) > MAX_FILES or sum(file.ByteSize() for file in files.values()) > MAX_BYTES:
        raise NotReflected(address, f"it tells more than {MAX_FILES} files or {MAX_BYTES} bytes")
