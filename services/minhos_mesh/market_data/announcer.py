"""Decides how last values become events: one batch for the bus, given up when the bus does not answer in time."""

from __future__ import annotations

from collections.abc import Sequence

from minhos_mesh.market_data.domain.feed import LastQuote
from minhos_mesh.market_data.translate import updated_event
from minhos_mesh.runtime.events import EventClient, EventsRefused, EventsUnacknowledged
from minhos_mesh.runtime.log import get_logger

TIMEOUT_S = 2.0

_LOG = get_logger("market_data.announcer")


class BusAnnouncer:
    """Tells last values as `market_data.updated`. The next ones make up for any that were lost."""

    def __init__(self, events: EventClient) -> None:
        self._events = events

    async def announce(self, quotes: Sequence[LastQuote]) -> None:
        """See `Announcer`."""
        events = [
            self._events.event(updated_event(quote), subject=quote.symbol, time_ns=quote.values.event_time_ns)
            for quote in quotes
        ]
        try:
            await self._events.publish(events, timeout_s=TIMEOUT_S)
        except EventsUnacknowledged:
            _LOG.debug("quotes.not_told", symbols=[quote.symbol for quote in quotes])
        except EventsRefused as refused:
            _LOG.error("quotes.refused", message=str(refused))
