"""Decides the members of the DTC messages that ask for, refuse and carry market depth."""

from __future__ import annotations

from minhos_mesh.dtc.layout import define

MARKET_DEPTH_REQUEST = define(
    102,
    "MARKET_DEPTH_REQUEST",
    """
    i32 RequestAction; u32 SymbolID; s64 Symbol; s16 Exchange; i32 NumLevels
    """,
)
MARKET_DEPTH_REJECT = define(
    121,
    "MARKET_DEPTH_REJECT",
    """
    u32 SymbolID; t96 RejectText
    """,
)
MARKET_DEPTH_SNAPSHOT_LEVEL = define(
    122,
    "MARKET_DEPTH_SNAPSHOT_LEVEL",
    """
    u32 SymbolID; u16 Side; f64 Price; f64 Quantity; u16 Level; u8 IsFirstMessageInBatch;
    u8 IsLastMessageInBatch; fsec DateTime; u32 NumOrders
    """,
)
MARKET_DEPTH_SNAPSHOT_LEVEL_FLOAT = define(
    145,
    "MARKET_DEPTH_SNAPSHOT_LEVEL_FLOAT",
    """
    u32 SymbolID; f32 Price; f32 Quantity; u32 NumOrders; u16 Level; u8 Side; u8 FinalUpdateInBatch
    """,
)
MARKET_DEPTH_UPDATE_LEVEL = define(
    106,
    "MARKET_DEPTH_UPDATE_LEVEL",
    """
    u32 SymbolID; u16 Side; f64 Price; f64 Quantity; u8 UpdateType; fsec DateTime; u32 NumOrders
    """,
)
MARKET_DEPTH_UPDATE_LEVEL_FLOAT_WITH_MILLISECONDS = define(
    140,
    "MARKET_DEPTH_UPDATE_LEVEL_FLOAT_WITH_MILLISECONDS",
    """
    u32 SymbolID; ms DateTime; f32 Price; f32 Quantity; u8 Side; u8 UpdateType; u16 NumOrders;
    u8 FinalUpdateInBatch
    """,
    pack=1,
)
MARKET_DEPTH_UPDATE_LEVEL_NO_TIMESTAMP = define(
    141,
    "MARKET_DEPTH_UPDATE_LEVEL_NO_TIMESTAMP",
    """
    u32 SymbolID; f32 Price; f32 Quantity; u16 NumOrders; i8 Side; i8 UpdateType; u8 FinalUpdateInBatch
    """,
    pack=1,
)

TABLE = (
    MARKET_DEPTH_REQUEST,
    MARKET_DEPTH_REJECT,
    MARKET_DEPTH_SNAPSHOT_LEVEL,
    MARKET_DEPTH_SNAPSHOT_LEVEL_FLOAT,
    MARKET_DEPTH_UPDATE_LEVEL,
    MARKET_DEPTH_UPDATE_LEVEL_FLOAT_WITH_MILLISECONDS,
    MARKET_DEPTH_UPDATE_LEVEL_NO_TIMESTAMP,
)
