"""Telling facts again: what was told otherwise under the same id stands as it is, and holds up nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import pytest

from minhos_api.events.v1 import event_pb2
from minhos_mesh.ai_brain.service import Progressed
from minhos_mesh.ai_brain.teller import EventTeller
from minhos_mesh.runtime.event_envelope import make_event
from minhos_mesh.runtime.event_publisher import EventsRefused, Refusal


class Bus:
    """Stores events, and refuses batches with some of them for one reason."""

    def __init__(self, refused: set[int], reason: str) -> None:
        self.stored: list[event_pb2.Event] = []
        self._refused, self._reason = refused, reason

    def event(self, payload: Any, **more: Any) -> event_pb2.Event:
        more.pop("correlation_id")
        return make_event(payload, source="ai_brain", **more)

    async def publish(self, events: Sequence[event_pb2.Event]) -> list[int]:
        refused, self._refused = self._refused, set()
        if refused:
            raise EventsRefused([Refusal(index, self._reason, "no") for index in sorted(refused)])
        self.stored += events
        return list(range(len(events)))


FACTS = [Progressed("NQZ26-CME", 1, sequence, 10**18) for sequence in range(4)]


async def test_what_was_told_otherwise_before_is_left_and_the_rest_is_told() -> None:
    bus = Bus({1, 2}, "ERROR_REASON_REQUEST_CONFLICT")
    teller = EventTeller(cast("Any", bus))
    await teller.tell(FACTS)
    assert len(bus.stored) == 2
    again = Bus(set(), "")
    await EventTeller(cast("Any", again)).tell(FACTS)
    assert [event.event_id for event in bus.stored] == [again.stored[0].event_id, again.stored[3].event_id]


async def test_a_batch_of_nothing_new_is_done() -> None:
    bus = Bus({0, 1, 2, 3}, "ERROR_REASON_REQUEST_CONFLICT")
    await EventTeller(cast("Any", bus)).tell(FACTS)
    assert bus.stored == []


async def test_a_refusal_for_another_reason_is_raised() -> None:
    bus = Bus({0}, "ERROR_REASON_EVENT_PAYLOAD_INVALID")
    with pytest.raises(EventsRefused):
        await EventTeller(cast("Any", bus)).tell(FACTS)
