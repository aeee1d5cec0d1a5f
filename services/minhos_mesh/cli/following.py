"""Decides how a command that follows something goes on when its service is away for a while: says so, and looks for it again."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Final, TypeVar

import grpc

from minhos_mesh.cli import show
from minhos_mesh.cli.mesh import Link, RegistrySilent, connected, unreachable
from minhos_mesh.runtime.backoff import Backoff
from minhos_mesh.runtime.paths import MeshPaths

T = TypeVar("T")

AWAITED_S: Final = 3.0
"""So long without anything says that there may be nothing."""
_BACKOFF: Final = Backoff(first=0.1, factor=2.0, limit=1.0)

Read = Callable[[Link], AsyncGenerator[T | None, None]]
"""Reads one stream; None is a sign of life. It is called again when the stream was lost, and goes on where it was."""


class Awaited:
    """Says once that what is followed has not come yet."""

    def __init__(self, sentence: str, now_s: Callable[[], float] = time.monotonic) -> None:
        self._sentence, self._now_s, self._since = sentence, now_s, now_s()
        self._told = False

    def came(self) -> None:
        """It has come."""
        self._told = True

    def look(self) -> None:
        """Called with each sign of life."""
        if not self._told and self._now_s() - self._since > AWAITED_S:
            self._told = True
            show.err.print(self._sentence)


async def followed(paths: MeshPaths, read: Read[T], what: str) -> AsyncGenerator[T, None]:
    """What comes on a stream and, when it was cut, on the next one.

    Raises what `read` raises, NotRunning once the mesh has ended, and AioRpcError or RegistrySilent while nothing was
    heard yet.
    """
    heard = away = False
    failures = 0
    while True:
        try:
            async with connected(paths) as link, aclosing(read(link)) as stream:
                async for each in stream:
                    if away:
                        show.err.print(f"{what}: back")
                    heard, away, failures = True, False, 0
                    if each is not None:
                        yield each
        except (grpc.aio.AioRpcError, RegistrySilent) as error:
            if not heard or (isinstance(error, grpc.aio.AioRpcError) and not unreachable(error)):
                raise
        if not heard:
            return
        if not away:
            show.err.print(f"{what}: away, waiting for it to come back; Ctrl-C ends")
        away = True
        failures += 1
        await asyncio.sleep(_BACKOFF.delay(failures))
