"""Decides how the simulator's DTC server answers a request for history from the .scid files that it writes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from minhos_mesh.dtc.enums import HistoryRejectReason
from minhos_mesh.dtc.message import Message, make
from minhos_mesh.dtc.tables import history as tables
from minhos_mesh.runtime.money import E9
from minhos_mesh.sierra_files.header import ScidError
from minhos_mesh.sierra_files.layout import EPOCH_SHIFT_US, SUFFIX, Records
from minhos_mesh.sierra_files.reader import ScidFile
from minhos_mesh.sierra_simulator.dtc_exchange import SimulatedExchange
from minhos_mesh.sierra_simulator.dtc_market import NOT_PERMITTED, permitted

PIECE = 20_000
"""Records that are turned into messages at once."""
LONGEST_INTERVAL_S = 7 * 86_400


def history(exchange: SimulatedExchange, folder: Path, message: Message) -> Iterator[Message]:
    """The whole answer, message by message: a header and records with a final one, or a reject."""
    request, symbol = message.integer("RequestID"), message.text("Symbol")
    interval = message.integer("RecordInterval")
    if not exchange.settings.session.history or not permitted(exchange, symbol):
        yield _reject(request, NOT_PERMITTED)
        return
    if not 0 <= interval <= LONGEST_INTERVAL_S:
        yield _reject(request, f"RecordInterval {interval} is not supported", HistoryRejectReason.GENERAL_ERROR)
        return
    try:
        with ScidFile(folder / f"{symbol}{SUFFIX}") as file:
            yield from _records(file, message)
    except ScidError:
        yield _reject(request, f"there is no data of {symbol}", HistoryRejectReason.OUTSIDE_BOUNDS)


def _records(file: ScidFile, message: Message) -> Iterator[Message]:
    request, interval = message.integer("RequestID"), message.integer("RecordInterval")
    first, behind = _bounds(file, message)
    empty = first >= behind
    yield make(
        tables.HISTORICAL_PRICE_DATA_RESPONSE_HEADER,
        RequestID=request,
        RecordInterval=interval,
        NoRecordsToReturn=int(empty),
        IntToFloatPriceDivisor=1.0,
    )
    if empty:
        return
    carried: Records | None = None
    while first < behind:
        piece = np.array(file.read(first, min(PIECE, behind - first)))
        if not len(piece):
            break
        first += len(piece)
        if not interval:
            yield from _ticks(request, piece)
            continue
        bars = _bars(piece if carried is None else np.concatenate([carried, piece]), interval)
        carried = bars[-1:]
        yield from _as_messages(request, bars[:-1])
    if carried is not None:
        yield from _as_messages(request, carried)
    yield make(tables.HISTORICAL_PRICE_DATA_RECORD_RESPONSE, RequestID=request, IsFinalRecord=1)


def _bounds(file: ScidFile, message: Message) -> tuple[int, int]:
    start_s, end_s, days = (message.integer(n) for n in ("StartDateTime", "EndDateTime", "MaxDaysToReturn"))
    daily = message.integer("RecordInterval") >= 86_400
    behind = file.first_index_at((end_s + 1) * E9) if end_s > 0 and not daily else file.count()
    if days and not daily:
        last = file.read(max(0, behind - 1), 1)
        end_s = end_s or (int(last["time_us"][0]) - EPOCH_SHIFT_US) // 1_000_000 if len(last) else end_s
        start_s = max(start_s, end_s - days * 86_400)
    return file.first_index_at(max(0, start_s) * E9), behind


def _ticks(request: int, records: Records) -> Iterator[Message]:
    """Ticks as the real server sends them: Open 0, High the ask, Low the bid, Last the trade."""
    shown = records.copy()
    shown["open"] = np.where(shown["open"] > 0, shown["open"], 0)
    return _as_messages(request, shown)


def _as_messages(request: int, records: Records) -> Iterator[Message]:
    for time_us, first, high, low, last, trades, volume, bid, ask in records.tolist():
        yield make(
            tables.HISTORICAL_PRICE_DATA_RECORD_RESPONSE,
            RequestID=request,
            StartDateTime=time_us - EPOCH_SHIFT_US,
            OpenPrice=first,
            HighPrice=high,
            LowPrice=low,
            LastPrice=last,
            Volume=float(volume),
            NumTrades=trades,
            BidVolume=float(bid),
            AskVolume=float(ask),
        )


def _bars(records: Records, interval_s: int) -> Records:
    """Bars of an interval; records that are bars of it already stay as they are."""
    plain = records["open"] > 0
    opened = np.where(plain, records["open"], records["close"])
    highs = np.where(plain, records["high"], records["close"])
    lows = np.where(plain, records["low"], records["close"])
    step = interval_s * 1_000_000
    begins = (records["time_us"] - EPOCH_SHIFT_US) // step * step + EPOCH_SHIFT_US
    at = np.flatnonzero(np.concatenate(([True], begins[1:] != begins[:-1])))
    bars = np.zeros(len(at), records.dtype)
    bars["time_us"], bars["open"] = begins[at], opened[at]
    bars["high"], bars["low"] = np.maximum.reduceat(highs, at), np.minimum.reduceat(lows, at)
    bars["close"] = records["close"][np.concatenate((at[1:] - 1, [len(records) - 1]))]
    for name in ("num_trades", "total_volume", "bid_volume", "ask_volume"):
        bars[name] = np.add.reduceat(records[name], at)
    return bars


def _reject(request: int, text: str, reason: HistoryRejectReason = HistoryRejectReason.DO_NOT_RETRY) -> Message:
    return make(tables.HISTORICAL_PRICE_DATA_REJECT, RequestID=request, RejectText=text, RejectReasonCode=int(reason))
