"""Decides what is told about the connection to the DTC server."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

from minhos_mesh.dtc.client_session import Permissions, Refusal
from minhos_mesh.dtc.enums import Encoding


class DtcState(Enum):
    """What the connection is doing."""

    CONNECTING = "CONNECTING"
    HANDSHAKE = "HANDSHAKE"
    SETTLING = "SETTLING"
    """Orders are being compared with what the server lists; none is sent before that is done."""
    READY = "READY"
    NOT_PERMITTED = "NOT_PERMITTED"
    """Logged on, and the server does not allow trading."""
    WAITING = "WAITING"
    """There is no connection; the reason says why and when it is tried again."""


@dataclass(frozen=True, slots=True)
class DtcStatus:
    """What is known about the connection."""

    address: str
    state: DtcState = DtcState.CONNECTING
    reason: str = ""
    since_ns: int = 0
    connects: int = 0
    """Connections that were opened."""
    settled: int = 0
    """Times that the orders were compared with what the server lists."""
    account: str = ""
    encoding: Encoding = Encoding.BINARY
    permissions: Permissions | None = None
    """What the server granted at the last logon; None before it."""
    refusals: tuple[Refusal, ...] = ()
    """Requests for data that this server does not serve."""
    not_permitted: Mapping[str, str] = field(default_factory=dict)
    """Symbols whose market data the server refuses, with its words: their data files are to be read instead."""
    depth_not_permitted: Mapping[str, str] = field(default_factory=dict)
    """Symbols whose order book the server refuses, with its words."""
    positions: Mapping[str, int] = field(default_factory=dict)
    """Positions as the server listed them when it was last asked."""
    refused: str = ""
    """Why the server does not let us in as we are configured, with its words; empty when it does, or is not reached."""
    unknown_symbols: tuple[str, ...] = ()
    """Symbols that we trade and the server does not know."""
