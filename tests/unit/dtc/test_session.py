from __future__ import annotations

from dataclasses import replace

import pytest

from minhos_mesh.dtc import client_session, server_session
from minhos_mesh.dtc.client_session import ClientSettings, permissions, refusal
from minhos_mesh.dtc.enums import Encoding, HistoryRejectReason, LogonStatus
from minhos_mesh.dtc.message import Message, make
from minhos_mesh.dtc.server_session import ServerSettings
from minhos_mesh.dtc.session import (
    HANDSHAKE_TIMEOUT_S,
    Close,
    CloseReason,
    LoggedOn,
    Phase,
    Send,
    Session,
    Step,
    Switch,
    heard,
    log_off,
    next_deadline,
    tick,
)
from minhos_mesh.dtc.tables.depth import MARKET_DEPTH_REJECT
from minhos_mesh.dtc.tables.history import HISTORICAL_PRICE_DATA_REJECT
from minhos_mesh.dtc.tables.market import MARKET_DATA_REJECT, MARKET_DATA_REQUEST
from minhos_mesh.dtc.tables.session import (
    ENCODING_REQUEST,
    ENCODING_RESPONSE,
    HEARTBEAT,
    LOGOFF,
    LOGON_REQUEST,
    LOGON_RESPONSE,
)

CLIENT = ClientSettings(heartbeat_s=10)
SERVER = ServerSettings()


def sent(step: Step) -> list[Message]:
    return [action.message for action in step.actions if isinstance(action, Send)]


def closing(step: Step) -> Close:
    (found,) = [action for action in step.actions if isinstance(action, Close)]
    assert step.session.phase is Phase.CLOSED
    return found


def answered(encoding: int = 2) -> Step:
    session = client_session.begin(CLIENT, 0.0).session
    return client_session.received(session, CLIENT, make(ENCODING_RESPONSE, Encoding=encoding), 0.5)


def logged_on(now: float = 1.0) -> Session:
    step = client_session.received(answered().session, CLIENT, make(LOGON_RESPONSE, Result=1), now)
    assert isinstance(step.actions[0], LoggedOn)
    return step.session


def test_client_asks_for_an_encoding_in_binary_and_then_waits() -> None:
    step = client_session.begin(CLIENT, 0.0)
    (action,) = step.actions
    assert isinstance(action, Send)
    assert action.encoding is Encoding.BINARY
    assert action.message == make(ENCODING_REQUEST, ProtocolVersion=8, Encoding=2, ProtocolType="DTC")
    assert step.session.phase is Phase.AWAITING_ENCODING


def test_client_logs_on_in_the_encoding_that_the_server_granted() -> None:
    step = answered(encoding=0)
    assert step.actions[0] == Switch(Encoding.BINARY)
    (request,) = sent(step)
    assert request.layout is LOGON_REQUEST
    assert request.integer("HeartbeatIntervalInSeconds") == 10
    assert request.integer("Integer_1") == 0x180884


@pytest.mark.parametrize(("number", "name"), [(3, "JSON_COMPACT"), (4, "PROTOBUF"), (99, "99")])
def test_encoding_that_is_not_spoken_here_ends_the_session_with_advice(number: int, name: str) -> None:
    close = closing(answered(encoding=number))
    assert close.reason is CloseReason.ENCODING_UNSUPPORTED
    assert name in close.text
    assert "Automatic" in close.text


def test_a_server_of_one_encoding_is_spoken_to_in_it_from_the_first_byte() -> None:
    settings = replace(CLIENT, ask_encoding=False)
    step = client_session.begin(settings, 0.0)
    assert step.actions[0] == Switch(Encoding.JSON)
    assert [message.layout for message in sent(step)] == [LOGON_REQUEST]


@pytest.mark.parametrize("session", [client_session.begin(CLIENT, 0.0).session, answered().session])
def test_handshake_without_an_answer_is_given_up(session: Session) -> None:
    due = session.since + HANDSHAKE_TIMEOUT_S
    assert next_deadline(session) == due
    assert tick(session, due - 0.01, 0).actions == ()
    assert closing(tick(session, due, 0)).reason in {CloseReason.NO_ENCODING_ANSWER, CloseReason.NO_LOGON}


@pytest.mark.parametrize(
    ("result", "reason", "reconnect", "address"),
    [
        (LogonStatus.ERROR, CloseReason.LOGON_REFUSED, True, ""),
        (LogonStatus.ERROR_NO_RECONNECT, CloseReason.LOGON_REFUSED, False, ""),
        (LogonStatus.RECONNECT_NEW_ADDRESS, CloseReason.REDIRECTED, True, "other:11099"),
        (0, CloseReason.LOGON_REFUSED, True, ""),
    ],
)
def test_refused_logon_says_whether_to_come_back(
    result: int, reason: CloseReason, reconnect: bool, address: str
) -> None:
    answer = make(LOGON_RESPONSE, Result=int(result), ResultText="no such account", ReconnectAddress=address)
    close = closing(client_session.received(answered().session, CLIENT, answer, 1.0))
    assert (close.reason, close.reconnect, close.address) == (reason, reconnect, address)
    if reason is CloseReason.LOGON_REFUSED:
        assert "no such account" in close.text


def test_each_side_sends_a_heartbeat_every_interval() -> None:
    session = logged_on(now=1.0)
    assert next_deadline(session) == 11.0
    step = tick(heard(session, 9.0), 11.0, wall_s=1_621_443_600, dropped=3)
    assert sent(step) == [make(HEARTBEAT, NumDroppedMessages=3, CurrentDateTime=1_621_443_600)]
    assert next_deadline(step.session) == 21.0


def test_silence_of_two_intervals_ends_the_session_and_any_byte_prevents_it() -> None:
    session = tick(logged_on(now=1.0), 11.0, 0).session
    close = closing(tick(session, 21.0, 0))
    assert close.reason is CloseReason.OTHER_SIDE_SILENT
    assert close.reconnect
    assert tick(heard(session, 5.0), 21.0, 0).session.phase is Phase.READY


def test_connection_for_history_has_no_heartbeats() -> None:
    settings = replace(CLIENT, heartbeat_s=None)
    session = client_session.begin(settings, 0.0).session
    step = client_session.received(session, settings, make(ENCODING_RESPONSE, Encoding=2), 0.5)
    assert sent(step)[0].integer("HeartbeatIntervalInSeconds") == -1
    session = client_session.received(step.session, settings, make(LOGON_RESPONSE, Result=1), 1.0).session
    assert next_deadline(session) is None


@pytest.mark.parametrize("final", [0, 1])
def test_logoff_of_the_server_says_whether_to_come_back(final: int) -> None:
    message = make(LOGOFF, Reason="going down", DoNotReconnect=final)
    close = closing(client_session.received(logged_on(), CLIENT, message, 2.0))
    assert (close.text, close.reconnect) == ("going down", not final)


def test_our_logoff_is_said_before_the_connection_closes() -> None:
    step = log_off(logged_on(), "stopping")
    assert sent(step) == [make(LOGOFF, Reason="stopping")]
    assert isinstance(step.actions[-1], Close)
    assert log_off(step.session, "again").actions == ()


def test_a_closed_session_takes_nothing_more() -> None:
    session = log_off(logged_on(), "stopping").session
    assert client_session.received(session, CLIENT, make(LOGON_RESPONSE, Result=1), 9.0).actions == ()
    assert next_deadline(session) is None


def test_what_the_server_does_not_grant_is_named() -> None:
    granted = permissions(make(LOGON_RESPONSE, Result=1, TradingIsSupported=1, HistoricalPriceDataSupported=1))
    assert granted.refused() == ()
    told = permissions(make(LOGON_RESPONSE, Result=1, MarketDataSupported=0)).refused()
    assert any("Allow Trading" in text for text in told)
    assert any("read the data files instead" in text for text in told)


def test_refused_data_is_not_asked_for_again() -> None:
    text = "Exchange data is not permitted"
    market = refusal(make(MARKET_DATA_REJECT, SymbolID=7, RejectText=text))
    depth = refusal(make(MARKET_DEPTH_REJECT, SymbolID=8, RejectText=text))
    assert market is not None
    assert depth is not None
    assert (market.kind, market.key, market.permitted, market.text) == ("MARKET_DATA", 7, False, text)
    assert (depth.kind, depth.key, depth.permitted) == ("DEPTH", 8, False)
    assert refusal(make(HEARTBEAT)) is None


@pytest.mark.parametrize(
    ("code", "permitted", "wait"),
    [
        (HistoryRejectReason.RETRY_IN_SPECIFIED_SECONDS, True, 30),
        (HistoryRejectReason.DO_NOT_RETRY, False, 0),
        (HistoryRejectReason.OUTSIDE_BOUNDS, True, 0),
        (HistoryRejectReason.GENERAL_ERROR, False, 0),
        (HistoryRejectReason.UNSET, False, 0),
    ],
)
def test_refused_history_says_when_it_may_be_asked_for_again(
    code: HistoryRejectReason, permitted: bool, wait: int
) -> None:
    message = make(HISTORICAL_PRICE_DATA_REJECT, RequestID=3, RejectReasonCode=int(code), RetryTimeInSeconds=30)
    found = refusal(message)
    assert found is not None
    assert (found.kind, found.key, found.permitted, found.retry_s) == ("HISTORY", 3, permitted, wait)


def served(settings: ServerSettings, *messages: Message) -> Step:
    step = Step(server_session.begin(settings, 0.0))
    for message in messages:
        step = server_session.received(step.session, settings, message, 1.0)
    return step


@pytest.mark.parametrize(("asked", "granted"), [(0, 0), (1, 1), (2, 2), (3, 0), (4, 0), (77, 0)])
def test_server_grants_what_it_speaks_and_answers_in_the_old_encoding(asked: int, granted: int) -> None:
    step = served(SERVER, make(ENCODING_REQUEST, Encoding=asked))
    answer, switch = step.actions
    assert isinstance(answer, Send)
    assert (answer.encoding, answer.message.integer("Encoding")) == (Encoding.BINARY, granted)
    assert switch == Switch(Encoding(granted))
    assert step.session.phase is Phase.AWAITING_LOGON


def test_server_of_one_encoding_grants_only_that() -> None:
    step = served(ServerSettings(encoding=Encoding.JSON), make(ENCODING_REQUEST, Encoding=0))
    assert step.actions[1] == Switch(Encoding.JSON)


def test_server_takes_a_client_that_begins_in_json() -> None:
    session = server_session.spoken_first(server_session.begin(SERVER, 0.0), json=True)
    assert session.encoding is Encoding.JSON
    assert server_session.spoken_first(server_session.begin(SERVER, 0.0), json=False).encoding is Encoding.BINARY


def test_server_logs_on_whoever_comes_and_says_what_it_grants() -> None:
    settings = ServerSettings(market_data=False, trading=True)
    step = served(settings, make(LOGON_REQUEST, HeartbeatIntervalInSeconds=7))
    (answer,) = sent(step)
    assert answer.integer("Result") == 1
    assert not permissions(answer).market_data
    assert permissions(answer).trading
    assert (step.session.phase, step.session.heartbeat_s) == (Phase.READY, 7.0)


@pytest.mark.parametrize(
    ("username", "password", "lets_in"), [("me", "right", True), ("me", "wrong", False), ("", "", False)]
)
def test_server_with_a_password_lets_only_its_owner_in(username: str, password: str, lets_in: bool) -> None:
    settings = ServerSettings(username="me", password="right")
    step = served(settings, make(LOGON_REQUEST, Username=username, Password=password))
    assert (sent(step)[0].integer("Result") == LogonStatus.SUCCESS) == lets_in
    assert (step.session.phase is Phase.READY) == lets_in
    assert "right" not in repr(settings)


def test_request_before_the_logon_ends_the_session() -> None:
    close = closing(served(SERVER, make(MARKET_DATA_REQUEST, SymbolID=1)))
    assert close.reason is CloseReason.PROTOCOL_BROKEN
    assert "MARKET_DATA_REQUEST came before the logon" in close.text


def test_encoding_may_be_changed_in_mid_session() -> None:
    session = served(SERVER, make(ENCODING_REQUEST, Encoding=2), make(LOGON_REQUEST)).session
    step = server_session.received(session, SERVER, make(ENCODING_REQUEST, Encoding=0), 5.0)
    answer = step.actions[0]
    assert isinstance(answer, Send)
    assert answer.encoding is Encoding.JSON
    assert step.session.phase is Phase.READY
    assert step.session.encoding is Encoding.BINARY
