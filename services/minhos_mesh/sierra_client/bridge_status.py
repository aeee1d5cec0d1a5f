"""Decides what is told about the bridge, and which of it is a problem that a person should know."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field

from minhos_mesh.sierra_client.bridge_orders import TradeStatus
from minhos_mesh.sierra_client.domain import Provenance


class BridgeState(enum.Enum):
    """What is done with the bridge."""

    DISCONNECTED = "DISCONNECTED"
    SILENT = "SILENT"
    STREAMING = "STREAMING"
    POLLING = "POLLING"
    ERROR = "ERROR"


class Way(enum.Enum):
    """What prices come by, in the order in which they are tried."""

    LIVE_DATA = "/ws/live_data"
    MARKET_DATA = "/ws/market_data"
    POLLING = "HTTP"


PROBLEMS: Mapping[BridgeState, str] = {
    BridgeState.DISCONNECTED: "BRIDGE_UNREACHABLE",
    BridgeState.SILENT: "BRIDGE_SILENT",
    BridgeState.ERROR: "FILE_NOT_WRITTEN",
}
"""Code of the condition that a state is."""


@dataclass(frozen=True, slots=True)
class BridgeStatus:
    """What is known of the bridge, as one value."""

    address: str
    provenance: Provenance
    state: BridgeState = BridgeState.DISCONNECTED
    reason: str = "not asked yet"
    """Why, in one sentence; empty while prices come."""
    way: Way | None = None
    dialect: str = ""
    version: str = ""
    quotes_read: int = 0
    """Quotes of wanted symbols."""
    ticks_written: int = 0
    refused: Mapping[str, int] = field(default_factory=dict)
    reconnects: int = 0
    quote_time_ns: int | None = None
    symbols_offered: tuple[str, ...] = ()
    trade_status: TradeStatus = TradeStatus.NOT_ASKED
    trade_status_reason: str = ""
