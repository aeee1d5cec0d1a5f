"""The least that a durable stream over grpc.aio costs: a server that appends each message to a file, puts it on the disk and answers.

Nothing is looked at, no sequence is given, nothing can be read again. Run as a program it takes the file and prints its port.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

import grpc
import uvloop

_PATH: Final = "/bare.Journal/Append"
START_S: Final = 20.0


@contextlib.asynccontextmanager
async def bare_journal(file: Path) -> AsyncIterator[Any]:
    """The call of such a server, from bytes to bytes."""
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(sys.executable, __file__, str(file), stdout=pipe)
    try:
        assert process.stdout is not None, "stdout is a pipe"
        async with asyncio.timeout(START_S):
            port = int(await process.stdout.readline())
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            yield channel.stream_stream(_PATH)
    finally:
        process.kill()
        await process.wait()


async def _serve(file: str) -> None:
    journal = os.open(file, os.O_CREAT | os.O_WRONLY | os.O_APPEND)

    async def append(requests: AsyncIterator[bytes], _context: Any) -> AsyncIterator[bytes]:
        async for request in requests:
            os.write(journal, request)
            os.fdatasync(journal)
            yield b"stored"

    service, _, method = _PATH[1:].partition("/")
    server = grpc.aio.server()
    handlers: dict[str, Any] = {method: grpc.stream_stream_rpc_method_handler(append)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(port, flush=True)
    await server.wait_for_termination()


if __name__ == "__main__":
    uvloop.run(_serve(sys.argv[1]))
