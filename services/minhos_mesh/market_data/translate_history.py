"""Decides how questions about history and their answers are said in the contract, and the other way round."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from google.protobuf.timestamp_pb2 import Timestamp

from minhos_api.market.v1 import history_service_pb2 as pb2
from minhos_api.market.v1 import provenance_pb2
from minhos_mesh.market_data.domain.feed import Provenance
from minhos_mesh.market_data.history import Absent, Asked, SeriesTold
from minhos_mesh.market_data.history_workers import TicksRead
from minhos_mesh.market_data.translate import provenance_to_proto
from minhos_mesh.runtime.bar_spans import BarSpan, Measure
from minhos_mesh.runtime.ticks import batch_in_field
from minhos_mesh.runtime.wire_time import timestamp

BARS_PAGE: Final = 1_000
BARS_LARGEST: Final = 10_000
DAYS_PAGE: Final = 100
DAYS_LARGEST: Final = 1_000
LAST_NS: Final = 2**63 - 1

_TICKS: Final = pb2.StreamHistoryResponse.TICKS_FIELD_NUMBER
_RULES: Final[Mapping[pb2.SessionRule.ValueType, str | None]] = {
    pb2.SESSION_RULE_UNSPECIFIED: None,
    pb2.SESSION_RULE_EXCHANGE: "EXCHANGE",
    pb2.SESSION_RULE_ALWAYS_OPEN: "ALWAYS_OPEN",
}


def asked_from_proto(request: pb2.GetBarsRequest | pb2.StreamHistoryRequest) -> Asked:
    """Whose history a request is about."""
    return Asked(
        request.symbol if request.HasField("symbol") else None,
        Provenance(request.provenance).name if request.HasField("provenance") else None,
    )


def span_from_proto(span: pb2.BarSpan) -> BarSpan:
    """What a bar spans; a minute when nothing is said."""
    kind = span.WhichOneof("size")
    if kind is None:
        return BarSpan(Measure.SECONDS, 60)
    return BarSpan(Measure(kind), getattr(span, kind))


def rule_from_proto(rule: pb2.SessionRule.ValueType) -> str | None:
    """Which sessions divide the time; None leaves it to the data."""
    return _RULES[rule]


def time_from_proto(time: Timestamp | None, unset_ns: int) -> int:
    """A time in ns since the Unix epoch, no later than such a number can say."""
    return unset_ns if time is None else min(time.seconds * 1_000_000_000 + time.nanos, LAST_NS)


def span_of_time(message: pb2.GetBarsRequest | pb2.TimeRange) -> tuple[int, int]:
    """Beginning and end of a question."""
    return (
        time_from_proto(message.start_time if message.HasField("start_time") else None, 0),
        time_from_proto(message.end_time if message.HasField("end_time") else None, LAST_NS),
    )


def after_from_proto(times: pb2.TimeRange) -> tuple[int, int] | None:
    """Epoch and sequence behind which to go on."""
    if not times.HasField("after_position"):
        return None
    return times.after_position.epoch, times.after_position.sequence


def bars_to_proto(told: Mapping[str, Any], next_page_token: str) -> pb2.GetBarsResponse:
    """A page of bars."""
    provenance, symbol = told["series"]
    rule = next(number for number, name in _RULES.items() if name == told["rule"])
    return pb2.GetBarsResponse(
        symbol=symbol,
        provenance=provenance_to_proto(Provenance[provenance]),
        sessions=rule,
        bars=[_bar(bar) for bar in told["bars"]],
        trades_outside_sessions=told["outside"],
        next_page_token=next_page_token,
    )


def _bar(bar: Mapping[str, Any]) -> pb2.HistoryBar:
    return pb2.HistoryBar(
        trading_day=bar["trading_day"],
        open_time=timestamp(bar["open_time_ns"]),
        close_time=timestamp(bar["close_time_ns"]),
        open_e9=bar["open_e9"],
        high_e9=bar["high_e9"],
        low_e9=bar["low_e9"],
        close_e9=bar["close_e9"],
        volume=bar["volume"],
        bid_volume=bar["bid_volume"],
        ask_volume=bar["ask_volume"],
        trade_count=bar["trades"],
        first=_position(bar["first_epoch"], bar["first_trade"]),
        last=_position(bar["last_epoch"], bar["last_trade"]),
        closed=bar["closed"],
        of_daily_file=bar.get("of_file", False),
        volume_unknown=bar.get("volume_unknown", False),
        open_interest=bar.get("open_interest"),
    )


def _position(epoch: int, sequence: int) -> pb2.HistoryPosition | None:
    return pb2.HistoryPosition(epoch=epoch, sequence=sequence) if epoch else None


def days_to_proto(days: Sequence[Mapping[str, Any]], next_page_token: str) -> pb2.ListHistoryResponse:
    """A page of what is held."""
    return pb2.ListHistoryResponse(days=[_day(day) for day in days], next_page_token=next_page_token)


def _day(day: Mapping[str, Any]) -> pb2.HistoryDay:
    return pb2.HistoryDay(
        symbol=day["series"]["symbol"],
        provenance=provenance_pb2.Provenance.ValueType(Provenance[day["series"]["provenance"]]),
        day=day["day"],
        ticks=day["ticks"],
        first_time=timestamp(day["first_ns"]),
        last_time=timestamp(day["last_ns"]),
        runs=[
            pb2.HistoryRun(epoch=run["epoch"], first_sequence=run["first_sequence"], last_sequence=run["last_sequence"])
            for run in day["runs"]
        ],
        file_bytes=day["file_bytes"],
    )


class HistoryTeller:
    """Says the pieces of one stream of history, and counts them for its end."""

    def __init__(self) -> None:
        self._series = SeriesTold(Provenance.LIVE, "")
        self._sent = self._missing = 0
        self._last: pb2.HistoryPosition | None = None

    def piece(self, piece: SeriesTold | TicksRead | Absent) -> bytes | None:
        """One message; None where there is nothing to say."""
        if isinstance(piece, SeriesTold):
            self._series = piece
            return None
        if isinstance(piece, Absent):
            self._missing += piece.last - piece.first + 1
            gap = pb2.HistoryGap(epoch=piece.epoch, first_sequence=piece.first, last_sequence=piece.last)
            return pb2.StreamHistoryResponse(gap=gap).SerializeToString()
        self._sent += piece.count
        self._last = pb2.HistoryPosition(epoch=piece.epoch, sequence=piece.first_sequence + piece.count - 1)
        provenance, symbol = int(self._series.provenance), self._series.symbol
        return batch_in_field(_TICKS, symbol, provenance, piece.epoch, piece.first_sequence, piece.wire)

    def end(self) -> bytes:
        """The last message."""
        end = pb2.HistoryEnd(ticks_sent=self._sent, ticks_missing=min(self._missing, LAST_NS), last=self._last)
        return pb2.StreamHistoryResponse(end=end).SerializeToString()
