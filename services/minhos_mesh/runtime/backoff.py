"""How long to wait after the n-th failure in a row before the next attempt."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

_MAX_EXPONENT: Final = 64


@dataclass(frozen=True, slots=True)
class Backoff:
    """Delays that grow by a factor up to a limit; all in seconds."""

    first: float = 0.1
    factor: float = 2.0
    limit: float = 30.0

    def __post_init__(self) -> None:
        if self.first <= 0 or self.factor < 1 or self.limit < self.first:
            raise ValueError(f"backoff needs 0 < first <= limit and factor >= 1, not {self}")

    def delay(self, failures: int) -> float:
        """Seconds to wait after `failures` failures in a row: 0 after none, `first` after one, then growing."""
        if failures <= 0:
            return 0.0
        return float(min(self.limit, self.first * self.factor ** min(failures - 1, _MAX_EXPONENT)))
