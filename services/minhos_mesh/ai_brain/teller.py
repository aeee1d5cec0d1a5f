"""Tells facts of the brain as events; in a replay under ids that come from the data, so that a restart tells nothing twice."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Sequence
from typing import Final

from google.protobuf.message import Message

from minhos_api.brain.v1 import brain_events_pb2
from minhos_api.events.v1 import event_pb2
from minhos_api.mesh.v1 import error_reason_pb2
from minhos_mesh.ai_brain.service import Fact, Progressed, SignalRecord
from minhos_mesh.ai_brain.translate import analysis_to_proto, signal_to_proto, stamp
from minhos_mesh.runtime.events import EventClient, EventsRefused, EventsUnacknowledged
from minhos_mesh.runtime.log import get_logger

_NAMES: Final = uuid.UUID("0199c0de-0000-7000-8000-6d696e686f73")
_AGAIN_S: Final = 0.2
_MOST: Final = 500
_CONFLICT: Final = error_reason_pb2.ErrorReason.Name(error_reason_pb2.ERROR_REASON_REQUEST_CONFLICT)


class EventTeller:
    """Publishes until the bus has it, in order; a bus that is away holds the brain back instead of losing a signal."""

    def __init__(self, events: EventClient) -> None:
        self._events = events

    async def tell(self, facts: Sequence[Fact]) -> None:
        """Returns once all of them are stored."""
        for begin in range(0, len(facts), _MOST):
            await self._publish([self._event(fact) for fact in facts[begin : begin + _MOST]])

    async def _publish(self, events: list[event_pb2.Event]) -> None:
        while True:
            try:
                await self._events.publish(events)
            except EventsRefused as error:
                events = self._without_known(events, error)
                if not events:
                    return
            except EventsUnacknowledged as error:
                get_logger("ai_brain").warning("signal.not_stored_yet", error=str(error), events=len(events))
                await asyncio.sleep(_AGAIN_S)
            else:
                return

    @staticmethod
    def _without_known(events: list[event_pb2.Event], error: EventsRefused) -> list[event_pb2.Event]:
        """Those that may be told still: what was told otherwise in an earlier life, with other settings, stands as it is.

        Raises the error itself when it has another reason.
        """
        if any(refusal.reason != _CONFLICT for refusal in error.refusals):
            raise error
        known = {refusal.index for refusal in error.refusals}
        get_logger("ai_brain").error("signal.told_otherwise_before", error=str(error), events=len(known))
        return [event for index, event in enumerate(events) if index not in known]

    def _event(self, fact: Fact) -> event_pb2.Event:
        payload, name, time_ns, correlation = _payload(fact)
        return self._events.event(
            payload,
            subject=fact.symbol,
            time_ns=time_ns,
            correlation_id=correlation,
            event_id=str(uuid.uuid5(_NAMES, name)),
        )


def _payload(fact: Fact) -> tuple[Message, str, int, str]:
    if isinstance(fact, SignalRecord):
        signal = signal_to_proto(fact)
        event_time_ns = fact.timed.event_time_ns
        return (
            brain_events_pb2.SignalGenerated(signal=signal),
            f"signal {fact.signal_id}",
            event_time_ns,
            fact.signal_id,
        )
    if isinstance(fact, Progressed):
        progressed = brain_events_pb2.AnalysisProgressed(
            symbol=fact.symbol,
            epoch=fact.epoch,
            through_sequence=fact.through_sequence,
            event_time=stamp(fact.event_time_ns),
        )
        name = f"progress {fact.symbol} {fact.epoch} {fact.through_sequence}"
        return progressed, name, fact.event_time_ns, ""
    completed = brain_events_pb2.MarketAnalysisCompleted(analysis=analysis_to_proto(fact))
    name = f"analysis {fact.symbol} {fact.epoch} {fact.sequence}"
    return completed, name, fact.event_time_ns, ""
