"""Decides the numbers of the DTC protocol that this system reads and writes by name."""

from __future__ import annotations

from enum import IntEnum, IntFlag
from typing import Final

PROTOCOL_VERSION: Final = 8
PROTOCOL_TYPE: Final = "DTC"
SIMULATOR_NAME: Final = "MinhOS Sierra Simulator"
"""How the name of a simulated server begins, by which it is told from a real one."""


class Encoding(IntEnum):
    """How messages are written behind the handshake."""

    BINARY = 0
    BINARY_VARIABLE = 1
    JSON = 2
    JSON_COMPACT = 3
    PROTOBUF = 4


class LogonStatus(IntEnum):
    """Answer to a logon."""

    SUCCESS = 1
    ERROR = 2
    ERROR_NO_RECONNECT = 3
    RECONNECT_NEW_ADDRESS = 4


class LogonFlag(IntFlag):
    """Bits of Integer_1 of a LOGON_REQUEST: the forms of market data that the client understands."""

    UNBUNDLED_TRADES = 0x4
    DEPTH_MILLISECONDS = 0x80
    DEPTH_SNAPSHOT_FLOAT = 0x800
    TRADES_MICROSECONDS = 0x80000
    QUOTES_MICROSECONDS = 0x100000
    RECOMMENDED = 0x180884


class TradeMode(IntEnum):
    """Which trading a client asks for at logon."""

    UNSET = 0
    DEMO = 1
    SIMULATED = 2
    LIVE = 3


class RequestAction(IntEnum):
    """What is asked about a symbol."""

    SUBSCRIBE = 1
    UNSUBSCRIBE = 2
    SNAPSHOT = 3
    SNAPSHOT_WITH_INTERVAL_UPDATES = 4


class OrderStatus(IntEnum):
    """Where an order stands at the server."""

    UNSPECIFIED = 0
    ORDER_SENT = 1
    PENDING_OPEN = 2
    PENDING_CHILD = 3
    OPEN = 4
    PENDING_CANCEL_REPLACE = 5
    PENDING_CANCEL = 6
    FILLED = 7
    CANCELED = 8
    REJECTED = 9
    PARTIALLY_FILLED = 10


class UpdateReason(IntEnum):
    """Why an ORDER_UPDATE was sent."""

    UNSET = 0
    OPEN_ORDERS_REQUEST_RESPONSE = 1
    NEW_ORDER_ACCEPTED = 2
    GENERAL_ORDER_UPDATE = 3
    ORDER_FILLED = 4
    ORDER_FILLED_PARTIALLY = 5
    ORDER_CANCELED = 6
    CANCEL_REPLACE_COMPLETE = 7
    NEW_ORDER_REJECTED = 8
    CANCEL_REJECTED = 9
    CANCEL_REPLACE_REJECTED = 10


class OrderType(IntEnum):
    """Type of an order."""

    UNSET = 0
    MARKET = 1
    LIMIT = 2
    STOP = 3
    STOP_LIMIT = 4
    MARKET_IF_TOUCHED = 5
    LIMIT_IF_TOUCHED = 6
    MARKET_LIMIT = 7


class TimeInForce(IntEnum):
    """How long an order works."""

    UNSET = 0
    DAY = 1
    GOOD_TILL_CANCELED = 2
    GOOD_TILL_DATE_TIME = 3
    IMMEDIATE_OR_CANCEL = 4
    ALL_OR_NONE = 5
    FILL_OR_KILL = 6


class BuySell(IntEnum):
    """Side of an order."""

    UNSET = 0
    BUY = 1
    SELL = 2


class AtBidOrAsk(IntEnum):
    """Where a trade took place, or which side of the book is meant."""

    UNSET = 0
    BID = 1
    ASK = 2


class UnbundledTrade(IntEnum):
    """Place of a trade in one that the exchange reported in parts."""

    NONE = 0
    FIRST = 1
    LAST = 2


class DepthUpdate(IntEnum):
    """What happens to a level of the book."""

    UNSET = 0
    INSERT_UPDATE = 1
    DELETE = 2


class FinalUpdate(IntEnum):
    """Place of a message in a batch of depth."""

    UNSET = 0
    TRUE = 1
    FALSE = 2
    BEGIN_BATCH = 3


class FeedStatus(IntEnum):
    """Whether the server receives market data."""

    UNSET = 0
    UNAVAILABLE = 1
    AVAILABLE = 2


class HistoryRejectReason(IntEnum):
    """Why historical data is refused."""

    UNSET = 0
    RETRY_IN_SPECIFIED_SECONDS = 1
    DO_NOT_RETRY = 2
    OUTSIDE_BOUNDS = 3
    GENERAL_ERROR = 4


class SecurityType(IntEnum):
    """Kind of an instrument."""

    UNSET = 0
    FUTURES = 1
    STOCK = 2
    FOREX = 3
    INDEX = 4
