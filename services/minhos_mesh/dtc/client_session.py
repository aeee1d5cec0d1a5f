"""Decides what a DTC client says and waits for, from the first byte until orders may flow, and what the server permits."""

from __future__ import annotations

from dataclasses import dataclass, replace

from minhos_mesh.dtc.enums import (
    PROTOCOL_TYPE,
    PROTOCOL_VERSION,
    SIMULATOR_NAME,
    Encoding,
    HistoryRejectReason,
    LogonFlag,
    LogonStatus,
    TradeMode,
)
from minhos_mesh.dtc.message import Message, make
from minhos_mesh.dtc.session import (
    CloseReason,
    LoggedOn,
    Phase,
    Send,
    Session,
    Step,
    Switch,
    closed,
    heard,
    logged_off,
    ready,
)
from minhos_mesh.dtc.stream import SUPPORTED
from minhos_mesh.dtc.tables.depth import MARKET_DEPTH_REJECT
from minhos_mesh.dtc.tables.history import HISTORICAL_PRICE_DATA_REJECT
from minhos_mesh.dtc.tables.market import MARKET_DATA_REJECT
from minhos_mesh.dtc.tables.session import ENCODING_REQUEST, ENCODING_RESPONSE, LOGOFF, LOGON_REQUEST, LOGON_RESPONSE


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientSettings:
    """What a client asks for."""

    encoding: Encoding = Encoding.JSON
    ask_encoding: bool = True
    """False for a server that is set to one encoding: it then expects that encoding from the first byte."""
    heartbeat_s: int | None = 10
    """Seconds between heartbeats, 5 to 60 for Sierra Chart; None on a connection for history."""
    username: str = ""
    password: str = ""
    client_name: str = "MinhOS Mesh"
    trade_account: str = ""
    trade_mode: TradeMode = TradeMode.UNSET
    flags: LogonFlag = LogonFlag.RECOMMENDED

    def __repr__(self) -> str:
        return f"ClientSettings(encoding={self.encoding.name}, username={self.username!r})"


@dataclass(frozen=True, slots=True)
class Permissions:
    """What the server grants, from its answer to the logon."""

    server_name: str
    text: str
    trading: bool
    """False when its owner has not allowed trading over DTC."""
    market_data: bool
    depth: bool
    history: bool
    definitions: bool
    cancel_replace: bool
    one_history_per_connection: bool
    resubscribe: bool

    @property
    def simulated(self) -> bool:
        """Whether the server says that it is a simulator: nothing of it can count as LIVE."""
        return self.server_name.startswith(SIMULATOR_NAME)

    def refused(self) -> tuple[str, ...]:
        """What is not permitted, a sentence each."""
        told = (
            (self.trading, "trading is not permitted: 'Allow Trading' is off at the server"),
            (self.market_data, "market data is not permitted over DTC: read the data files instead"),
            (self.history, "historical data is not permitted over DTC: read the data files instead"),
        )
        return tuple(text for granted, text in told if not granted)


@dataclass(frozen=True, slots=True)
class Refusal:
    """One request for data that the server does not serve."""

    kind: str
    """MARKET_DATA, DEPTH or HISTORY."""
    key: int
    """SymbolID of the first two, RequestID of history."""
    permitted: bool
    """False: not permitted, asking again changes nothing. True: it may be asked for again later."""
    retry_s: int
    """Seconds to wait before that."""
    text: str


def begin(settings: ClientSettings, now: float) -> Step:
    """Opens a session on a fresh connection."""
    session = Session(
        phase=Phase.AWAITING_ENCODING,
        encoding=Encoding.BINARY,
        heartbeat_s=None if settings.heartbeat_s is None else float(settings.heartbeat_s),
        since=now,
        heard=now,
        beaten=now,
    )
    if not settings.ask_encoding:
        return _log_on(replace(session, encoding=settings.encoding), settings, now)
    question = make(
        ENCODING_REQUEST,
        ProtocolVersion=PROTOCOL_VERSION,
        Encoding=int(settings.encoding),
        ProtocolType=PROTOCOL_TYPE,
    )
    return Step(session, (Send(question, Encoding.BINARY),))


def received(session: Session, settings: ClientSettings, message: Message, now: float) -> Step:
    """Takes a message of the server; what is not about the session itself changes nothing."""
    session = heard(session, now)
    if session.phase is Phase.CLOSED:
        return Step(session)
    if message.layout is LOGOFF:
        return logged_off(session, message)
    if session.phase is Phase.AWAITING_ENCODING and message.layout is ENCODING_RESPONSE:
        return _encoding_answered(session, settings, message, now)
    if session.phase is Phase.AWAITING_LOGON and message.layout is LOGON_RESPONSE:
        return _logon_answered(session, settings, message, now)
    return Step(session)


def _encoding_answered(session: Session, settings: ClientSettings, message: Message, now: float) -> Step:
    number = message.integer("Encoding")
    if number not in {int(known) for known in SUPPORTED}:
        seen = Encoding(number).name if number in set(Encoding) else str(number)
        text = f"the server speaks encoding {seen}: set it to Automatic, JSON or Binary"
        return closed(session, CloseReason.ENCODING_UNSUPPORTED, text)
    return _log_on(replace(session, encoding=Encoding(number)), settings, now)


def _log_on(session: Session, settings: ClientSettings, now: float) -> Step:
    request = make(
        LOGON_REQUEST,
        ProtocolVersion=PROTOCOL_VERSION,
        Username=settings.username,
        Password=settings.password,
        Integer_1=int(settings.flags),
        HeartbeatIntervalInSeconds=-1 if settings.heartbeat_s is None else settings.heartbeat_s,
        TradeMode=int(settings.trade_mode),
        TradeAccount=settings.trade_account,
        ClientName=settings.client_name,
    )
    session = replace(session, phase=Phase.AWAITING_LOGON, since=now)
    return Step(session, (Switch(session.encoding), Send(request, session.encoding)))


def _logon_answered(session: Session, settings: ClientSettings, message: Message, now: float) -> Step:
    result, text = message.integer("Result"), message.text("ResultText")
    if result == LogonStatus.SUCCESS:
        interval = None if settings.heartbeat_s is None else float(settings.heartbeat_s)
        return Step(ready(session, now, interval), (LoggedOn(message),))
    if result == LogonStatus.RECONNECT_NEW_ADDRESS:
        address = message.text("ReconnectAddress")
        return closed(session, CloseReason.REDIRECTED, f"the server sends us to {address}", address=address)
    told = f"the server refused the logon: {text or f'result {result}'}"
    again = result != LogonStatus.ERROR_NO_RECONNECT
    return closed(session, CloseReason.LOGON_REFUSED, told, reconnect=again)


def permissions(answer: Message) -> Permissions:
    """What an answer to a logon grants."""
    return Permissions(
        server_name=answer.text("ServerName"),
        text=answer.text("ResultText"),
        trading=answer.flag("TradingIsSupported"),
        market_data=answer.flag("MarketDataSupported"),
        depth=answer.flag("MarketDepthIsSupported"),
        history=answer.flag("HistoricalPriceDataSupported"),
        definitions=answer.flag("SecurityDefinitionsSupported"),
        cancel_replace=answer.flag("OrderCancelReplaceSupported"),
        one_history_per_connection=answer.flag("OneHistoricalPriceDataRequestPerConnection"),
        resubscribe=answer.flag("ResubscribeWhenMarketDataFeedAvailable"),
    )


def refusal(message: Message) -> Refusal | None:
    """What a reject of data means; None for any other message."""
    if message.layout is MARKET_DATA_REJECT:
        return Refusal("MARKET_DATA", message.integer("SymbolID"), False, 0, message.text("RejectText"))
    if message.layout is MARKET_DEPTH_REJECT:
        return Refusal("DEPTH", message.integer("SymbolID"), False, 0, message.text("RejectText"))
    if message.layout is not HISTORICAL_PRICE_DATA_REJECT:
        return None
    code = message.integer("RejectReasonCode")
    again = code in {HistoryRejectReason.RETRY_IN_SPECIFIED_SECONDS, HistoryRejectReason.OUTSIDE_BOUNDS}
    wait = message.integer("RetryTimeInSeconds") if code == HistoryRejectReason.RETRY_IN_SPECIFIED_SECONDS else 0
    return Refusal("HISTORY", message.integer("RequestID"), again, wait, message.text("RejectText"))
