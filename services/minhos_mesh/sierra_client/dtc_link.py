"""Decides what belongs to one open connection to a DTC server, and dies with it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from minhos_mesh.dtc.batches import Batch
from minhos_mesh.dtc.message import Message
from minhos_mesh.dtc.reports import PositionReport
from minhos_mesh.dtc.session import Close, Session, next_deadline
from minhos_mesh.dtc.stream import MessageStream, encode
from minhos_mesh.sierra_client.dtc_market import MarketData
from minhos_mesh.sierra_client.dtc_settling import Settling

WRITE_LIMIT: Final = 1 << 22
"""Bytes that may wait for a server that does not read; beyond them the connection counts as broken."""


@dataclass(slots=True)
class Link:
    """One open connection."""

    session: Session
    stream: MessageStream
    writer: asyncio.StreamWriter
    market: MarketData
    settling: Settling | None = None
    """The questions that are being asked; None when orders are settled."""
    settle_by: float = 0.0
    """When its answers must be complete."""
    check_at: float | None = None
    """When to ask again; None while nothing works and nothing is in doubt."""
    missing: dict[str, float] = field(default_factory=dict)
    """When to ask for the fills of an order, by our id."""
    fills: list[Batch] = field(default_factory=list)
    """Answers about single orders that are waited for."""
    waits: asyncio.Timeout | None = None
    """The wait for bytes of the server; None while there are some."""
    listed: tuple[PositionReport, ...] | None = None
    """Positions that were listed and are to be told next."""
    close: Close | None = None
    """Why it ended; None while it has not."""
    was_ready: bool = False
    """True once orders were settled over it."""
    malformed: int = 0
    """Unreadable messages that were acted upon."""

    def send(self, message: Message) -> None:
        """Writes a message."""
        self.write(encode(message, self.session.encoding))

    def send_all(self, messages: Iterable[Message]) -> None:
        """Writes messages."""
        for message in messages:
            self.send(message)

    def write(self, data: bytes) -> None:
        """Writes bytes. Raises ConnectionError when the server has stopped reading."""
        if self.writer.transport.get_write_buffer_size() > WRITE_LIMIT:
            raise ConnectionError("the server does not read what it is sent")
        self.writer.write(data)

    def deadline(self, now: float) -> float | None:
        """Seconds until something is to be done; None when nothing is."""
        due = [next_deadline(self.session), self.settle_by if self.settling is not None else self.check_at]
        due += self.missing.values() if self.settling is None else []
        times = [time for time in due if time is not None]
        return max(0.0, min(times) - now) if times else None
