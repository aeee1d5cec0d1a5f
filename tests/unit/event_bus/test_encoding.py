"""Deliveries are encoded from the bytes of their events; whoever decodes them sees what protobuf's own encoder would have sent."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from minhos_api.events.v1 import event_bus_service_pb2 as pb
from minhos_api.events.v1 import event_pb2
from minhos_mesh.event_bus.domain.records import StoredEvent
from minhos_mesh.event_bus.encoding import delivery, varint
from minhos_mesh.event_bus.readers import Outgoing


def outgoing(text: str, sequence: int, time_ns: int, attempt: int, *, requeued: bool) -> Outgoing:
    event = event_pb2.Event(event_id=text, type="a.b", subject=text, metadata={"k": text})
    return Outgoing(StoredEvent(sequence, "a.b", text, time_ns, event.SerializeToString()), attempt, requeued)


def by_protobuf(events: list[Outgoing]) -> pb.SubscribeResponse:
    response = pb.SubscribeResponse()
    for each in events:
        item = response.delivery.events.add(attempt=each.attempt, requeued=each.requeued)
        item.event.MergeFromString(each.event.envelope)
        item.event.sequence = each.event.sequence
        item.event.store_time.FromNanoseconds(each.event.store_time_ns)
    return response


@given(
    st.lists(
        st.builds(
            outgoing,
            st.text(max_size=300),
            st.integers(1, 2**63 - 1),
            st.integers(0, 2**62),
            st.integers(1, 2**31),
            requeued=st.booleans(),
        ),
        min_size=1,
        max_size=5,
    )
)
def test_a_delivery_is_what_protobuf_would_send(events: list[Outgoing]) -> None:
    assert pb.SubscribeResponse.FromString(delivery(events)) == by_protobuf(events)


def test_numbers_take_as_few_bytes_as_they_can() -> None:
    assert [len(varint(value)) for value in (0, 127, 128, 16_383, 16_384, 2**63)] == [1, 1, 2, 2, 3, 10]
