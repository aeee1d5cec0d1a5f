"""Decides the members of the DTC messages about orders, fills and positions."""

from __future__ import annotations

from minhos_mesh.dtc.layout import define

SUBMIT_NEW_SINGLE_ORDER = define(
    208,
    "SUBMIT_NEW_SINGLE_ORDER",
    """
    s64 Symbol; s16 Exchange; s32 TradeAccount; s32 ClientOrderID; i32 OrderType; i32 BuySell; f64 Price1;
    f64 Price2; f64 Quantity; i32 TimeInForce; sec GoodTillDateTime; u8 IsAutomatedOrder; u8 IsParentOrder;
    s48 FreeFormText; i32 OpenOrClose; f64 MaxShowQuantity; s16 Price1AsString; s16 Price2AsString
    """,
)
CANCEL_ORDER = define(
    203,
    "CANCEL_ORDER",
    """
    s32 ServerOrderID; s32 ClientOrderID; s32 TradeAccount
    """,
)
CANCEL_REPLACE_ORDER = define(
    204,
    "CANCEL_REPLACE_ORDER",
    """
    s32 ServerOrderID; s32 ClientOrderID; f64 Price1; f64 Price2; f64 Quantity; u8 Price1IsSet=1;
    u8 Price2IsSet=1; i32 -Unused; i32 TimeInForce; sec GoodTillDateTime; u8 UpdatePrice1OffsetToParent;
    s32 TradeAccount; s16 Price1AsString; s16 Price2AsString
    """,
)
SUBMIT_FLATTEN_POSITION_ORDER = define(
    209,
    "SUBMIT_FLATTEN_POSITION_ORDER",
    """
    s64 Symbol; s16 Exchange; s32 TradeAccount; s32 ClientOrderID; s48 FreeFormText; u8 IsAutomatedOrder
    """,
)
OPEN_ORDERS_REQUEST = define(
    300,
    "OPEN_ORDERS_REQUEST",
    """
    i32 RequestID; i32 RequestAllOrders=1; s32 ServerOrderID; s32 TradeAccount
    """,
)
ORDER_UPDATE = define(
    301,
    "ORDER_UPDATE",
    """
    i32 RequestID; i32 TotalNumMessages; i32 MessageNumber; s64 Symbol; s16 Exchange; s32 PreviousServerOrderID;
    s32 ServerOrderID; s32 ClientOrderID; s32 ExchangeOrderID; i32 OrderStatus; i32 OrderUpdateReason;
    i32 OrderType; i32 BuySell; f64 Price1=unset; f64 Price2=unset; i32 TimeInForce; sec GoodTillDateTime;
    f64 OrderQuantity=unset; f64 FilledQuantity=unset; f64 RemainingQuantity=unset; f64 AverageFillPrice=unset;
    f64 LastFillPrice=unset; ms LastFillDateTime; f64 LastFillQuantity=unset; s64 LastFillExecutionID;
    s32 TradeAccount; t96 InfoText; u8 NoOrders; s32 ParentServerOrderID; s32 OCOLinkedOrderServerOrderID;
    i32 OpenOrClose; s32 PreviousClientOrderID; s48 FreeFormText; ms OrderReceivedDateTime;
    fsec LatestTransactionDateTime; s32 Username
    """,
)
OPEN_ORDERS_REJECT = define(
    302,
    "OPEN_ORDERS_REJECT",
    """
    i32 RequestID; t96 RejectText
    """,
)
HISTORICAL_ORDER_FILLS_REQUEST = define(
    303,
    "HISTORICAL_ORDER_FILLS_REQUEST",
    """
    i32 RequestID; s32 ServerOrderID; i32 NumberOfDays; s32 TradeAccount; sec StartDateTime
    """,
)
HISTORICAL_ORDER_FILL_RESPONSE = define(
    304,
    "HISTORICAL_ORDER_FILL_RESPONSE",
    """
    i32 RequestID; i32 TotalNumberMessages; i32 MessageNumber; s64 Symbol; s16 Exchange; s32 ServerOrderID;
    i32 BuySell; f64 Price; sec DateTime; f64 Quantity; s64 UniqueExecutionID; s32 TradeAccount; i32 OpenClose;
    u8 NoOrderFills; t96 InfoText; f64 HighPriceDuringPosition; f64 LowPriceDuringPosition;
    f64 PositionQuantity=unset
    """,
)
HISTORICAL_ORDER_FILLS_REJECT = define(
    308,
    "HISTORICAL_ORDER_FILLS_REJECT",
    """
    i32 RequestID; t96 RejectText
    """,
)
CURRENT_POSITIONS_REQUEST = define(
    305,
    "CURRENT_POSITIONS_REQUEST",
    """
    i32 RequestID; s32 TradeAccount
    """,
)
POSITION_UPDATE = define(
    306,
    "POSITION_UPDATE",
    """
    i32 RequestID; i32 TotalNumberMessages; i32 MessageNumber; s64 Symbol; s16 Exchange; f64 Quantity;
    f64 AveragePrice; s32 PositionIdentifier; s32 TradeAccount; u8 NoPositions; u8 Unsolicited;
    f64 MarginRequirement; sec4 EntryDateTime; f64 OpenProfitLoss; f64 HighPriceDuringPosition;
    f64 LowPriceDuringPosition; f64 QuantityLimit; f64 MaxPotentialPostionQuantity
    """,
)
CURRENT_POSITIONS_REJECT = define(
    307,
    "CURRENT_POSITIONS_REJECT",
    """
    i32 RequestID; t96 RejectText
    """,
)

TABLE = (
    SUBMIT_NEW_SINGLE_ORDER,
    CANCEL_ORDER,
    CANCEL_REPLACE_ORDER,
    SUBMIT_FLATTEN_POSITION_ORDER,
    OPEN_ORDERS_REQUEST,
    ORDER_UPDATE,
    OPEN_ORDERS_REJECT,
    HISTORICAL_ORDER_FILLS_REQUEST,
    HISTORICAL_ORDER_FILL_RESPONSE,
    HISTORICAL_ORDER_FILLS_REJECT,
    CURRENT_POSITIONS_REQUEST,
    POSITION_UPDATE,
    CURRENT_POSITIONS_REJECT,
)
