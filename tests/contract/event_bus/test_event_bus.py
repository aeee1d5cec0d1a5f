"""EventBusService as its clients see it: what is stored, delivered, refused, and how."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import grpc
import pytest
from tests.contract.event_bus.speaking import RawReader, code_and_reason, durable, event, stopped, until

from minhos_api.events.v1 import event_admin_service_pb2 as admin_pb
from minhos_api.events.v1 import event_bus_service_pb2 as pb
from minhos_api.events.v1 import event_pb2
from minhos_api.registry.v1.registry_events_pb2 import ServiceStarted, ServiceStopped
from minhos_mesh.event_bus import sessions
from minhos_mesh.runtime.errors import read

Change = Callable[[event_pb2.Event], None]
Bus = Any
"""See conftest."""


# Publish.


async def test_published_events_come_back_as_they_were_with_sequence_and_store_time(stub: Any) -> None:
    one = event("NQ", correlation_id="c-1", metadata={"k": "v"})
    response = await stub.Publish(pb.PublishRequest(events=[one, event()]))
    assert (list(response.sequences), response.duplicates) == ([1, 2], 0)
    listed = await stub.ListEvents(pb.ListEventsRequest(ascending=True))
    stored = listed.events[0]
    assert (stored.sequence, stored.store_time.seconds > 0) == (1, True)
    stored.ClearField("sequence")
    stored.ClearField("store_time")
    assert stored == one
    assert (listed.oldest_sequence, listed.newest_sequence, listed.next_page_token) == (1, 2, "")


async def test_the_same_event_is_stored_once(stub: Any) -> None:
    one = event()
    await stub.Publish(pb.PublishRequest(events=[one]))
    response = await stub.Publish(pb.PublishRequest(events=[event(), one]))
    assert (list(response.sequences), response.duplicates) == ([2, 1], 1)


CHANGES: list[Change] = [
    lambda item: setattr(item, "subject", "ES"),
    lambda item: setattr(item, "source", "somebody_else"),
    lambda item: item.payload.CopyFrom(event(service="y").payload),
]


@pytest.mark.parametrize("change", CHANGES)
async def test_a_stored_id_with_other_content_is_refused_whole(stub: Any, admin: Any, change: Change) -> None:
    one, other = event("NQ"), event_pb2.Event()
    await stub.Publish(pb.PublishRequest(events=[one]))
    other.CopyFrom(one)
    change(other)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.Publish(pb.PublishRequest(events=[event(), other]))
    told = read(caught.value)
    assert (told.code.name, told.reason) == ("ALREADY_EXISTS", "ERROR_REASON_REQUEST_CONFLICT")
    assert told.metadata == {"field": "events[1].event_id", "event_id": one.event_id, "sequence": "1"}
    assert [violation.field for violation in told.violations] == ["events[1].event_id"]
    call = stub.PublishStream()
    await call.read()
    await call.write(pb.PublishStreamRequest(batch_id=1, events=[event(), other]))
    answer = await call.read()
    call.cancel()
    assert [(item.index, item.reason) for item in answer.refusals] == [(1, "ERROR_REASON_REQUEST_CONFLICT")]
    assert answer.refusals[0].metadata["event_id"] == one.event_id
    stats = await admin.GetStats(admin_pb.GetStatsRequest())
    assert (stats.published, stats.refused) == (1, 2)


async def test_a_batch_that_contradicts_itself_is_refused(stub: Any, admin: Any) -> None:
    one, other = event("NQ"), event_pb2.Event()
    other.CopyFrom(one)
    other.subject = "ES"
    call = stub.Publish(pb.PublishRequest(events=[one, other]))
    assert await code_and_reason(call) == ("ALREADY_EXISTS", "REQUEST_CONFLICT")
    assert (await admin.GetStats(admin_pb.GetStatsRequest())).published == 0


async def test_the_same_fact_with_another_trace_or_time_is_still_the_same(stub: Any) -> None:
    one, again = event("NQ"), event_pb2.Event()
    await stub.Publish(pb.PublishRequest(events=[one]))
    again.CopyFrom(one)
    again.traceparent = "00-1-2-3"
    again.event_time.seconds += 1
    response = await stub.Publish(pb.PublishRequest(events=[again]))
    assert (list(response.sequences), response.duplicates) == ([1], 1)


UNKNOWN = {"type": "trade.exectued", "nearest": "trade.executed"}


async def test_listing_a_type_that_is_not_in_the_catalogue_names_the_nearest(stub: Any) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.ListEvents(pb.ListEventsRequest(types=["trade.*", "trade.exectued"]))
    told = read(caught.value)
    assert (told.code.name, told.reason) == ("INVALID_ARGUMENT", "ERROR_REASON_EVENT_TYPE_UNKNOWN")
    assert told.metadata == {"field": "types[1]", **UNKNOWN}


async def test_subscribing_to_a_type_that_is_not_in_the_catalogue_names_the_nearest(stub: Any) -> None:
    call = stub.Subscribe()
    await call.write(pb.SubscribeRequest(open=pb.SubscribeOpen(types=["trade.exectued"], credit=1)))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call.read()
    told = read(caught.value)
    assert told.reason == "ERROR_REASON_EVENT_TYPE_UNKNOWN"
    assert told.metadata == {"field": "open.types[0]", **UNKNOWN}


async def test_fields_from_a_newer_contract_survive(stub: Any) -> None:
    newer = event_pb2.Event.FromString(event().SerializeToString() + b"\xfa\x3f\x03new")
    await stub.Publish(pb.PublishRequest(events=[newer]))
    (stored,) = (await stub.ListEvents(pb.ListEventsRequest())).events
    assert b"\xfa\x3f\x03new" in stored.SerializeToString()


def _set(**values: Any) -> Change:
    def change(item: event_pb2.Event) -> None:
        for name, value in values.items():
            setattr(item, name, value)

    return change


def _wrong_payload(item: event_pb2.Event) -> None:
    item.payload.Pack(ServiceStopped(service="x", instance_id="x-1"))


def _broken_rule(item: event_pb2.Event) -> None:
    item.payload.Pack(ServiceStarted(instance_id="x-1"))


def _garbage(item: event_pb2.Event) -> None:
    item.payload.value = b"\xff\xff"


def _too_large(item: event_pb2.Event) -> None:
    item.payload.Pack(ServiceStarted(service="x" * 1_100_000, instance_id="x-1"))


BAD_EVENTS: list[tuple[Change, str, str]] = [
    (_set(type="service.startd"), "EVENT_TYPE_UNKNOWN", "was service.started meant?"),
    (_set(type="no.such"), "EVENT_TYPE_UNKNOWN", "not in the catalogue"),
    (_wrong_payload, "EVENT_PAYLOAD_INVALID", "allowed is minhos_api.registry.v1.ServiceStarted"),
    (_broken_rule, "EVENT_PAYLOAD_INVALID", "payload.service"),
    (_garbage, "EVENT_PAYLOAD_INVALID", "no encoded"),
    (_set(version=2), "EVENT_PAYLOAD_INVALID", "version is 2: allowed is 1 to 1"),
    (_too_large, "LIMIT_REACHED", "allowed is 1048576"),
    (_set(event_id="17"), "INVALID_FIELD", "event_id"),
    (_set(type="Nonsense"), "INVALID_FIELD", "type"),
    (_set(source=""), "INVALID_FIELD", "source"),
    (lambda item: item.ClearField("payload"), "INVALID_FIELD", "payload"),
    (lambda item: item.ClearField("event_time"), "INVALID_FIELD", "event_time"),
]


@pytest.mark.parametrize(("change", "reason", "text"), BAD_EVENTS)
async def test_a_bad_event_is_refused_and_nothing_of_its_batch_is_stored(
    stub: Any, admin: Any, change: Change, reason: str, text: str
) -> None:
    bad = event()
    change(bad)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.Publish(pb.PublishRequest(events=[event(), bad]))
    told = read(caught.value)
    assert (told.code.name, told.reason) == ("INVALID_ARGUMENT", f"ERROR_REASON_{reason}")
    assert text in told.message
    assert told.violations[0].field.startswith("events[1].")
    assert (await admin.GetStats(admin_pb.GetStatsRequest())).newest_sequence == 0


@pytest.mark.parametrize("count", [0, 1001])
async def test_a_batch_of_a_wrong_size_is_refused(stub: Any, count: int) -> None:
    call = stub.Publish(pb.PublishRequest(events=[event()] * count))
    assert await code_and_reason(call) == ("INVALID_ARGUMENT", "INVALID_FIELD")


# PublishStream.


async def test_a_publish_stream_answers_in_order_and_goes_on_after_a_refusal(stub: Any, admin: Any) -> None:
    call = stub.PublishStream()
    batches: list[list[event_pb2.Event]] = [[event()], [event(), event()], [event()]]
    for change, _, _ in BAD_EVENTS:
        bad = event()
        change(bad)
        batches.append([event(), bad])
    batches += [[event()], []]
    for index, events in enumerate(batches):
        await call.write(pb.PublishStreamRequest(batch_id=index + 1, events=events))
    await call.done_writing()
    greeting, *answers = [answer async for answer in call]
    assert greeting.batch_id == 0
    assert [answer.batch_id for answer in answers] == list(range(1, len(batches) + 1))
    assert [list(answer.sequences) for answer in answers[:3]] == [[1], [2, 3], [4]]
    for answer, (_, reason, text) in zip(answers[3:-2], BAD_EVENTS, strict=True):
        (refusal,) = answer.refusals
        assert (refusal.index, refusal.reason) == (1, f"ERROR_REASON_{reason}")
        assert text in refusal.message
    assert list(answers[-2].sequences) == [5]
    assert "events" in answers[-1].refusals[0].message
    assert (await admin.GetStats(admin_pb.GetStatsRequest())).refused == len(BAD_EVENTS)


async def test_a_quiet_publish_stream_shows_that_it_lives(stub: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "HEARTBEAT_S", 0.02)
    call = stub.PublishStream()
    async with asyncio.timeout(10):
        assert (await call.read()).batch_id == 0
        await call.write(pb.PublishStreamRequest(batch_id=9, events=[event()]))
        while not (answer := await call.read()).batch_id:
            pass
    assert list(answer.sequences) == [1]
    call.cancel()


# Subscribe.


@pytest.mark.parametrize(
    ("opening", "reason"),
    [
        (pb.SubscribeOpen(), "INVALID_FIELD"),
        (pb.SubscribeOpen(credit=100_001), "INVALID_FIELD"),
        (pb.SubscribeOpen(credit=1, types=["Nonsense"]), "INVALID_FIELD"),
        (pb.SubscribeOpen(credit=1, types=["a.>.b"]), "INVALID_FIELD"),
        (durable(name="Bad Name"), "INVALID_FIELD"),
        (durable(member=""), "INVALID_FIELD"),
        (pb.SubscribeOpen(credit=1, start=pb.SubscribeStart(after_sequence=99)), "POSITION_LOST"),
    ],
)
async def test_a_bad_opening_is_refused(stub: Any, opening: pb.SubscribeOpen, reason: str) -> None:
    code, told = await code_and_reason(RawReader(stub, opening).open())
    assert told == reason
    assert code == ("OUT_OF_RANGE" if reason == "POSITION_LOST" else "INVALID_ARGUMENT")


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        ({"ack": pb.SubscribeAck(sequences=[1])}, "INVALID_FIELD"),
        ({"credit": pb.SubscribeCredit(count=1)}, "INVALID_FIELD"),
    ],
)
async def test_anything_before_open_is_refused(stub: Any, message: dict[str, Any], reason: str) -> None:
    reader = RawReader(stub, durable())
    await reader.send(**message)
    assert await code_and_reason(reader.next()) == ("INVALID_ARGUMENT", reason)


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        ({"open": durable()}, "INVALID_FIELD"),
        ({"credit": pb.SubscribeCredit(count=0)}, "INVALID_FIELD"),
        ({"credit": pb.SubscribeCredit(count=200_000)}, "INVALID_FIELD"),
        ({"ack": pb.SubscribeAck(sequences=[99])}, "NOT_DELIVERED"),
        ({"nack": pb.SubscribeNack(sequence=99)}, "NOT_DELIVERED"),
        ({}, "INVALID_FIELD"),
    ],
)
async def test_a_bad_message_ends_the_stream_with_a_reason(stub: Any, message: dict[str, Any], reason: str) -> None:
    reader = RawReader(stub, durable())
    await reader.open()
    await reader.send(**message)
    assert await code_and_reason(reader.next()) == ("INVALID_ARGUMENT", reason)


async def test_a_reader_gets_what_it_asked_for_with_credit(stub: Any) -> None:
    await stub.Publish(pb.PublishRequest(events=[event("a"), stopped("a"), event("b")]))
    opening = pb.SubscribeOpen(types=["service.*"], subject="a", credit=1, start=pb.SubscribeStart(beginning=True))
    reader = RawReader(stub, opening)
    assert (await reader.open()).newest_sequence == 3
    assert await reader.sequences(1) == [1]
    await reader.send(credit=pb.SubscribeCredit(count=5))
    assert await reader.sequences(1) == [2]
    await stub.Publish(pb.PublishRequest(events=[event("b"), event("a")]))
    assert await reader.sequences(1) == [5]
    reader.call.cancel()


async def test_an_ephemeral_reader_may_stop_talking_and_still_listen(stub: Any) -> None:
    reader = RawReader(stub, pb.SubscribeOpen(credit=10))
    await reader.open()
    await reader.call.done_writing()
    await stub.Publish(pb.PublishRequest(events=[event()]))
    assert await reader.sequences(1) == [1]
    reader.call.cancel()


async def test_a_reader_of_the_newest_is_told_what_was_passed_over(stub: Any) -> None:
    policy = pb.EphemeralReader(slow_reader_policy=pb.SLOW_READER_POLICY_LATEST_PER_SUBJECT)
    start = pb.SubscribeStart(beginning=True)
    await stub.Publish(pb.PublishRequest(events=[event("a"), event("a"), event("b"), event("a")]))
    reader = RawReader(stub, pb.SubscribeOpen(credit=10, start=start, ephemeral=policy))
    await reader.open()
    assert (await reader.next()).gap == pb.SubscribeGap(
        first_sequence=1, last_sequence=2, skipped=2, cause=pb.GAP_CAUSE_SLOW_READER
    )
    assert await reader.sequences(2) == [3, 4]
    reader.call.cancel()


async def test_a_quiet_subscription_shows_that_it_lives(stub: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "HEARTBEAT_S", 0.02)
    reader = RawReader(stub, pb.SubscribeOpen(credit=10))
    await reader.open()
    assert (await reader._next()).WhichOneof("message") == "heartbeat"
    reader.call.cancel()


async def test_a_failing_event_comes_again_and_ends_as_a_dead_letter(stub: Any, admin: Any) -> None:
    reader = RawReader(stub, durable(max_attempts=2))
    await reader.open()
    await stub.Publish(pb.PublishRequest(events=[event(), event()]))
    assert await reader.sequences(2) == [1, 2]
    await reader.send(nack=pb.SubscribeNack(sequence=1, error="broken"))
    again = await reader.events(2)
    assert [(item.event.sequence, item.attempt) for item in again] == [(1, 2), (2, 1)]
    await reader.send(nack=pb.SubscribeNack(sequence=1, error="broken again"))
    assert await reader.sequences(1) == [2]
    await reader.ack(2)

    async def settled() -> bool:
        (consumer,) = (await admin.GetStats(admin_pb.GetStatsRequest())).consumers
        return (consumer.lag, consumer.dead_letters, consumer.in_flight) == (0, 1, 0)

    await until(settled)
    stats = await admin.GetStats(admin_pb.GetStatsRequest())
    assert (stats.failed, stats.dead_letters, stats.published) == (2, 1, 2)
    reader.call.cancel()


async def test_a_nack_may_name_its_own_delay(stub: Any) -> None:
    reader = RawReader(stub, durable(max_attempts=10))
    await reader.open()
    await stub.Publish(pb.PublishRequest(events=[event()]))
    nack = pb.SubscribeNack(sequence=1)
    nack.delay.SetInParent()
    async with asyncio.timeout(10):  # the delays of the schedule would be 25 s together
        for _ in range(8):
            assert await reader.sequences(1) == [1]
            await reader.send(nack=nack)
        assert await reader.sequences(1) == [1]
    reader.call.cancel()


async def test_what_a_vanished_member_held_goes_to_the_other(stub: Any) -> None:
    one, two = RawReader(stub, durable(member="one")), RawReader(stub, durable(member="two"))
    await one.open()
    await two.open()
    await stub.Publish(pb.PublishRequest(events=[event(f"s{n}") for n in range(10)]))
    first, second = await one.sequences(5), await two.sequences(5)
    assert sorted(first + second) == list(range(1, 11))
    await two.ack(*second)
    one.call.cancel()
    assert sorted(await two.sequences(5)) == sorted(first)
    await two.ack(*first)
    two.call.cancel()


@pytest.mark.parametrize(("says_goodbye", "attempt"), [(True, 1), (False, 2)])
async def test_what_a_reader_held_that_left_is_free_at_once_and_counts_unless_it_said_goodbye(
    stub: Any, says_goodbye: bool, attempt: int
) -> None:
    for number in range(10):
        await stub.Publish(pb.PublishRequest(events=[event(f"{number}-{n}") for n in range(3)]))
        reader = RawReader(stub, durable(f"c{number}", start_at_beginning=True))
        await reader.open()
        first, *rest = await reader.sequences(3 * number + 3)
        if says_goodbye:
            await reader.call.done_writing()
            await reader.ended()
        else:
            reader.call.cancel()
        reader = RawReader(stub, durable(f"c{number}", member="next"))
        await reader.open()
        async with asyncio.timeout(10):  # before its time to acknowledge is over
            again = {item.event.sequence: item.attempt for item in await reader.events(len(rest) + 1)}
        assert again == {first: attempt} | dict.fromkeys(rest, 1)
        reader.call.cancel()


async def test_one_member_name_cannot_be_connected_twice(stub: Any) -> None:
    reader = RawReader(stub, durable())
    await reader.open()
    assert await code_and_reason(RawReader(stub, durable()).open()) == ("ALREADY_EXISTS", "CONSUMER_CONFLICT")
    opening = durable(member="other")
    opening.types.append("trade.*")
    assert await code_and_reason(RawReader(stub, opening).open()) == ("ALREADY_EXISTS", "CONSUMER_CONFLICT")
    reader.call.cancel()


async def test_a_durable_reader_goes_on_behind_what_it_acknowledged(stub: Any, bus: Bus) -> None:
    reader = RawReader(stub, durable())
    await reader.open()
    await stub.Publish(pb.PublishRequest(events=[event(f"s{n}") for n in range(4)]))
    assert await reader.sequences(4) == [1, 2, 3, 4]
    await reader.ack(1, 3)
    await reader.call.done_writing()
    await reader.ended()
    await bus.stop()
    await bus.start()
    reader = RawReader(stub, durable())
    await reader.open()
    assert [(item.event.sequence, item.attempt) for item in await reader.events(2)] == [(2, 1), (4, 1)]
    reader.call.cancel()


# ListEvents.


async def test_listing_filters_and_pages(stub: Any) -> None:
    await stub.Publish(pb.PublishRequest(events=[event("a") if n % 2 else stopped("b") for n in range(10)]))
    request = pb.ListEventsRequest(types=["service.stopped"], page_size=2)
    pages: list[list[int]] = []
    while True:
        response = await stub.ListEvents(request)
        pages.append([item.sequence for item in response.events])
        if not response.next_page_token:
            break
        request.page_token = response.next_page_token
    assert [page for page in pages if page] == [[9, 7], [5, 3], [1]]
    by_source = await stub.ListEvents(pb.ListEventsRequest(source="tester", after_sequence=5))
    assert [item.sequence for item in by_source.events] == [10, 8, 6]


@pytest.mark.parametrize("token", ["x", "MTcuMTc=", "MTc=", "ééé"])
async def test_a_strange_page_token_is_refused(stub: Any, token: str) -> None:
    call = stub.ListEvents(pb.ListEventsRequest(page_token=token))
    assert await code_and_reason(call) == ("INVALID_ARGUMENT", "PAGE_TOKEN_INVALID")


async def test_a_page_token_is_good_for_its_own_filters_only(stub: Any) -> None:
    await stub.Publish(pb.PublishRequest(events=[event() for _ in range(3)]))
    token = (await stub.ListEvents(pb.ListEventsRequest(page_size=1))).next_page_token
    call = stub.ListEvents(pb.ListEventsRequest(page_token=token, source="other"))
    assert await code_and_reason(call) == ("INVALID_ARGUMENT", "PAGE_TOKEN_INVALID")


async def test_a_negative_page_size_is_refused(stub: Any) -> None:
    call = stub.ListEvents(pb.ListEventsRequest(page_size=-1))
    assert await code_and_reason(call) == ("INVALID_ARGUMENT", "INVALID_FIELD")
