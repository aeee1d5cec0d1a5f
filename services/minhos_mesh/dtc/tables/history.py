"""Decides the members of the DTC messages that ask for, refuse and carry historical prices."""

from __future__ import annotations

from minhos_mesh.dtc.layout import define

HISTORICAL_PRICE_DATA_REQUEST = define(
    800,
    "HISTORICAL_PRICE_DATA_REQUEST",
    """
    i32 RequestID; s64 Symbol; s16 Exchange; i32 RecordInterval; sec StartDateTime; sec EndDateTime;
    u32 MaxDaysToReturn; u8 UseZLibCompression; u8 RequestDividendAdjustedStockData; u16 Integer_1
    """,
)
HISTORICAL_PRICE_DATA_RESPONSE_HEADER = define(
    801,
    "HISTORICAL_PRICE_DATA_RESPONSE_HEADER",
    """
    i32 RequestID; i32 RecordInterval; u8 UseZLibCompression; u8 NoRecordsToReturn; f32 IntToFloatPriceDivisor
    """,
)
HISTORICAL_PRICE_DATA_REJECT = define(
    802,
    "HISTORICAL_PRICE_DATA_REJECT",
    """
    i32 RequestID; t96 RejectText; i16 RejectReasonCode; u16 RetryTimeInSeconds
    """,
)
HISTORICAL_PRICE_DATA_RECORD_RESPONSE = define(
    803,
    "HISTORICAL_PRICE_DATA_RECORD_RESPONSE",
    """
    i32 RequestID; us StartDateTime; f64 OpenPrice; f64 HighPrice; f64 LowPrice; f64 LastPrice; f64 Volume;
    u32 NumTrades|OpenInterest; f64 BidVolume; f64 AskVolume; u8 IsFinalRecord
    """,
)
HISTORICAL_PRICE_DATA_TICK_RECORD_RESPONSE = define(
    804,
    "HISTORICAL_PRICE_DATA_TICK_RECORD_RESPONSE",
    """
    i32 RequestID; fsec DateTime; u16 AtBidOrAsk; f64 Price; f64 Volume; u8 IsFinalRecord
    """,
)
HISTORICAL_PRICE_DATA_RESPONSE_TRAILER = define(
    807,
    "HISTORICAL_PRICE_DATA_RESPONSE_TRAILER",
    """
    i32 RequestID; us FinalRecordLastDateTime
    """,
)

TABLE = (
    HISTORICAL_PRICE_DATA_REQUEST,
    HISTORICAL_PRICE_DATA_RESPONSE_HEADER,
    HISTORICAL_PRICE_DATA_REJECT,
    HISTORICAL_PRICE_DATA_RECORD_RESPONSE,
    HISTORICAL_PRICE_DATA_TICK_RECORD_RESPONSE,
    HISTORICAL_PRICE_DATA_RESPONSE_TRAILER,
)
