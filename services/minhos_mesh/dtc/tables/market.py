"""Decides the members of the DTC messages that ask for, refuse and carry quotes and trades."""

from __future__ import annotations

from minhos_mesh.dtc.layout import define

MARKET_DATA_FEED_STATUS = define(
    100,
    "MARKET_DATA_FEED_STATUS",
    """
    i32 Status
    """,
)
MARKET_DATA_FEED_SYMBOL_STATUS = define(
    116,
    "MARKET_DATA_FEED_SYMBOL_STATUS",
    """
    u32 SymbolID; i32 Status
    """,
)
TRADING_SYMBOL_STATUS = define(
    138,
    "TRADING_SYMBOL_STATUS",
    """
    u32 SymbolID; i8 Status
    """,
)
MARKET_DATA_REQUEST = define(
    101,
    "MARKET_DATA_REQUEST",
    """
    i32 RequestAction; u32 SymbolID; s64 Symbol; s16 Exchange; u32 IntervalForSnapshotUpdatesInMilliseconds
    """,
)
MARKET_DATA_REJECT = define(
    103,
    "MARKET_DATA_REJECT",
    """
    u32 SymbolID; t96 RejectText
    """,
)
MARKET_DATA_SNAPSHOT = define(
    104,
    "MARKET_DATA_SNAPSHOT",
    """
    u32 SymbolID; f64 SessionSettlementPrice=unset; f64 SessionOpenPrice=unset; f64 SessionHighPrice=unset;
    f64 SessionLowPrice=unset; f64 SessionVolume=unset; u32 SessionNumTrades=unset; u32 OpenInterest=unset;
    f64 BidPrice=unset; f64 AskPrice=unset; f64 AskQuantity=unset; f64 BidQuantity=unset;
    f64 LastTradePrice=unset; f64 LastTradeVolume=unset; fsec LastTradeDateTime; fsec BidAskDateTime;
    sec4 SessionSettlementDateTime; sec4 TradingSessionDate; i8 TradingStatus; fsec MarketDepthUpdateDateTime
    """,
)
MARKET_DATA_UPDATE_TRADE = define(
    107,
    "MARKET_DATA_UPDATE_TRADE",
    """
    u32 SymbolID; u16 AtBidOrAsk; f64 Price; f64 Volume; fsec DateTime
    """,
)
MARKET_DATA_UPDATE_TRADE_COMPACT = define(
    112,
    "MARKET_DATA_UPDATE_TRADE_COMPACT",
    """
    f32 Price; f32 Volume; sec4 DateTime; u32 SymbolID; u16 AtBidOrAsk
    """,
)
MARKET_DATA_UPDATE_LAST_TRADE_SNAPSHOT = define(
    134,
    "MARKET_DATA_UPDATE_LAST_TRADE_SNAPSHOT",
    """
    u32 SymbolID; f64 LastTradePrice; f64 LastTradeVolume; fsec LastTradeDateTime
    """,
)
MARKET_DATA_UPDATE_TRADE_WITH_UNBUNDLED_INDICATOR = define(
    137,
    "MARKET_DATA_UPDATE_TRADE_WITH_UNBUNDLED_INDICATOR",
    """
    u32 SymbolID; u8 AtBidOrAsk; i8 UnbundledTradeIndicator; u8 TradeCondition; u8 -Reserve_1; u32 -Reserve_2;
    f64 Price; u32 Volume; u32 -Reserve_3; fsec DateTime
    """,
)
MARKET_DATA_UPDATE_TRADE_NO_TIMESTAMP = define(
    142,
    "MARKET_DATA_UPDATE_TRADE_NO_TIMESTAMP",
    """
    u32 SymbolID; f32 Price; u32 Volume; u8 AtBidOrAsk; i8 UnbundledTradeIndicator; i8 TradeCondition
    """,
    pack=1,
)
MARKET_DATA_UPDATE_TRADE_WITH_UNBUNDLED_INDICATOR_2 = define(
    146,
    "MARKET_DATA_UPDATE_TRADE_WITH_UNBUNDLED_INDICATOR_2",
    """
    u32 SymbolID; f32 Price; u32 Volume; us DateTime; u8 AtBidOrAsk; i8 UnbundledTradeIndicator;
    i8 TradeCondition
    """,
    pack=1,
)
MARKET_DATA_UPDATE_BID_ASK = define(
    108,
    "MARKET_DATA_UPDATE_BID_ASK",
    """
    u32 SymbolID; f64 BidPrice=unset; f32 BidQuantity; f64 AskPrice=unset; f32 AskQuantity; sec4 DateTime
    """,
)
MARKET_DATA_UPDATE_BID_ASK_COMPACT = define(
    117,
    "MARKET_DATA_UPDATE_BID_ASK_COMPACT",
    """
    f32 BidPrice=unset; f32 BidQuantity; f32 AskPrice=unset; f32 AskQuantity; sec4 DateTime; u32 SymbolID
    """,
)
MARKET_DATA_UPDATE_BID_ASK_NO_TIMESTAMP = define(
    143,
    "MARKET_DATA_UPDATE_BID_ASK_NO_TIMESTAMP",
    """
    u32 SymbolID; f32 BidPrice=unset; u32 BidQuantity; f32 AskPrice=unset; u32 AskQuantity
    """,
)
MARKET_DATA_UPDATE_BID_ASK_FLOAT_WITH_MICROSECONDS = define(
    144,
    "MARKET_DATA_UPDATE_BID_ASK_FLOAT_WITH_MICROSECONDS",
    """
    u32 SymbolID; f32 BidPrice=unset; f32 BidQuantity; f32 AskPrice=unset; f32 AskQuantity; us DateTime
    """,
)
MARKET_DATA_UPDATE_SESSION_OPEN = define(
    120,
    "MARKET_DATA_UPDATE_SESSION_OPEN",
    """
    u32 SymbolID; f64 Price; sec4 TradingSessionDate
    """,
)
MARKET_DATA_UPDATE_SESSION_HIGH = define(
    114,
    "MARKET_DATA_UPDATE_SESSION_HIGH",
    """
    u32 SymbolID; f64 Price; sec4 TradingSessionDate
    """,
)
MARKET_DATA_UPDATE_SESSION_LOW = define(
    115,
    "MARKET_DATA_UPDATE_SESSION_LOW",
    """
    u32 SymbolID; f64 Price; sec4 TradingSessionDate
    """,
)
MARKET_DATA_UPDATE_SESSION_VOLUME = define(
    113,
    "MARKET_DATA_UPDATE_SESSION_VOLUME",
    """
    u32 SymbolID; f64 Volume; sec4 TradingSessionDate; u8 IsFinalSessionVolume
    """,
)
MARKET_DATA_UPDATE_OPEN_INTEREST = define(
    124,
    "MARKET_DATA_UPDATE_OPEN_INTEREST",
    """
    u32 SymbolID; u32 OpenInterest; sec4 TradingSessionDate
    """,
)
MARKET_DATA_UPDATE_SESSION_SETTLEMENT = define(
    119,
    "MARKET_DATA_UPDATE_SESSION_SETTLEMENT",
    """
    u32 SymbolID; f64 Price; sec4 DateTime
    """,
)
MARKET_DATA_UPDATE_SESSION_NUM_TRADES = define(
    135,
    "MARKET_DATA_UPDATE_SESSION_NUM_TRADES",
    """
    u32 SymbolID; i32 NumTrades; sec4 TradingSessionDate
    """,
)
MARKET_DATA_UPDATE_TRADING_SESSION_DATE = define(
    136,
    "MARKET_DATA_UPDATE_TRADING_SESSION_DATE",
    """
    u32 SymbolID; sec4 Date
    """,
)

TABLE = (
    MARKET_DATA_FEED_STATUS,
    MARKET_DATA_FEED_SYMBOL_STATUS,
    TRADING_SYMBOL_STATUS,
    MARKET_DATA_REQUEST,
    MARKET_DATA_REJECT,
    MARKET_DATA_SNAPSHOT,
    MARKET_DATA_UPDATE_TRADE,
    MARKET_DATA_UPDATE_TRADE_COMPACT,
    MARKET_DATA_UPDATE_LAST_TRADE_SNAPSHOT,
    MARKET_DATA_UPDATE_TRADE_WITH_UNBUNDLED_INDICATOR,
    MARKET_DATA_UPDATE_TRADE_NO_TIMESTAMP,
    MARKET_DATA_UPDATE_TRADE_WITH_UNBUNDLED_INDICATOR_2,
    MARKET_DATA_UPDATE_BID_ASK,
    MARKET_DATA_UPDATE_BID_ASK_COMPACT,
    MARKET_DATA_UPDATE_BID_ASK_NO_TIMESTAMP,
    MARKET_DATA_UPDATE_BID_ASK_FLOAT_WITH_MICROSECONDS,
    MARKET_DATA_UPDATE_SESSION_OPEN,
    MARKET_DATA_UPDATE_SESSION_HIGH,
    MARKET_DATA_UPDATE_SESSION_LOW,
    MARKET_DATA_UPDATE_SESSION_VOLUME,
    MARKET_DATA_UPDATE_OPEN_INTEREST,
    MARKET_DATA_UPDATE_SESSION_SETTLEMENT,
    MARKET_DATA_UPDATE_SESSION_NUM_TRADES,
    MARKET_DATA_UPDATE_TRADING_SESSION_DATE,
)
