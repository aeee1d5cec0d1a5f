"""When the registry is started again by the keeper: at once, then later and later, from the start after a good run.

And when it is given up while it lives: after a silence in which the keeper itself could have heard it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from minhos_mesh.runtime.backoff import Backoff

GOOD_RUN_S: Final = 30.0
"""A run of this length makes the failures before it forgotten."""

TOO_SOON_S: Final = 0.5
"""A run that is shorter than this has failed, however it ended."""

LOOK_S: Final = 1.0
"""How often a keeper looks whether the registry was heard. A longer pause between two looks counts as little more than
this: then it was the keeper, or the whole machine, that did not run, and the registry could not have been heard.
"""

STARTING_S: Final = 60.0
"""How long a new registry may take until it is heard first; it gives up by itself after as long."""


@dataclass(slots=True)
class RootSilence:
    """For how long the process of the registry has not been heard while it could have been."""

    instance_id: str = ""
    limit_s: float = 0.0
    """After so much silence it is given up; what it says of itself replaces what was assumed at first."""
    silent_s: float = 0.0
    looked_at: float | None = None
    """The last look, on the monotonic clock; None when nothing is watched."""

    def begin(self, instance_id: str, limit_s: float, now: float) -> None:
        """Watches a process from now on."""
        self.instance_id, self.limit_s, self.silent_s, self.looked_at = instance_id, limit_s, 0.0, now

    def end(self) -> None:
        """It has ended: there is nothing to hear."""
        self.looked_at = None

    def heard(self, instance_id: str, limit_s: float, now: float) -> bool:
        """Takes in a word; False when it is not from the process that is watched."""
        if self.looked_at is None or instance_id != self.instance_id:
            return False
        self.limit_s, self.silent_s, self.looked_at = limit_s, 0.0, now
        return True

    def too_long(self, now: float) -> bool:
        """Looks, LOOK_S after the last look or word; True once when the limit is passed, and again after as much silence more."""
        if self.looked_at is None or now - self.looked_at < LOOK_S:
            return False
        self.silent_s += min(now - self.looked_at, 1.5 * LOOK_S)
        self.looked_at = now
        if self.silent_s <= self.limit_s:
            return False
        self.silent_s = 0.0
        return True


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
