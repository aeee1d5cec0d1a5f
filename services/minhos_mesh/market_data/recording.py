"""Decides when what was recorded goes on: to the journal within a second, to the Parquet files every quarter of an hour."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from minhos_mesh.market_data.history_workers import HistoryFailed, HistoryUnavailable, HistoryWorkers, TooManyQuestions
from minhos_mesh.market_data.recorder import Recorder
from minhos_mesh.market_data.service import MarketDataService
from minhos_mesh.runtime.log import get_logger

PACK_EVERY = 900
"""Seconds."""
NOT_PACKED: Final = "HISTORY_NOT_PACKED"
"""Condition while something recorded waits in the journal because it cannot be brought into its file."""

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
    """Brings the journal into the Parquet files; what fails is told as a condition and tried again the next time."""
    if not await recorder.seal():
        recorder.conditions.clear(NOT_PACKED)
        return
    broken: list[str] = []
    try:
        async with workers.asking("pack", keep_days=keep_days) as told:
            async for done in told:
                _LOG.info("history.packed", what=done)
                broken += done["broken"] if isinstance(done, Mapping) else ()
    except TooManyQuestions as busy:
        _LOG.warning("history.not_packed", message=str(busy))
        return
    except (HistoryFailed, HistoryUnavailable) as failed:
        broken.append(str(failed))
    if broken:
        recorder.conditions.set(NOT_PACKED, _sentence(broken))
        _LOG.warning("history.not_packed", what=broken)
    else:
        recorder.conditions.clear(NOT_PACKED)


def _sentence(broken: Sequence[str]) -> str:
    more = f"; and {len(broken) - 1} more, which the log names" if len(broken) > 1 else ""
    return f"what was recorded cannot be packed and waits in the journal: {broken[0]}{more}"
