"""Decides which changes of the connection to the DTC server are logged: each once, and no line for a retry that fails as before."""

from __future__ import annotations

from collections.abc import Sequence

from minhos_mesh.dtc.session import Close
from minhos_mesh.runtime.log import get_logger
from minhos_mesh.sierra_client.dtc_status import DtcState, DtcStatus

_LOG = get_logger("sierra_client.dtc")


class ConnectionLog:
    """What the log of the service has of one server, over all connections to it."""

    def __init__(self, address: str) -> None:
        """`address` is `host:port`."""
        self._address = address
        self._away = ""
        self._trading_refused = ""

    def ready(self, status: DtcStatus) -> None:
        """Orders of a fresh connection were compared, so that it can be used."""
        granted = status.permissions
        _LOG.info(
            "dtc.connected",
            address=self._address,
            server="" if granted is None else granted.server_name,
            account=status.account,
            encoding=status.encoding.name,
            connects=status.connects,
        )
        refused = status.reason if status.state is DtcState.NOT_PERMITTED else ""
        if refused and refused != self._trading_refused:
            _LOG.warning("dtc.trading_refused", address=self._address, reason=refused)
        self._away, self._trading_refused = "", refused

    def ended(self, close: Close, *, was_ready: bool) -> None:
        """A connection that could be used has ended, or an attempt at one has failed."""
        if not was_ready and close.text == self._away:
            return
        self._away = "" if was_ready else close.text
        event = "dtc.not_let_in" if close.not_let_in else "dtc.lost" if was_ready else "dtc.away"
        _LOG.warning(event, address=self._address, reason=close.text)

    def doubt(self, why: str) -> None:
        """The server is asked again what it has of the orders."""
        _LOG.warning("dtc.doubt", reason=why)

    def unreadable(self, problems: Sequence[str]) -> None:
        """Answers that could not be read while orders were compared."""
        for problem in problems:
            _LOG.warning("dtc.answer_unreadable", problem=problem)
