"""Decides how the brain learns after a start what it told before: from the bus, which has every signal, until it is read."""

from __future__ import annotations

import asyncio
from typing import Final

import grpc

from minhos_api.brain.v1 import brain_events_pb2, signal_pb2
from minhos_api.events.v1 import event_bus_service_pb2 as bus_pb
from minhos_api.events.v1.event_bus_service_pb2_grpc import EventBusServiceStub
from minhos_mesh.ai_brain.service import SIGNALS_HELD, Brain
from minhos_mesh.ai_brain.translate import past_from_proto
from minhos_mesh.runtime.backoff import Backoff
from minhos_mesh.runtime.context import ServiceContext
from minhos_mesh.runtime.errors import read
from minhos_mesh.runtime.event_envelope import payload_of
from minhos_mesh.runtime.log import get_logger

CONDITION: Final = "SIGNALS_NOT_READ"
SIGNAL_EVENT: Final = "ai.signal_generated"

_BACKOFF: Final = Backoff(first=0.2, factor=2.0, limit=5.0)
_LOG: Final = get_logger("ai_brain.journal")


class SignalJournal:
    """Signals of earlier lives of the brain."""

    def __init__(self, context: ServiceContext, brain: Brain[signal_pb2.Signal], thresholds: tuple[float, ...]) -> None:
        self._stub = context.clients.stub(EventBusServiceStub)
        self._conditions, self._brain, self._thresholds = context.conditions, brain, thresholds

    async def recall(self) -> None:
        """Returns once the brain holds them; the service is DEGRADED from the first failure until then."""
        failures = 0
        while True:
            try:
                signals = await self._newest()
            except grpc.RpcError as error:
                failures += 1
                why = read(error).message
                self._conditions.set(CONDITION, f"signals of before cannot be read from the event bus: {why}")
                _LOG.warning("signals.not_read", failures=failures, error=why)
                await asyncio.sleep(_BACKOFF.delay(failures))
            else:
                self._brain.recall([past_from_proto(signal, self._thresholds) for signal in signals])
                self._conditions.clear(CONDITION)
                _LOG.info("signals.read", signals=len(signals))
                return

    async def _newest(self) -> list[signal_pb2.Signal]:
        """The newest signals on the bus, the oldest of them first."""
        asked = bus_pb.ListEventsRequest(types=[SIGNAL_EVENT], page_size=SIGNALS_HELD)
        answer: bus_pb.ListEventsResponse = await self._stub.ListEvents(asked)
        payloads = [payload_of(event) for event in reversed(answer.events)]
        return [payload.signal for payload in payloads if isinstance(payload, brain_events_pb2.SignalGenerated)]
