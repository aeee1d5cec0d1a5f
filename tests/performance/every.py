"""Decides how a benchmark keeps a steady pace beyond a thousand a second: by a timer of the kernel that an event loop can wait for."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import struct
from collections.abc import Iterator
from typing import Final

_MONOTONIC: Final = 1
_NONBLOCK: Final = os.O_NONBLOCK
_CLOEXEC: Final = os.O_CLOEXEC
_SPEC: Final = struct.Struct("qqqq")
_COUNT: Final = struct.Struct("Q")


class Every:
    """A timer that is due so many times a second."""

    def __init__(self, per_s: int, *, waits: bool) -> None:
        """With `waits` it is waited for by `due`, else by an event loop."""
        libc = ctypes.CDLL(None, use_errno=True)
        self._descriptor = int(libc.timerfd_create(_MONOTONIC, _CLOEXEC | (0 if waits else _NONBLOCK)))
        nanoseconds = 1_000_000_000 // per_s
        apart = divmod(nanoseconds, 1_000_000_000)
        if self._descriptor < 0 or libc.timerfd_settime(self._descriptor, 0, _SPEC.pack(*apart, *apart), None) < 0:
            raise OSError(ctypes.get_errno(), "a timer of the kernel could not be set")

    def due(self) -> int:
        """How often it was due since the last time; waits until it was, if it waits."""
        try:
            return int(_COUNT.unpack(os.read(self._descriptor, _COUNT.size))[0])
        except BlockingIOError:
            return 0

    async def wait(self) -> int:
        """The same for an event loop."""
        if due := self.due():
            return due
        loop, readable = asyncio.get_running_loop(), asyncio.Event()
        loop.add_reader(self._descriptor, readable.set)
        try:
            await readable.wait()
        finally:
            loop.remove_reader(self._descriptor)
        return self.due()

    def close(self) -> None:
        """Ends it."""
        os.close(self._descriptor)


@contextlib.contextmanager
def every(per_s: int, *, waits: bool = False) -> Iterator[Every]:
    """A timer that ends with the block."""
    timer = Every(per_s, waits=waits)
    try:
        yield timer
    finally:
        timer.close()
