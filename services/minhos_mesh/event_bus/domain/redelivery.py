"""Decides how often and when an event that was not acknowledged is tried again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

FIRST_DELAY_NS: Final = 100_000_000
LONGEST_DELAY_NS: Final = 60_000_000_000
DEFAULT_MAX_ATTEMPTS: Final = 3
DEFAULT_ACK_DEADLINE_NS: Final = 30_000_000_000


@dataclass(frozen=True, slots=True)
class RedeliveryPolicy:
    """0.1 s after the first failure, twice as long after each further one, at most a minute; then it is dead."""

    max_attempts: int = DEFAULT_MAX_ATTEMPTS

    def is_exhausted(self, failures: int) -> bool:
        """Says whether that many failed attempts make a dead letter."""
        return failures >= self.max_attempts

    def delay_ns(self, failures: int) -> int:
        """How long to wait after that many failed attempts (1 or more)."""
        return min(FIRST_DELAY_NS << min(failures - 1, 32), LONGEST_DELAY_NS)
