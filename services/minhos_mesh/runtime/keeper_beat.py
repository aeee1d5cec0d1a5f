"""Decides how the registry shows its keeper that it reacts: a word over the keeper's socket from its event loop, again and again."""

from __future__ import annotations

from contextlib import suppress
from typing import Final, Protocol

from minhos_mesh.runtime.clock import Clock
from minhos_mesh.runtime.keeper_client import KeeperError
from minhos_mesh.runtime.keeper_protocol import MAX_SILENCE_S

BEAT_S: Final = 1.0
"""Longest pause between two words; a short deadline makes it a quarter of that."""


class BeatTaker(Protocol):
    """The part of a keeper's client that this needs."""

    async def beat(self, instance_id: str, silence_s: float) -> None:
        """Tells the keeper that a process reacts. Raises KeeperError."""
        ...


async def keep_beating(keeper: BeatTaker, instance_id: str, silence_s: float, clock: Clock) -> None:
    """Tells the keeper until cancelled that this process reacts; it kills and replaces one that was silent for `silence_s`.

    A keeper that is away, or that knows no beats, is no fault of this process: the next word may be heard.
    """
    silence_s = min(silence_s, MAX_SILENCE_S)
    pause = min(BEAT_S, silence_s / 4)
    while True:
        with suppress(KeeperError):
            await keeper.beat(instance_id, silence_s)
        await clock.sleep_until(clock.monotonic() + pause)
