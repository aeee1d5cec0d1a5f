"""Decides what is told of the connection to the DTC server, and what the client asks of it; knows nothing of the protocol."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from minhos_mesh.sierra_client.depth_feed import DepthStatus
from minhos_mesh.sierra_client.feed import FeedStatus

AWAY: Final = "DTC_AWAY"
"""There is no connection, or it is not ready yet."""
SERVER_CHANGED: Final = "DTC_SERVER_CHANGED"
"""What answers is not the server, or the account, that has the orders."""
NOT_LET_IN: Final = "DTC_NOT_LET_IN"
"""What answers refuses the logon, or has not the account that is configured."""
SYMBOL_UNKNOWN: Final = "DTC_SYMBOL_UNKNOWN"
"""The server does not know a symbol that is to be traded or read."""
TRADING_REFUSED: Final = "DTC_TRADING_REFUSED"
"""The server lets no orders through."""
DATA_NOT_PERMITTED: Final = "DTC_DATA_NOT_PERMITTED"
"""The server refuses market data that was asked for."""
ORDERS_UNKNOWN: Final = "DTC_ORDERS_UNKNOWN"
"""The server's lists do not tell what became of an order."""
SETTLED_OTHERWISE: Final = "DTC_SETTLED_OTHERWISE"
"""The server tells otherwise of an order than a person has settled."""
POSITION_DIFFERS: Final = "DTC_POSITION_DIFFERS"
"""Somebody else has traded on an account that is declared to be ours alone."""
PROBLEMS: Final = (
    AWAY,
    SERVER_CHANGED,
    NOT_LET_IN,
    SYMBOL_UNKNOWN,
    TRADING_REFUSED,
    DATA_NOT_PERMITTED,
    ORDERS_UNKNOWN,
    SETTLED_OTHERWISE,
    POSITION_DIFFERS,
)
"""Every condition that the connection may have."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DtcData:
    """Market data of one symbol over DTC."""

    symbol: str
    state: str
    """WAITING, GRANTED or NOT_PERMITTED."""
    reason: str = ""
    ticks: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class DtcView:
    """The connection at one moment."""

    address: str
    state: str
    """CONNECTING, HANDSHAKE, SETTLING, READY, NOT_PERMITTED or WAITING."""
    reason: str
    since_ns: int
    encoding: str
    server: str
    account: str
    simulated: bool
    trading_permitted: bool | None
    connects: int
    settled: int
    unknown_orders: int
    data: tuple[DtcData, ...]
    unknown_symbols: tuple[str, ...]
    live_refused: str


class DtcPart(Protocol):
    """The connection as the rest of the client sees it."""

    on_change: Callable[[], None]
    """Called after every change of state."""
    fall_back: Callable[[str], None]
    """Called with a symbol whose file is to be followed, since the server refuses its data."""
    depth_fall_back: Callable[[str], None]
    """Called with a symbol whose `.depth` files are to be followed, since the server refuses its order book."""

    def start(self) -> None:
        """Connects, and goes on for ever."""

    def close(self) -> None:
        """Gives files back; the tasks must have ended."""

    def feeds(self) -> Sequence[FeedStatus]:
        """How far what came over DTC has gone to market data."""

    def books(self) -> Sequence[DepthStatus]:
        """What is known of the order books that come over DTC."""

    def problems(self) -> dict[str, str]:
        """What is wrong, a sentence by code."""

    def view(self) -> DtcView:
        """The connection now."""

    def live_refused(self, symbol: str) -> str:
        """Why ticks of a symbol cannot count as LIVE, one sentence; empty when they can."""
