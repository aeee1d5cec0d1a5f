"""Decides what faults that are asked for make the DTC server do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from minhos_mesh.sierra_simulator.domain.faults import FaultKind, FaultOrder
from minhos_mesh.sierra_simulator.dtc_faults import LATE_S, FaultRates
from minhos_mesh.sierra_simulator.dtc_server import DtcServer

_COUNTED: Final = {
    FaultKind.DTC_SILENCE: "hushed",
    FaultKind.DTC_DISCONNECT: "drop_connection",
    FaultKind.DTC_DUPLICATES: "duplicate",
    FaultKind.DTC_LATE_FILLS: "late",
    FaultKind.DTC_REJECTS: "reject",
    FaultKind.DTC_PARTIAL_FILLS: "thin",
    FaultKind.DTC_UNKNOWN_MESSAGES: "unknown",
}


class ServerFaults:
    """The faults of one DTC server."""

    def __init__(self, server: DtcServer) -> None:
        self._server = server

    def apply(self, orders: Sequence[FaultOrder]) -> None:
        """Has exactly these go wrong from now on; of several of one kind the most frequent counts."""
        rates = dict.fromkeys(_COUNTED, 0.0)
        late_s = LATE_S
        for order in orders:
            rates[order.kind] = max(rates[order.kind], 1.0 if order.probability is None else order.probability)
            late_s = late_s if order.delay_ns is None else max(late_s, order.delay_ns / 1e9)
        hushed = bool(rates[FaultKind.DTC_SILENCE])
        if hushed and not self._server.faults.rates.hushed:
            self._server.faults.counts["hushed"] += self._server.clients
        self._server.faults.rates = FaultRates(
            drop_connection=rates[FaultKind.DTC_DISCONNECT],
            duplicate=rates[FaultKind.DTC_DUPLICATES],
            late=rates[FaultKind.DTC_LATE_FILLS],
            late_s=late_s,
            unknown=rates[FaultKind.DTC_UNKNOWN_MESSAGES],
            reject=rates[FaultKind.DTC_REJECTS],
            thin=bool(rates[FaultKind.DTC_PARTIAL_FILLS]),
            hushed=hushed,
        )

    def cut(self) -> int:
        """Cuts every connection and gives their number."""
        count = self._server.clients
        self._server.cut_all()
        return count

    def count(self, kind: FaultKind) -> int:
        """How often this has gone wrong so far."""
        return self._server.faults.counts[_COUNTED[kind]]
