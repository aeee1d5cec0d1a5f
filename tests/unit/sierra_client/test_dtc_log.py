"""Which changes of the connection to a DTC server the log has."""

from __future__ import annotations

from typing import Any

from structlog.testing import capture_logs

from minhos_mesh.dtc.client_session import permissions
from minhos_mesh.dtc.enums import Encoding
from minhos_mesh.dtc.message import make
from minhos_mesh.dtc.session import Close, CloseReason
from minhos_mesh.dtc.tables.session import LOGON_RESPONSE
from minhos_mesh.sierra_client.dtc_log import ConnectionLog
from minhos_mesh.sierra_client.dtc_status import DtcState, DtcStatus

ADDRESS = "127.0.0.1:11099"
READY = DtcStatus(
    ADDRESS, DtcState.READY, account="Sim1", encoding=Encoding.JSON, connects=1,
    permissions=permissions(make(LOGON_RESPONSE, Result=1, ServerName="SierraChart")),
)  # fmt: skip
REFUSED = DtcStatus(ADDRESS, DtcState.NOT_PERMITTED, reason="trading is not allowed")


def away(text: str, reason: CloseReason = CloseReason.OTHER_SIDE_SILENT) -> Close:
    return Close(reason, text)


def told(logs: list[Any]) -> list[tuple[str, str]]:
    return [(line["event"], line.get("reason", "")) for line in logs]


def test_retries_that_fail_as_before_are_told_once() -> None:
    log = ConnectionLog(ADDRESS)
    with capture_logs() as logs:
        for text in ("no answer", "no answer", "no answer", "refused", "refused", "no answer"):
            log.ended(away(text), was_ready=False)
    assert told(logs) == [("dtc.away", "no answer"), ("dtc.away", "refused"), ("dtc.away", "no answer")]


def test_connect_cut_silence_and_reconnect_are_each_told() -> None:
    log = ConnectionLog(ADDRESS)
    with capture_logs() as logs:
        log.ready(READY)
        log.ended(away("the server closed the connection"), was_ready=True)
        log.ended(away("no answer"), was_ready=False)
        log.ready(READY)
        log.ended(away("the server was silent for 20 s"), was_ready=True)
        log.ended(away("no answer"), was_ready=False)
    connected = ("dtc.connected", "")
    assert told(logs) == [
        connected, ("dtc.lost", "the server closed the connection"), ("dtc.away", "no answer"),
        connected, ("dtc.lost", "the server was silent for 20 s"), ("dtc.away", "no answer"),
    ]  # fmt: skip
    assert {name: logs[0][name] for name in ("address", "server", "account", "encoding", "connects")} == {
        "address": ADDRESS, "server": "SierraChart", "account": "Sim1", "encoding": "JSON", "connects": 1,
    }  # fmt: skip


def test_refused_logon_is_told_as_such() -> None:
    log = ConnectionLog(ADDRESS)
    with capture_logs() as logs:
        for _ in range(2):
            log.ended(away("the password is wrong", CloseReason.LOGON_REFUSED), was_ready=False)
    assert told(logs) == [("dtc.not_let_in", "the password is wrong")]


def test_refused_trading_is_told_again_only_after_it_was_allowed() -> None:
    log = ConnectionLog(ADDRESS)
    with capture_logs() as logs:
        for status in (REFUSED, REFUSED, READY, REFUSED):
            log.ready(status)
    assert [line for line in told(logs) if line[1]] == [("dtc.trading_refused", "trading is not allowed")] * 2
