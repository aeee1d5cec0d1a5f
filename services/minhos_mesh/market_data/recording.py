"""Decides when what was recorded goes on: to the journal within a second, to the Parquet files every quarter of an hour."""

from __future__ import annotations

from minhos_mesh.market_data.history_workers import HistoryFailed, HistoryUnavailable, HistoryWorkers, TooManyQuestions
from minhos_mesh.market_data.recorder import Recorder
from minhos_mesh.market_data.service import MarketDataService
from minhos_mesh.runtime.log import get_logger

PACK_EVERY = 900
"""Seconds."""

_LOG = get_logger("market_data.recording")


async def keep_recording(
    service: MarketDataService, recorder: Recorder, workers: HistoryWorkers, *, keep_days: int
) -> None:
    """Runs until it is cancelled."""
    left = PACK_EVERY
    async for _ in service.seconds():
        for standing in service.standings.values():
            recorder.flush(standing.live.feed)
        left -= 1
        if left <= 0:
            left = PACK_EVERY
            await pack(recorder, workers, keep_days=keep_days)


async def pack(recorder: Recorder, workers: HistoryWorkers, *, keep_days: int) -> None:
    """Brings the journal into the Parquet files; what fails is tried again the next time."""
    if not await recorder.seal():
        return
    try:
        async with workers.asking("pack", keep_days=keep_days) as told:
            async for done in told:
                _LOG.info("history.packed", what=done)
    except (HistoryFailed, HistoryUnavailable, TooManyQuestions) as failed:
        _LOG.warning("history.not_packed", message=str(failed))
