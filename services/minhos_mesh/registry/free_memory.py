"""Decides when the registry gives memory back to the system that it no longer uses.

Messages of some MB, refused ones too, leave holes in the heap of the C library, which keeps them for itself: how many
depends on how many came at once, and nothing but asking for it brings them back.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from typing import Final

from minhos_mesh.registry import procfs
from minhos_mesh.runtime.clock import Clock
from minhos_mesh.runtime.log import get_logger
from minhos_mesh.runtime.memory import trimmer

GROWTH_BYTES: Final = 16 * 1_048_576
"""What is asked back when the registry holds so much more than it once did."""
WORTH_BYTES: Final = 4 * 1_048_576
"""When less came back than that, what it holds is in use, and the next attempt comes later."""
FIRST_S: Final = 2.0
LAST_S: Final = 300.0
"""Pause between attempts: the first, and the longest after attempts that brought nothing."""

_log = get_logger("registry.memory")


def held_bytes() -> int:
    """Memory that this process holds."""
    reading = procfs.read(os.getpid())
    return 0 if reading is None else reading.rss_bytes


class FreeMemory:
    """Looks for as long as the registry lives."""

    def __init__(
        self,
        clock: Clock,
        *,
        held: Callable[[], int] = held_bytes,
        trim: Callable[[], object] | None = None,
    ) -> None:
        self._clock, self._held = clock, held
        self._trim = trim or trimmer()
        self._least = held()
        self.pause_s = FIRST_S

    async def run(self) -> None:
        """Looks until cancelled."""
        while self._trim is not None:
            await self._clock.sleep_until(self._clock.monotonic() + self.pause_s)
            await self.look()

    async def look(self) -> None:
        """Gives back what is free when there may be much of it; off the event loop, for it may take some milliseconds."""
        before = self._held()
        self._least = min(self._least, before)
        if self._trim is None or before - self._least < GROWTH_BYTES:
            self.pause_s = FIRST_S
            return
        await asyncio.to_thread(self._trim)
        after = self._held()
        self.pause_s = FIRST_S if before - after >= WORTH_BYTES else min(2 * self.pause_s, LAST_S)
        _log.debug("memory.given_back", before_mb=round(before / 1e6), after_mb=round(after / 1e6))
