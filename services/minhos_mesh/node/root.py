"""When the registry is started again by the keeper: at once, then later and later, from the start after a good run."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from minhos_mesh.runtime.backoff import Backoff

GOOD_RUN_S: Final = 30.0
"""A run of this length makes the failures before it forgotten."""

TOO_SOON_S: Final = 0.5
"""A run that is shorter than this has failed, however it ended."""


@dataclass(slots=True)
class RootPolicy:
    """The restarts of the one service that nobody else could restart."""

    service: str
    backoff: Backoff = field(default_factory=Backoff)
    failures: int = 0
    retry_at: float | None = 0.0
    """When to start it, on the monotonic clock; None while it runs."""

    def started(self) -> None:
        """It runs: nothing is planned."""
        self.retry_at = None

    def ended(self, lived_s: float, now: float, *, in_order: bool = False) -> None:
        """Plans the next start: after one failure at once, after more with growing delay.

        An end in order, as when it is restarted on purpose, is no failure, unless it came so soon that nobody can have asked.
        """
        if in_order and lived_s >= TOO_SOON_S:
            self.retry_at = now
            return
        self.failures = 1 if lived_s >= GOOD_RUN_S else self.failures + 1
        self.retry_at = now + self.backoff.delay(self.failures - 1)
