"""Decides how a call is read whose other side may end it at any time.

grpc.aio tells a call that the *server* cancelled, as it does with open streams when it ends, by the same
`asyncio.CancelledError` that ends the task itself. Taken for its own end, a reader would die silently for ever.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, Final

import grpc

_CUT: Final = "the other side cancelled the call, as it does when it ends"


def cancelled_from_outside() -> bool:
    """Whether this task itself is to end; a call that the other side cancelled looks the same otherwise."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def cut() -> grpc.aio.AioRpcError:
    """The error of a call that the other side cancelled: UNAVAILABLE, since the next instance may answer."""
    return grpc.aio.AioRpcError(grpc.StatusCode.UNAVAILABLE, grpc.aio.Metadata(), grpc.aio.Metadata(), details=_CUT)


async def read(call: Any) -> Any:
    """The next message of a stream, or `grpc.aio.EOF`. Raises AioRpcError UNAVAILABLE when the other side cancelled it."""
    try:
        return await call.read()
    except asyncio.CancelledError:
        if cancelled_from_outside():
            raise
        raise cut() from None


async def messages(call: Any) -> AsyncIterator[Any]:
    """All messages of a stream. Raises AioRpcError UNAVAILABLE when the other side cancelled it."""
    while (message := await read(call)) is not grpc.aio.EOF:
        yield message
