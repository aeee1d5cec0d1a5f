"""Decides the members of the DTC messages about accounts, instruments and texts for people."""

from __future__ import annotations

from minhos_mesh.dtc.layout import define

TRADE_ACCOUNTS_REQUEST = define(
    400,
    "TRADE_ACCOUNTS_REQUEST",
    """
    i32 RequestID
    """,
)
TRADE_ACCOUNT_RESPONSE = define(
    401,
    "TRADE_ACCOUNT_RESPONSE",
    """
    i32 TotalNumberMessages; i32 MessageNumber; s32 TradeAccount; i32 RequestID
    """,
)
ACCOUNT_BALANCE_REQUEST = define(
    601,
    "ACCOUNT_BALANCE_REQUEST",
    """
    i32 RequestID; s32 TradeAccount
    """,
)
ACCOUNT_BALANCE_REJECT = define(
    602,
    "ACCOUNT_BALANCE_REJECT",
    """
    i32 RequestID; t96 RejectText
    """,
)
ACCOUNT_BALANCE_UPDATE = define(
    600,
    "ACCOUNT_BALANCE_UPDATE",
    """
    i32 RequestID; f64 CashBalance; f64 BalanceAvailableForNewPositions; s8 AccountCurrency; s32 TradeAccount;
    f64 SecuritiesValue; f64 MarginRequirement; i32 TotalNumberMessages; i32 MessageNumber;
    u8 NoAccountBalances; u8 Unsolicited; f64 OpenPositionsProfitLoss; f64 DailyProfitLoss; t96 InfoText;
    u64 TransactionIdentifier; f64 DailyNetLossLimit; f64 TrailingAccountValueToLimitPositions;
    u8 DailyNetLossLimitReached; u8 IsUnderRequiredMargin; u8 ClosePositionsAtEndOfDay; u8 TradingIsDisabled;
    t96 Description; u8 IsUnderRequiredAccountValue; us TransactionDateTime; f64 MarginRequirementFull;
    f64 MarginRequirementFullPositionsOnly; f64 PeakMarginRequirement
    """,
)
EXCHANGE_LIST_REQUEST = define(
    500,
    "EXCHANGE_LIST_REQUEST",
    """
    i32 RequestID
    """,
)
EXCHANGE_LIST_RESPONSE = define(
    501,
    "EXCHANGE_LIST_RESPONSE",
    """
    i32 RequestID; s16 Exchange; u8 IsFinalMessage; t48 Description
    """,
)
SYMBOLS_FOR_EXCHANGE_REQUEST = define(
    502,
    "SYMBOLS_FOR_EXCHANGE_REQUEST",
    """
    i32 RequestID; s16 Exchange; i32 SecurityType; i32 RequestAction; s64 Symbol
    """,
)
SYMBOL_SEARCH_REQUEST = define(
    508,
    "SYMBOL_SEARCH_REQUEST",
    """
    i32 RequestID; s64 SearchText; s16 Exchange; i32 SecurityType; i32 SearchType
    """,
)
SECURITY_DEFINITION_FOR_SYMBOL_REQUEST = define(
    506,
    "SECURITY_DEFINITION_FOR_SYMBOL_REQUEST",
    """
    i32 RequestID; s64 Symbol; s16 Exchange
    """,
)
SECURITY_DEFINITION_RESPONSE = define(
    507,
    "SECURITY_DEFINITION_RESPONSE",
    """
    i32 RequestID; s64 Symbol; s16 Exchange; i32 SecurityType; t64 Description; f32 MinPriceIncrement;
    i32 PriceDisplayFormat=-1; f32 CurrencyValuePerIncrement; u8 IsFinalMessage;
    f32 FloatToIntPriceMultiplier=1; f32 IntToFloatPriceDivisor=1; s32 UnderlyingSymbol; u8 UpdatesBidAskOnly;
    f32 StrikePrice; u8 PutOrCall; u32 ShortInterest; sec4 SecurityExpirationDate; f32 BuyRolloverInterest;
    f32 SellRolloverInterest; f32 EarningsPerShare; u32 SharesOutstanding; f32 IntToFloatQuantityDivisor;
    u8 HasMarketDepthData=1; f32 DisplayPriceMultiplier=1; s64 ExchangeSymbol; f32 InitialMarginRequirement;
    f32 MaintenanceMarginRequirement; s8 Currency; f32 ContractSize; u32 OpenInterest; sec4 RolloverDate;
    u8 IsDelayed; i64 SecurityIdentifier; s64 ProductIdentifier
    """,
)
SECURITY_DEFINITION_REJECT = define(
    509,
    "SECURITY_DEFINITION_REJECT",
    """
    i32 RequestID; t96 RejectText
    """,
)
USER_MESSAGE = define(
    700,
    "USER_MESSAGE",
    """
    t256 UserMessage; u8 IsPopupMessage=1
    """,
)
GENERAL_LOG_MESSAGE = define(
    701,
    "GENERAL_LOG_MESSAGE",
    """
    t128 MessageText
    """,
)
ALERT_MESSAGE = define(
    702,
    "ALERT_MESSAGE",
    """
    t128 MessageText; s32 TradeAccount
    """,
)

TABLE = (
    TRADE_ACCOUNTS_REQUEST,
    TRADE_ACCOUNT_RESPONSE,
    ACCOUNT_BALANCE_REQUEST,
    ACCOUNT_BALANCE_REJECT,
    ACCOUNT_BALANCE_UPDATE,
    EXCHANGE_LIST_REQUEST,
    EXCHANGE_LIST_RESPONSE,
    SYMBOLS_FOR_EXCHANGE_REQUEST,
    SYMBOL_SEARCH_REQUEST,
    SECURITY_DEFINITION_FOR_SYMBOL_REQUEST,
    SECURITY_DEFINITION_RESPONSE,
    SECURITY_DEFINITION_REJECT,
    USER_MESSAGE,
    GENERAL_LOG_MESSAGE,
    ALERT_MESSAGE,
)
