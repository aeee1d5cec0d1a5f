"""Looking back: events by their ids, and statistics that agree with what happened."""

from __future__ import annotations

import uuid
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from tests.contract.event_bus.conftest import Bus
from tests.contract.event_bus.speaking import RawReader, code_and_reason, durable, event, stopped, until

from minhos_api.events.v1 import event_admin_service_pb2 as admin_pb
from minhos_api.events.v1 import event_bus_service_pb2 as pb


async def publish(stub: Any, *events: Any) -> None:
    await stub.Publish(pb.PublishRequest(events=events))


async def test_events_are_found_by_their_ids(stub: Any) -> None:
    events = [event(f"S{number}") for number in range(20)]
    await publish(stub, *events)
    ids = [events[17].event_id, events[3].event_id, str(uuid.uuid4())]
    found = (await stub.ListEvents(pb.ListEventsRequest(event_ids=ids, ascending=True))).events
    assert [each.sequence for each in found] == [4, 18]
    page = await stub.ListEvents(pb.ListEventsRequest(event_ids=ids, page_size=1))
    request = pb.ListEventsRequest(event_ids=ids, page_size=1, page_token=page.next_page_token)
    assert [page.events[0].sequence, (await stub.ListEvents(request)).events[0].sequence] == [18, 4]
    both = pb.ListEventsRequest(event_ids=ids, subject="S3")
    assert [each.sequence for each in (await stub.ListEvents(both)).events] == [4]
    bad = stub.ListEvents(pb.ListEventsRequest(event_ids=["17"]))
    assert await code_and_reason(bad) == ("INVALID_ARGUMENT", "INVALID_FIELD")


async def test_a_page_of_large_events_fits_into_what_every_client_takes(stub: Any) -> None:
    for number in range(24):
        await publish(stub, event("large", metadata={"note": f"{number}" * 400_000}))
    for ascending in (True, False):
        found: list[int] = []
        token = ""
        while True:
            request = pb.ListEventsRequest(subject="large", page_size=1000, page_token=token, ascending=ascending)
            page = await stub.ListEvents(request)
            assert page.ByteSize() < 4_000_000
            found += [each.sequence for each in page.events]
            token = page.next_page_token
            if not token:
                break
        assert found == sorted(range(1, 25), reverse=not ascending)


@pytest.mark.parametrize(("seconds", "nanos", "field"), [
    (1, -1, "event_time.nanos"), (1, 10**9, "event_time.nanos"), (-1, 0, "event_time"), (2**62, 0, "event_time"),
    (-(2**62), 0, "event_time"), (253_402_300_800, 0, "event_time"),
])  # fmt: skip
@pytest.mark.parametrize("streamed", [False, True])
async def test_an_event_at_no_time_at_all_is_refused_by_its_field(
    stub: Any, seconds: int, nanos: int, field: str, streamed: bool
) -> None:
    wrong = event("wrong")
    wrong.event_time.seconds, wrong.event_time.nanos = seconds, nanos
    if streamed:
        call = stub.PublishStream()
        await call.write(pb.PublishStreamRequest(batch_id=1, events=[event("good"), wrong]))
        answers = [await call.read() for _ in range(2)]  # the first is a heartbeat
        call.cancel()
        assert [refusal.index for refusal in answers[1].refusals] == [1]
        assert field in answers[1].refusals[0].message
    else:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await publish(stub, event("good"), wrong)
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert field in str(caught.value.details())
    assert not (await stub.ListEvents(pb.ListEventsRequest())).events


async def test_statistics_agree_with_what_happened_and_say_since_when(stub: Any, admin: Any, bus: Bus) -> None:
    again = event("again")
    await publish(stub, again, *[event(f"S{number}") for number in range(4)], stopped())
    await publish(stub, again)
    unknown = event()
    unknown.type = "never.heard"
    await code_and_reason(stub.Publish(pb.PublishRequest(events=[unknown, event()])))
    reader = RawReader(stub, durable(types=["service.started"], start_at_beginning=True, max_attempts=2))
    await reader.open()
    first = await reader.sequences(5)
    await reader.send(nack=pb.SubscribeNack(sequence=2, error="once", delay=Duration(nanos=1)))
    await reader.ack(*[sequence for sequence in first if sequence != 2])
    assert await reader.sequences(1) == [2]
    await reader.send(nack=pb.SubscribeNack(sequence=2, error="twice", delay=Duration(nanos=1)))

    async def told() -> admin_pb.GetStatsResponse:
        answer: admin_pb.GetStatsResponse = await admin.GetStats(admin_pb.GetStatsRequest())
        return answer

    async def dead() -> bool:
        return (await told()).dead_letters == 1

    await until(dead)
    now = await told()
    assert (now.published, now.delivered, now.failed, now.refused) == (6, 6, 2, 1)
    assert dict(now.refused_types) == {"never.heard": 1}
    assert {each.type: each.published for each in now.types} == {"service.started": 5, "service.stopped": 1}
    (consumer,) = now.consumers
    assert (consumer.lag, consumer.redelivered, consumer.dead_letters) == (0, 1, 1)
    await bus.stop()
    await bus.start()
    later = await told()
    assert (later.published, later.dead_letters) == (6, 1)
    assert (later.delivered, later.failed, later.refused) == (0, 0, 0)
    assert later.consumers[0].redelivered == 1
    assert now.start_time.ToNanoseconds() < later.start_time.ToNanoseconds()


async def test_what_lies_beyond_every_sequence_and_time_is_asked_for_in_vain(stub: Any) -> None:
    await publish(stub, event(), event())
    far, long_ago = Timestamp(seconds=2**62), Timestamp(seconds=-(2**62))
    for request, found in (
        (pb.ListEventsRequest(after_sequence=2**64 - 1), 0),
        (pb.ListEventsRequest(after_sequence=2**64 - 1, ascending=True), 0),
        (pb.ListEventsRequest(since_time=far), 0),
        (pb.ListEventsRequest(before_time=long_ago), 0),
        (pb.ListEventsRequest(since_time=long_ago, before_time=far), 2),
    ):
        assert len((await stub.ListEvents(request)).events) == found


async def test_an_event_that_is_too_large_is_told_by_its_place(stub: Any) -> None:
    with pytest.raises(grpc.aio.AioRpcError, match=r"events\[1\]: the event has \d+ bytes: allowed is 1048576"):
        await publish(stub, event(), event(metadata={"note": "x" * 1_100_000}))
