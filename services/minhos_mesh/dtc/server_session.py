"""Decides what a DTC server answers, from the first byte of a client until it is logged on."""

from __future__ import annotations

from dataclasses import dataclass, replace

from minhos_mesh.dtc.enums import PROTOCOL_TYPE, PROTOCOL_VERSION, SIMULATOR_NAME, Encoding, LogonStatus
from minhos_mesh.dtc.message import Message, make
from minhos_mesh.dtc.session import (
    Action,
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
from minhos_mesh.dtc.tables.session import (
    ENCODING_REQUEST,
    ENCODING_RESPONSE,
    HEARTBEAT,
    LOGOFF,
    LOGON_REQUEST,
    LOGON_RESPONSE,
)

LONGEST_HEARTBEAT_S = 3600


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerSettings:
    """What a server offers."""

    name: str = SIMULATOR_NAME
    text: str = ""
    """What the answer to a logon says, for example the service behind it."""
    encoding: Encoding | None = None
    """The only encoding it speaks; None is what Sierra Chart calls Automatic."""
    username: str = ""
    """Empty lets anybody in."""
    password: str = ""
    trading: bool = True
    market_data: bool = True
    depth: bool = True
    history: bool = True

    def __repr__(self) -> str:
        return f"ServerSettings(name={self.name!r}, username={self.username!r})"


def begin(settings: ServerSettings, now: float) -> Session:
    """A client has connected."""
    return Session(
        phase=Phase.AWAITING_ENCODING,
        encoding=settings.encoding or Encoding.BINARY,
        heartbeat_s=None,
        since=now,
        heard=now,
        beaten=now,
    )


def spoken_first(session: Session, json: bool) -> Session:
    """Follows a client that begins in JSON without a handshake."""
    if json and session.phase is Phase.AWAITING_ENCODING and session.encoding is Encoding.BINARY:
        return replace(session, encoding=Encoding.JSON)
    return session


def received(session: Session, settings: ServerSettings, message: Message, now: float) -> Step:
    """Takes a message of the client; what is not about the session itself changes nothing once it is logged on."""
    session = heard(session, now)
    if session.phase is Phase.CLOSED:
        return Step(session)
    if message.layout is LOGOFF:
        return logged_off(session, message)
    if message.layout is ENCODING_REQUEST:
        return _agree(session, settings, message)
    if session.phase is Phase.READY or message.layout is HEARTBEAT:
        return Step(session)
    if message.layout is LOGON_REQUEST:
        return _log_on(session, settings, message, now)
    return closed(session, CloseReason.PROTOCOL_BROKEN, f"{message.name} came before the logon")


def _agree(session: Session, settings: ServerSettings, message: Message) -> Step:
    wanted = message.integer("Encoding")
    known = wanted in {int(encoding) for encoding in SUPPORTED} and settings.encoding is None
    granted = Encoding(wanted) if known else (settings.encoding or Encoding.BINARY)
    answer = make(
        ENCODING_RESPONSE, ProtocolVersion=PROTOCOL_VERSION, Encoding=int(granted), ProtocolType=PROTOCOL_TYPE
    )
    phase = Phase.AWAITING_LOGON if session.phase is Phase.AWAITING_ENCODING else session.phase
    actions: tuple[Action, ...] = (Send(answer, session.encoding), Switch(granted))
    return Step(replace(session, phase=phase, encoding=granted), actions)


def _log_on(session: Session, settings: ServerSettings, message: Message, now: float) -> Step:
    who = (message.text("Username"), message.text("Password"))
    if settings.username and who != (settings.username, settings.password):
        answer = make(LOGON_RESPONSE, ProtocolVersion=PROTOCOL_VERSION, Result=int(LogonStatus.ERROR_NO_RECONNECT),
                      ResultText="Username or password is not right", ServerName=settings.name)  # fmt: skip
        step = closed(session, CloseReason.LOGON_REFUSED, "a client gave another user name or password")
        return Step(step.session, (Send(answer, session.encoding), *step.actions))
    asked = message.integer("HeartbeatIntervalInSeconds")
    interval = float(min(asked, LONGEST_HEARTBEAT_S)) if asked > 0 else None
    answer = make(
        LOGON_RESPONSE,
        ProtocolVersion=PROTOCOL_VERSION,
        Result=int(LogonStatus.SUCCESS),
        ResultText=settings.text,
        ServerName=settings.name,
        TradingIsSupported=int(settings.trading),
        OrderCancelReplaceSupported=int(settings.trading),
        MarketDataSupported=int(settings.market_data),
        MarketDepthIsSupported=int(settings.depth),
        HistoricalPriceDataSupported=int(settings.history),
        SecurityDefinitionsSupported=1,
        ResubscribeWhenMarketDataFeedAvailable=1,
        OneHistoricalPriceDataRequestPerConnection=1,
    )
    return Step(ready(session, now, interval), (Send(answer, session.encoding), LoggedOn(message)))
