"""What publishers and readers may ask for beyond the plain case, and what they are told when it cannot be."""

from __future__ import annotations

import asyncio
import gc
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from tests.contract.event_bus.speaking import RawReader, code_and_reason, durable, event, stopped

from minhos_api.events.v1 import event_admin_service_pb2 as admin_pb
from minhos_api.events.v1 import event_bus_service_pb2 as pb
from minhos_api.events.v1 import event_pb2
from minhos_mesh.event_bus.engines import sqlite_journal
from minhos_mesh.runtime.errors import read
from minhos_mesh.runtime.storage import StorageFull

Bus = Any
"""See conftest."""


def expecting(subject: str, sequence: int) -> pb.ExpectedSequence:
    return pb.ExpectedSequence(subject=subject, sequence=sequence)


async def publish(stub: Any, *events: event_pb2.Event, expected: tuple[pb.ExpectedSequence, ...] = ()) -> list[int]:
    response = await stub.Publish(pb.PublishRequest(events=events, expected=expected))
    return list(response.sequences)


# Expected sequences.


async def test_of_two_who_decided_on_the_same_event_one_is_stored(stub: Any) -> None:
    assert await publish(stub, event("NQ"), expected=(expecting("NQ", 0),)) == [1]
    assert await publish(stub, event("ES"), event("NQ"), expected=(expecting("NQ", 1),)) == [2, 3]
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await publish(stub, event("ES"), event("NQ"), expected=(expecting("NQ", 1),))
    told = read(caught.value)
    assert (told.code.name, told.reason) == ("ABORTED", "ERROR_REASON_VERSION_MISMATCH")
    assert told.metadata == {"subject": "NQ", "expected": "1", "current": "3"}
    assert "the newest event of subject 'NQ' is 3, not 1" in told.message
    assert (await stub.ListEvents(pb.ListEventsRequest())).newest_sequence == 3


async def test_a_repeated_batch_gives_its_first_answer_though_the_subject_went_on(stub: Any) -> None:
    first = event("NQ")
    assert await publish(stub, first, expected=(expecting("NQ", 0),)) == [1]
    await publish(stub, event("NQ"))
    assert await publish(stub, first, expected=(expecting("NQ", 0),)) == [1]


async def test_a_publish_stream_tells_which_subject_stands_elsewhere_and_goes_on(stub: Any) -> None:
    call = stub.PublishStream()
    for number, expected in enumerate((0, 0, 1), start=1):
        await call.write(
            pb.PublishStreamRequest(batch_id=number, events=[event("NQ")], expected=[expecting("NQ", expected)])
        )
    await call.write(pb.PublishStreamRequest(batch_id=4, events=[event("NQ")], expected=[expecting("NQ", 2)] * 2))
    await call.done_writing()
    _, one, two, three, four = [answer async for answer in call]
    assert (list(one.sequences), list(three.sequences)) == ([1], [2])
    (refusal,) = two.refusals
    assert (refusal.reason, refusal.metadata["current"]) == ("ERROR_REASON_VERSION_MISMATCH", "1")
    assert "expected[1].subject" in four.refusals[0].message


# Beginnings.


async def test_a_reader_may_begin_with_the_newest_per_subject_and_goes_on_from_there(stub: Any) -> None:
    await publish(stub, event("NQ"), event("ES"), event("NQ"), stopped("NQ"), event("NQ"))
    start = pb.SubscribeStart(latest_per_subject=True)
    reader = RawReader(stub, pb.SubscribeOpen(credit=100, start=start))
    opened = await reader.open()
    assert (opened.after_sequence, opened.newest_sequence) == (0, 5)
    assert await reader.sequences(3) == [2, 4, 5]
    await publish(stub, event("ES"))
    assert await reader.sequences(1) == [6]
    reader.call.cancel()


async def test_a_durable_reader_begins_with_the_newest_per_subject_and_goes_on_after_a_restart(
    stub: Any, bus: Bus
) -> None:
    await publish(stub, event("NQ"), event("NQ"), event("ES"))
    opening = durable()
    opening.start.latest_per_subject = True
    reader = RawReader(stub, opening)
    await reader.open()
    assert await reader.sequences(2) == [2, 3]
    await reader.ack(2)
    await publish(stub, event("NQ"))
    assert await reader.sequences(1) == [4]
    await reader.call.done_writing()
    await reader.ended()
    await bus.stop()
    await bus.start()
    again = RawReader(stub, durable())
    await again.open()
    assert await again.sequences(2) == [3, 4]
    again.call.cancel()


@pytest.mark.parametrize("start", [pb.SubscribeStart(beginning=False), pb.SubscribeStart(latest_per_subject=False)])
async def test_a_beginning_that_says_no_is_refused(stub: Any, start: pb.SubscribeStart) -> None:
    opening = pb.SubscribeOpen(credit=1, start=start)
    assert await code_and_reason(RawReader(stub, opening).open()) == ("INVALID_ARGUMENT", "INVALID_FIELD")


# Deadlines.


async def test_an_event_in_progress_is_not_delivered_again_until_its_reader_falls_silent(stub: Any, admin: Any) -> None:
    await publish(stub, event("NQ"))
    reader = RawReader(stub, durable(start_at_beginning=True, ack_deadline=Duration(seconds=1)))
    await reader.open()
    assert await reader.sequences(1) == [1]
    other = RawReader(stub, durable(member="other"))
    await other.open()
    for _ in range(12):  # together longer than the deadline
        await asyncio.sleep(0.1)
        await reader.send(in_progress=pb.SubscribeInProgress(sequences=[1]))
    stats = await admin.GetStats(admin_pb.GetStatsRequest())
    assert (stats.failed, stats.consumers[0].in_flight) == (0, 1)
    both = [asyncio.ensure_future(each.events(1)) for each in (reader, other)]
    done, waiting = await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED, timeout=10)
    ((again,),) = [task.result() for task in done]
    assert (again.event.sequence, again.attempt) == (1, 2)
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)


# What nobody was given.


@pytest.mark.parametrize(
    "message",
    [
        {"ack": pb.SubscribeAck(sequences=[2])},
        {"nack": pb.SubscribeNack(sequence=2)},
        {"in_progress": pb.SubscribeInProgress(sequences=[2])},
        {"ack": pb.SubscribeAck(sequences=[99])},
    ],
)
async def test_an_answer_to_what_was_not_delivered_on_this_stream_is_refused(stub: Any, message: Any) -> None:
    await publish(stub, event("NQ"), stopped("NQ"))
    opening = durable(start_at_beginning=True)
    opening.types.append("service.started")
    reader = RawReader(stub, opening)
    await reader.open()
    assert await reader.sequences(1) == [1]
    await reader.ack(1)
    await reader.ack(1)  # late, and no error
    await reader.send(**message)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await reader.ended()
    told = read(caught.value)
    assert (told.code.name, told.reason) == ("INVALID_ARGUMENT", "ERROR_REASON_NOT_DELIVERED")


# Credit.


@pytest.mark.parametrize("credit", [0, 100_001])
async def test_no_credit_and_enormous_credit_are_refused(stub: Any, credit: int) -> None:
    opening = pb.SubscribeOpen(credit=credit)
    assert await code_and_reason(RawReader(stub, opening).open()) == ("INVALID_ARGUMENT", "INVALID_FIELD")


@pytest.mark.parametrize("opening", [pb.SubscribeOpen(credit=100_000), durable(credit=100_000)])
async def test_credit_that_adds_up_to_more_than_a_million_is_refused(stub: Any, opening: pb.SubscribeOpen) -> None:
    reader = RawReader(stub, opening)
    await reader.open()
    for _ in range(10):
        await reader.send(credit=pb.SubscribeCredit(count=100_000))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await reader.ended()
    told = read(caught.value)
    assert (told.code.name, told.reason) == ("RESOURCE_EXHAUSTED", "ERROR_REASON_LIMIT_REACHED")
    assert told.metadata["allowed"] == "1000000"


# Patterns.


@pytest.mark.parametrize(
    ("pattern", "reason"),
    [
        ("trade.>.x", "INVALID_FIELD"),
        ("Trade.*", "INVALID_FIELD"),
        ("", "INVALID_FIELD"),
        ("trade..executed", "INVALID_FIELD"),
        ("traed.*", "EVENT_TYPE_UNKNOWN"),
        ("trade.executed.>", "EVENT_TYPE_UNKNOWN"),
        ("*", "EVENT_TYPE_UNKNOWN"),
    ],
)
async def test_a_pattern_that_nothing_can_match_is_refused(stub: Any, pattern: str, reason: str) -> None:
    opening = pb.SubscribeOpen(credit=1, types=[pattern])
    assert await code_and_reason(RawReader(stub, opening).open()) == ("INVALID_ARGUMENT", reason)
    listing = stub.ListEvents(pb.ListEventsRequest(types=[pattern]))
    assert await code_and_reason(listing) == ("INVALID_ARGUMENT", reason)


# Payloads of other versions.


async def test_fields_of_a_payload_that_this_program_does_not_know_reach_the_reader(stub: Any) -> None:
    newer = event("NQ")
    newer.payload.value += b"\xfa\x3f\x03new"
    await publish(stub, newer)
    reader = RawReader(stub, pb.SubscribeOpen(credit=1, start=pb.SubscribeStart(beginning=True)))
    await reader.open()
    (item,) = await reader.events(1)
    assert item.event.payload.value == newer.payload.value
    reader.call.cancel()


@pytest.mark.parametrize(
    ("message", "seen"),
    [(pb.SubscribeRequest(credit=pb.SubscribeCredit(count=1)), "credit"), (None, "nothing")],
)
async def test_a_reader_that_does_not_open_first_is_told_what_it_said(
    stub: Any, message: pb.SubscribeRequest | None, seen: str
) -> None:
    call = stub.Subscribe()
    if message is not None:
        await call.write(message)
    else:
        await call.done_writing()
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call.read()
    told = read(caught.value)
    assert (told.code.name, told.metadata["field"], told.metadata["seen"]) == ("INVALID_ARGUMENT", "message", seen)
    assert f"message is {seen!r}: allowed is open as the first one" in told.message


async def test_a_disk_that_refuses_ends_every_stream_with_its_reason_and_nothing_else(
    stub: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: object) -> None:
        raise StorageFull("the disk is full")

    async def refused(call: Any) -> str:
        await call.write(pb.PublishStreamRequest(batch_id=1, events=[event("s")]))
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call.read()
        return read(caught.value).reason

    for _ in range(5):
        calls = [stub.PublishStream() for _ in range(10)]
        for call in calls:
            await call.read()
        with monkeypatch.context() as broken:
            broken.setattr(sqlite_journal, "_insert", full)
            assert set(await asyncio.gather(*map(refused, calls))) == {"ERROR_REASON_STORE_FULL"}
        del calls, call
        gc.collect()
        await asyncio.sleep(0)
    await stub.Publish(pb.PublishRequest(events=[event("s")]))
    assert [record.getMessage() for record in caplog.records if record.name == "asyncio"] == []
