"""Decides what belongs together in the store: one symbol of one provenance, which never mixes with another."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

PROVENANCES: Final = ("LIVE", "DELAYED", "REPLAY", "SIMULATED")
"""Names as in the contract; where none is asked for, the first of them that is held is read."""


class HistoryError(Exception):
    """Expected: history cannot be read or written; the text names the file or value, what was seen and what is allowed."""


class NotHeld(HistoryError):
    """Expected: nothing of what was asked for is kept."""


@dataclass(frozen=True, slots=True, order=True)
class Series:
    """All ticks of one symbol and one provenance."""

    provenance: str
    symbol: str
    """Canonical symbol."""

    def __str__(self) -> str:
        return f"{self.symbol} ({self.provenance})"
