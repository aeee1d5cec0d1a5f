"""Decides the members of the messages with which a DTC session is opened, kept alive and ended."""

from __future__ import annotations

from minhos_mesh.dtc.layout import define

ENCODING_REQUEST = define(
    6,
    "ENCODING_REQUEST",
    """
    i32 ProtocolVersion; i32 Encoding; c4 ProtocolType
    """,
)
ENCODING_RESPONSE = define(
    7,
    "ENCODING_RESPONSE",
    """
    i32 ProtocolVersion; i32 Encoding; c4 ProtocolType
    """,
)
LOGON_REQUEST = define(
    1,
    "LOGON_REQUEST",
    """
    i32 ProtocolVersion; s32 Username; s32 Password; s64 GeneralTextData; i32 Integer_1; i32 Integer_2;
    i32 HeartbeatIntervalInSeconds; i32 TradeMode|Unused1; s32 TradeAccount; s64 HardwareIdentifier;
    s32 ClientName; i32 MarketDataTransmissionInterval
    """,
)
LOGON_RESPONSE = define(
    2,
    "LOGON_RESPONSE",
    """
    i32 ProtocolVersion; i32 Result; t96 ResultText; s64 ReconnectAddress; i32 Integer_1; t60 ServerName;
    u8 MarketDepthUpdatesBestBidAndAsk; u8 TradingIsSupported; u8 OCOOrdersSupported;
    u8 OrderCancelReplaceSupported=1; s4 SymbolExchangeDelimiter; u8 SecurityDefinitionsSupported;
    u8 HistoricalPriceDataSupported; u8 ResubscribeWhenMarketDataFeedAvailable; u8 MarketDepthIsSupported=1;
    u8 OneHistoricalPriceDataRequestPerConnection; u8 BracketOrdersSupported; u8 -Unused_1;
    u8 UsesMultiplePositionsPerSymbolAndTradeAccount; u8 MarketDataSupported=1
    """,
)
HEARTBEAT = define(
    3,
    "HEARTBEAT",
    """
    u32 NumDroppedMessages; sec CurrentDateTime
    """,
)
LOGOFF = define(
    5,
    "LOGOFF",
    """
    t96 Reason; u8 DoNotReconnect
    """,
)

TABLE = (
    ENCODING_REQUEST,
    ENCODING_RESPONSE,
    LOGON_REQUEST,
    LOGON_RESPONSE,
    HEARTBEAT,
    LOGOFF,
)
