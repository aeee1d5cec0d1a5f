"""Decides that reading from disk and removing from it never meet, so that what a reader misses is known exactly."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator


class Gate:
    """Many may read at once; one may remove, when nobody reads, and goes before readers that come later."""

    def __init__(self) -> None:
        self._reading = 0
        self._idle = asyncio.Event()
        self._open = asyncio.Event()
        self._idle.set()
        self._open.set()

    @contextlib.asynccontextmanager
    async def reading(self) -> AsyncIterator[None]:
        """Holds removal off."""
        while not self._open.is_set():
            await self._open.wait()
        self._reading += 1
        self._idle.clear()
        try:
            yield
        finally:
            self._reading -= 1
            if not self._reading:
                self._idle.set()

    @contextlib.asynccontextmanager
    async def removing(self) -> AsyncIterator[None]:
        """Waits until nobody reads and holds new readers off."""
        while not self._open.is_set():
            await self._open.wait()
        self._open.clear()
        try:
            await self._idle.wait()
            yield
        finally:
            self._open.set()
