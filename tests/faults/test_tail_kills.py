"""A .scid file that grows gives the same ticks through SIGKILL of the Sierra client and of market data as read whole."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import numpy as np
import pytest
from tests.one_service import OneService, configured, one_service

from minhos_mesh.runtime.bar_spans import BarSpan, Measure
from minhos_mesh.runtime.bars import Bar, bars_of
from minhos_mesh.runtime.clients import Clients
from minhos_mesh.runtime.market import (
    BarClosed,
    BarsOf,
    EpochChanged,
    Gap,
    MarketClient,
    MarketKind,
    MarketSubscription,
    Position,
)
from minhos_mesh.runtime.tick_layout import TickArray
from minhos_mesh.runtime.ticks import TickBatchView
from minhos_mesh.sierra_files.as_ticks import as_ticks
from minhos_mesh.sierra_files.layout import EPOCH_SHIFT_US, RECORD, Records
from minhos_mesh.sierra_files.reader import read_scid
from minhos_mesh.sierra_files.ticks import tick_columns
from minhos_mesh.sierra_files.writer import ScidWriter

SYMBOL = "NQZ26-CME"
INGEST = "minhos_api.market.v1.MarketDataIngestService"
PROVIDER = "minhos_api.market.v1.MarketDataProviderService"
START_US = EPOCH_SHIFT_US + 1_790_000_000_000_000
RECORDS = 12_000
REFUSED = 9
SPAN = BarSpan(Measure.TRADES, 50)
TICK_E9 = 250_000_000
COMPARED = ("event_time_ns", "price_e9", "bid_e9", "ask_e9", "size", "flags", "kind", "side")


def trades() -> Records:
    """Single trades, every tenth of which has a price between two ticks and is refused."""
    records, place = np.zeros(RECORDS, RECORD), np.arange(RECORDS)
    records["time_us"] = START_US + place * 1_500
    records["close"] = records["high"] = 23_500 + place % 400 / 4
    records["low"] = records["close"] - np.float32(0.25)
    records["num_trades"] = 1
    records["close"][REFUSED::10] = 23_500.1
    records["total_volume"] = records["ask_volume"] = place % 7 + 1
    return records


class Grower:
    """Appends records in chunks of any size, half a record at a time now and then."""

    def __init__(self, file: Path) -> None:
        self._file, self._records, self._random = file, trades(), random.Random(7)
        ScidWriter.create(file).close()
        self.written = 0

    async def grow(self, count: int) -> None:
        """Through so many records more."""
        end = self.written + count
        while self.written < end:
            step = min(self._random.choice([1, 3, 40, 700]), end - self.written)
            data = self._records[self.written : self.written + step].tobytes()
            cut = self._random.choice([0, 13, len(data) // 2])
            for part in (data[:cut], data[cut:]):
                with self._file.open("ab") as file:
                    file.write(part)
                await asyncio.sleep(0)
            self.written += step
            await asyncio.sleep(0.002)


class Reader:
    """Everything that a reader from the first tick is told."""

    def __init__(self, subscription: MarketSubscription) -> None:
        self._subscription = subscription
        self.ticks: list[TickArray] = []
        self.broken: list[object] = []
        self.through = 0

    async def read(self, sequences: int) -> None:
        async for update in self._subscription:
            if isinstance(update, TickBatchView):
                if update.first_sequence != self.through + 1:
                    self.broken.append((update.first_sequence, self.through))
                self.ticks.append(update.ticks.copy())
                self.through = update.last_sequence
            elif isinstance(update, Gap | EpochChanged):
                self.broken.append(update)
            if self.through >= sequences:
                return


async def _bars(subscription: MarketSubscription, count: int) -> list[Bar]:
    found: list[Bar] = []
    async for update in subscription:
        assert not isinstance(update, Gap | EpochChanged)
        if isinstance(update, BarClosed):
            found.append(update.bar)
            if len(found) == count:
                break
    return found


async def _through(reader: Reader, sequence: int) -> None:
    async with asyncio.timeout(40):
        while reader.through < sequence:
            await asyncio.sleep(0.01)


@pytest.mark.timeout(120)
async def test_ticks_are_those_of_the_whole_file_whoever_is_killed_in_the_middle(tmp_path: Path) -> None:
    paths = configured(tmp_path, market_data={"symbols": [SYMBOL]})
    file = paths.sierra_dir / f"{SYMBOL}.scid"
    grower, accepted = Grower(file), np.delete(trades(), np.s_[REFUSED::10])
    async with one_service("market_data", tmp_path) as market:
        ways, port = {INGEST: market.address}, market.port
        clients = Clients({PROVIDER: market.address})
        reader = Reader(MarketClient(clients).subscribe([SYMBOL], resume={SYMBOL: Position(0, 0)}))
        reading = asyncio.create_task(reader.read(len(accepted)))
        bars = MarketClient(clients).subscribe(
            [SYMBOL], {MarketKind.BARS}, resume={SYMBOL: Position(0, 0)}, bars=BarsOf(SPAN)
        )
        reading_bars = asyncio.create_task(_bars(bars, len(accepted) // SPAN.size))
        async with one_service("sierra_client", tmp_path, ways) as client:
            await grower.grow(3_000)
            await _through(reader, 1_000)
            await _killed_while_growing(client, grower)
        async with one_service("sierra_client", tmp_path, ways) as client:
            await _through(reader, grower.written * 9 // 10 - 1)
            await _killed_while_growing(market, grower)
            async with one_service("market_data", tmp_path, port=port) as again:
                await _through(reader, grower.written * 9 // 10 - 1)
                await asyncio.gather(_killed_while_growing(again, grower), client.kill())
        async with one_service("market_data", tmp_path, port=port), one_service("sierra_client", tmp_path, ways):
            await grower.grow(RECORDS - grower.written)
            async with asyncio.timeout(40):
                await reading
                told = await reading_bars
        await clients.close()
    assert reader.broken == []
    found = np.concatenate(reader.ticks)
    expected = as_ticks(tick_columns(accepted, TICK_E9), None)
    for name in COMPARED:
        assert found[name].tolist() == expected[name].tolist(), name
    made = [bar for bar in bars_of(expected, SPAN) if bar.closed]
    assert [(bar.first_trade, bar.last_trade, bar.high_e9, bar.close_e9, bar.volume) for bar in told] == [
        (bar.first_trade, bar.last_trade, bar.high_e9, bar.close_e9, bar.volume) for bar in made
    ]
    whole = read_scid(file)
    assert whole.tobytes() == trades().tobytes()


async def _killed_while_growing(service: OneService, grower: Grower) -> None:
    growing = asyncio.create_task(grower.grow(2_000))
    await asyncio.sleep(0)
    await service.kill()
    await growing
