"""Decides what a feed asks of the way to market data, so that it can be tested without one."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol

from minhos_mesh.sierra_client.domain import Provenance
from minhos_mesh.sierra_files.ticks import TickColumns


class IngestLost(Exception):
    """Expected: market data cannot be reached, or the way to it broke; the feed opens it again."""


class IngestRefused(Exception):
    """Expected: market data is there and does not take this source; the text is its reason. Tried again, slowly."""


@dataclass(frozen=True, slots=True)
class Opening:
    """Who sends what."""

    source: str
    """Name of the source for people and logs."""
    symbol: str
    """Canonical symbol."""
    provenance: Provenance
    epoch: int
    """Generation of the file."""


class IngestLink(Protocol):
    """One open way to market data for one source. Positions count records of the generation from 1."""

    @property
    def acknowledged(self) -> int:
        """Position up to which market data has taken the records."""

    def check(self) -> None:
        """Raises IngestLost or IngestRefused once the way is broken."""

    def wake_at(self, position: int) -> None:
        """Asks to be woken when this position is acknowledged."""

    async def send(self, columns: TickColumns, first_position: int, receive_ns: int | None) -> None:
        """Sends a run of ticks; `receive_ns` None means that each was received at its event time.

        Raises IngestLost or IngestRefused.
        """

    async def end(self, through_position: int) -> None:
        """Says that no record follows this position. Raises IngestLost or IngestRefused."""


class IngestPort(Protocol):
    """The way to market data."""

    def connect(self, opening: Opening, wake: Callable[[], None]) -> AbstractAsyncContextManager[IngestLink]:
        """Opens a way; entering it waits for the position from which market data wants to read.

        `wake` is called when the way breaks or a position asked for is acknowledged. Raises IngestLost, IngestRefused.
        """
