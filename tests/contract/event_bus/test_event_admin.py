"""EventAdminService as people see it: consumers paused, reset and forgotten, dead letters put right, backups."""

from __future__ import annotations

import sqlite3
from collections.abc import Awaitable
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf import any_pb2
from google.protobuf.timestamp_pb2 import Timestamp
from tests.contract.event_bus.speaking import RawReader, durable, event, stopped, until

from minhos_api.events.v1 import event_admin_service_pb2 as pb
from minhos_api.events.v1 import event_bus_service_pb2 as bus_pb
from minhos_api.events.v1 import event_pb2
from minhos_api.registry.v1.registry_events_pb2 import ServiceStarted, ServiceStopped
from minhos_mesh.runtime.errors import CallError, read

Bus = Any
"""See conftest."""


async def refused(call: Awaitable[Any]) -> CallError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return read(caught.value)


async def publish(stub: Any, *events: event_pb2.Event) -> None:
    await stub.Publish(bus_pb.PublishRequest(events=events))


async def give_up(stub: Any, *subjects: str, name: str = "c") -> RawReader:
    """A reader that gave up one event of each subject; it is still connected."""
    await publish(stub, *(event(subject) for subject in subjects))
    reader = RawReader(stub, durable(name, max_attempts=1, start_at_beginning=True))
    await reader.open()
    for item in await reader.events(len(subjects)):
        await reader.send(nack=bus_pb.SubscribeNack(sequence=item.event.sequence, error=f"no {item.event.subject}"))
    return reader


async def letters(admin: Any, count: int, **request: Any) -> list[pb.DeadLetter]:
    """The dead letters, as soon as there are so many."""
    found: list[pb.DeadLetter] = []

    async def enough() -> bool:
        found[:] = (await admin.ListDeadLetters(pb.ListDeadLettersRequest(**request))).dead_letters
        return len(found) == count

    await until(enough)
    return found


def requeue(request_id: str = "r", **more: Any) -> pb.RequeueDeadLettersRequest:
    numbers = more.pop("numbers", None)
    if numbers is not None:
        more["numbers"] = pb.DeadLetterNumbers(numbers=numbers)
    return pb.RequeueDeadLettersRequest(request_id=request_id, actor="ann", **more)


# Dead letters.


async def test_a_dead_letter_shows_its_payload_and_every_attempt(stub: Any, admin: Any) -> None:
    reader = await give_up(stub, "NQ")
    (letter,) = await letters(admin, 1)
    assert (letter.number, letter.consumer, letter.event.sequence, letter.requeued) == (1, "c", 1, False)
    assert letter.event.payload.Is(ServiceStarted.DESCRIPTOR)
    assert [(attempt.member, attempt.error) for attempt in letter.attempts] == [("m", "no NQ")]
    reader.call.cancel()


async def test_dead_letters_are_filtered_and_paged(stub: Any, admin: Any) -> None:
    reader = await give_up(stub, "NQ", "ES", "YM")
    await letters(admin, 3)
    (one,) = await letters(admin, 1, filter=pb.DeadLetterFilter(subject="ES"))
    assert one.event.subject == "ES"
    assert await letters(admin, 0, filter=pb.DeadLetterFilter(types=["service.stopped"])) == []
    assert await letters(admin, 0, filter=pb.DeadLetterFilter(consumer="other")) == []
    numbers, token = [], ""
    while True:
        page = await admin.ListDeadLetters(pb.ListDeadLettersRequest(page_size=2, page_token=token))
        numbers += [letter.number for letter in page.dead_letters]
        assert page.waiting == 3
        token = page.next_page_token
        if not token:
            break
    assert numbers == [1, 2, 3]
    told = await refused(admin.ListDeadLetters(pb.ListDeadLettersRequest(number=9)))
    assert (told.code.name, told.reason, told.metadata["number"]) == (
        "NOT_FOUND",
        "ERROR_REASON_DEAD_LETTER_UNKNOWN",
        "9",
    )
    reader.call.cancel()


async def test_large_dead_letters_come_in_pages_that_every_client_takes(stub: Any, admin: Any) -> None:
    large = [event(f"S{number}", metadata={"note": "x" * 1_000_000}) for number in range(7)]
    await publish(stub, *large)
    reader = RawReader(stub, durable("c", max_attempts=1, start_at_beginning=True))
    await reader.open()
    for item in await reader.events(7):
        await reader.send(nack=bus_pb.SubscribeNack(sequence=item.event.sequence, error="no"))

    async def all_dead() -> bool:
        return int((await admin.ListDeadLetters(pb.ListDeadLettersRequest(page_size=1))).waiting) == 7

    await until(all_dead)
    numbers, token = [], ""
    while True:
        page = await admin.ListDeadLetters(pb.ListDeadLettersRequest(page_token=token))
        assert page.ByteSize() < 4 * 1024 * 1024
        numbers += [letter.number for letter in page.dead_letters]
        token = page.next_page_token
        if not token:
            break
    assert numbers == [1, 2, 3, 4, 5, 6, 7]
    reader.call.cancel()


async def test_a_number_that_no_letter_can_have_is_unknown(admin: Any) -> None:
    for call in (
        admin.ListDeadLetters(pb.ListDeadLettersRequest(number=2**63)),
        admin.RequeueDeadLetters(requeue(numbers=[2**64 - 1])),
        admin.DeleteDeadLetters(
            pb.DeleteDeadLettersRequest(request_id="r", actor="ann", numbers=pb.DeadLetterNumbers(numbers=[2**63]))
        ),
    ):
        told = await refused(call)
        assert (told.code.name, told.reason) == ("NOT_FOUND", "ERROR_REASON_DEAD_LETTER_UNKNOWN")


async def test_a_requeued_letter_that_is_acknowledged_is_gone(stub: Any, admin: Any) -> None:
    reader = await give_up(stub, "NQ", "ES")
    await letters(admin, 2)
    answer = await admin.RequeueDeadLetters(requeue(numbers=[1]))
    assert (answer.requeued, answer.remaining) == (1, 0)
    (item,) = await reader.events(1)
    assert (item.event.sequence, item.attempt, item.requeued) == (1, 1, True)
    assert [letter.number for letter in await letters(admin, 2, with_requeued=True)] == [1, 2]
    await reader.ack(1)
    (left,) = await letters(admin, 1, with_requeued=True)
    assert left.number == 2
    reader.call.cancel()


async def test_a_requeued_letter_that_fails_again_keeps_its_number_and_has_all_attempts(stub: Any, admin: Any) -> None:
    reader = await give_up(stub, "NQ")
    await letters(admin, 1)
    await admin.RequeueDeadLetters(requeue(all=pb.DeadLetterFilter()))
    await reader.events(1)
    await reader.send(nack=bus_pb.SubscribeNack(sequence=1, error="again"))
    (letter,) = await letters(admin, 1)
    assert (letter.number, [attempt.error for attempt in letter.attempts]) == (1, ["no NQ", "again"])
    reader.call.cancel()


async def test_a_requeued_letter_is_delivered_after_a_restart(stub: Any, admin: Any, bus: Bus) -> None:
    reader = await give_up(stub, "NQ", "ES")
    await letters(admin, 2)
    await reader.call.done_writing()
    await reader.ended()
    await admin.RequeueDeadLetters(requeue(numbers=[2]))
    await bus.stop()
    await bus.start()
    again = RawReader(stub, durable(max_attempts=1))
    await again.open()
    (item,) = await again.events(1)
    assert (item.event.sequence, item.requeued) == (2, True)
    await again.ack(2)
    await letters(admin, 1, with_requeued=True)
    again.call.cancel()


async def test_an_event_with_all_its_metadata_taken_goes_out_with_another_payload(stub: Any, admin: Any) -> None:
    made = event("NQ")
    made.metadata.update({str(number): "" for number in range(32)})
    await publish(stub, made)
    reader = RawReader(stub, durable("c", max_attempts=1, start_at_beginning=True))
    await reader.open()
    await reader.events(1)
    await reader.send(nack=bus_pb.SubscribeNack(sequence=1, error="no"))
    await letters(admin, 1)
    payload = any_pb2.Any()
    payload.Pack(ServiceStarted(service="mended", instance_id="x-1"))
    await admin.RequeueDeadLetters(requeue(numbers=[1], payload=payload))
    (item,) = await reader.events(1)
    assert item.event.payload == payload
    assert item.event.metadata == made.metadata
    reader.call.cancel()


async def test_a_letter_goes_out_with_another_payload_and_says_who_gave_it(stub: Any, admin: Any) -> None:
    reader = await give_up(stub, "NQ")
    await letters(admin, 1)
    wrong = any_pb2.Any()
    wrong.Pack(ServiceStopped(service="x", instance_id="x-1"))
    told = await refused(admin.RequeueDeadLetters(requeue(numbers=[1], payload=wrong)))
    assert (told.code.name, told.reason) == ("INVALID_ARGUMENT", "ERROR_REASON_EVENT_PAYLOAD_INVALID")
    right = any_pb2.Any()
    right.Pack(ServiceStarted(service="mended", instance_id="x-1"))
    told = await refused(admin.RequeueDeadLetters(requeue(all=pb.DeadLetterFilter(), payload=right)))
    assert (told.code.name, told.metadata["field"]) == ("INVALID_ARGUMENT", "payload")
    await admin.RequeueDeadLetters(requeue(numbers=[1], payload=right))
    (item,) = await reader.events(1)
    payload = ServiceStarted()
    item.event.payload.Unpack(payload)
    assert (payload.service, item.event.metadata["edited_by"]) == ("mended", "ann")
    (stored,) = (await stub.ListEvents(bus_pb.ListEventsRequest())).events
    assert stored.payload != item.event.payload
    reader.call.cancel()


async def test_a_letter_goes_to_another_consumer_that_has_come_so_far(stub: Any, admin: Any) -> None:
    reader = await give_up(stub, "NQ")
    await letters(admin, 1)
    told = await refused(admin.RequeueDeadLetters(requeue(numbers=[1], to_consumer="othr")))
    assert told.reason == "ERROR_REASON_CONSUMER_UNKNOWN"
    for opening, because in (
        (durable("narrow", types=["service.stopped"]), "does not read"),
        (durable("holding", start_at_beginning=True), "not acknowledged"),
    ):
        other = RawReader(stub, opening)
        await other.open()
        told = await refused(admin.RequeueDeadLetters(requeue(numbers=[1], to_consumer=opening.durable.name)))
        assert told.reason == "ERROR_REASON_STATE_CONFLICT"
        assert because in told.message
        other.call.cancel()
    other = RawReader(stub, durable("other"))
    await other.open()
    await admin.RequeueDeadLetters(requeue(numbers=[1], to_consumer="other"))
    assert await other.sequences(1) == [1]
    await other.ack(1)
    await letters(admin, 0, with_requeued=True)
    for each in (reader, other):
        each.call.cancel()


async def test_the_same_request_gives_the_first_answer_and_other_content_is_refused(stub: Any, admin: Any) -> None:
    reader = await give_up(stub, "NQ")
    await letters(admin, 1)
    first = await admin.RequeueDeadLetters(requeue("one", all=pb.DeadLetterFilter()))
    await reader.events(1)
    assert await admin.RequeueDeadLetters(requeue("one", all=pb.DeadLetterFilter())) == first
    told = await refused(admin.RequeueDeadLetters(requeue("one", numbers=[1])))
    assert (told.code.name, told.reason) == ("ALREADY_EXISTS", "ERROR_REASON_REQUEST_CONFLICT")
    reader.call.cancel()


async def test_nothing_is_requeued_or_removed_when_one_number_is_wrong(stub: Any, admin: Any) -> None:
    reader = await give_up(stub, "NQ")
    await letters(admin, 1)
    told = await refused(admin.RequeueDeadLetters(requeue(numbers=[1, 7])))
    assert (told.reason, told.metadata["number"]) == ("ERROR_REASON_DEAD_LETTER_UNKNOWN", "7")
    removal = pb.DeleteDeadLettersRequest(request_id="d", actor="ann", numbers=pb.DeadLetterNumbers(numbers=[1, 7]))
    assert (await refused(admin.DeleteDeadLetters(removal))).reason == "ERROR_REASON_DEAD_LETTER_UNKNOWN"
    await letters(admin, 1)
    removal.numbers.numbers[:] = [1]
    assert (await admin.DeleteDeadLetters(removal)).deleted == 1
    await letters(admin, 0, with_requeued=True)
    reader.call.cancel()


# Consumers.


async def consumer(admin: Any, name: str = "c") -> pb.Consumer:
    (found,) = (await admin.ListConsumers(pb.ListConsumersRequest(name=name))).consumers
    return found  # type: ignore[no-any-return] # the stub is untyped here


async def test_a_consumer_shows_members_lag_and_its_oldest(stub: Any, admin: Any) -> None:
    await publish(stub, event("NQ"), event("ES"), stopped("NQ"))
    reader = RawReader(stub, durable(types=["service.started"], start_at_beginning=True))
    await reader.open()
    await reader.sequences(2)
    found = await consumer(admin)
    assert (found.lag, found.in_flight, found.oldest_unacked_sequence, found.delivered) == (2, 2, 1, 2)
    assert [(member.name, member.in_flight, member.credit) for member in found.members] == [("m", 2, 98)]
    assert list(found.types) == ["service.started"]
    assert found.create_time.seconds
    told = await refused(admin.ListConsumers(pb.ListConsumersRequest(name="d")))
    assert (told.code.name, told.reason, told.metadata["known"]) == ("NOT_FOUND", "ERROR_REASON_CONSUMER_UNKNOWN", "c")
    reader.call.cancel()


async def test_consumers_are_paged(stub: Any, admin: Any) -> None:
    for name in "cab":
        reader = RawReader(stub, durable(name))
        await reader.open()
        reader.call.cancel()
    first = await admin.ListConsumers(pb.ListConsumersRequest(page_size=2))
    second = await admin.ListConsumers(pb.ListConsumersRequest(page_size=2, page_token=first.next_page_token))
    assert [[each.name for each in page.consumers] for page in (first, second)] == [["a", "b"], ["c"]]
    assert not second.next_page_token


async def test_a_paused_consumer_gets_nothing_over_a_restart_until_it_is_resumed(
    stub: Any, admin: Any, bus: Bus
) -> None:
    reader = RawReader(stub, durable())
    await reader.open()
    pausing = pb.PauseConsumerRequest(name="c", actor="ann", reason="repair")
    paused = await admin.PauseConsumer(pausing)
    assert paused.consumer.pause.reason == "repair"
    pausing.reason = "another"
    assert (await admin.PauseConsumer(pausing)).consumer.pause == paused.consumer.pause
    await publish(stub, event("NQ"))
    assert (await consumer(admin)).in_flight == 0
    await reader.call.done_writing()
    await reader.ended()
    await bus.stop()
    await bus.start()
    reader = RawReader(stub, durable())
    await reader.open()
    found = await consumer(admin)
    assert (found.pause.reason, found.in_flight, found.lag) == ("repair", 0, 1)
    resuming = pb.ResumeConsumerRequest(name="c", actor="ann")
    assert not (await admin.ResumeConsumer(resuming)).consumer.HasField("pause")
    assert await reader.sequences(1) == [1]
    reader.call.cancel()


def reset(request_id: str, **position: Any) -> pb.ResetConsumerRequest:
    return pb.ResetConsumerRequest(request_id=request_id, name="c", actor="ann", **position)


async def test_a_reset_consumer_goes_on_from_there_with_its_members(stub: Any, admin: Any) -> None:
    reader = RawReader(stub, durable(start_at_beginning=True))
    await reader.open()
    await publish(stub, *(event(f"S{number}") for number in range(4)))
    assert await reader.sequences(4) == [1, 2, 3, 4]
    await reader.ack(1, 2)
    await until(lambda: _lag(admin, 2))
    answer = await admin.ResetConsumer(reset("back", after_sequence=1))
    assert (answer.previous_position, answer.passed_over) == (4, 0)
    assert await reader.sequences(3) == [2, 3, 4]
    await reader.ack(2, 3)
    await until(lambda: _lag(admin, 1))
    answer = await admin.ResetConsumer(reset("forward", now=True))
    assert (answer.previous_position, answer.passed_over, answer.consumer.lag) == (4, 1, 0)
    assert await admin.ResetConsumer(reset("forward", now=True)) == answer
    await reader.ack(4)  # late, and no error
    await publish(stub, event("NQ"))
    assert await reader.sequences(1) == [5]
    told = await refused(admin.ResetConsumer(reset("far", after_sequence=99)))
    assert (told.code.name, told.reason) == ("OUT_OF_RANGE", "ERROR_REASON_POSITION_LOST")
    assert told.message == "after_sequence is 99: the journal holds 1 to 5"
    answer = await admin.ResetConsumer(reset("time", time=Timestamp(seconds=1)))
    assert await reader.sequences(5) == [1, 2, 3, 4, 5]
    answer = await admin.ResetConsumer(reset("again", beginning=True))
    assert await reader.sequences(5) == [1, 2, 3, 4, 5]
    reader.call.cancel()


async def _lag(admin: Any, lag: int) -> bool:
    return (await consumer(admin)).lag == lag


async def test_a_reset_makes_requeued_letters_dead_letters_again(stub: Any, admin: Any) -> None:
    reader = await give_up(stub, "NQ")
    await letters(admin, 1)
    await admin.RequeueDeadLetters(requeue(numbers=[1]))
    await reader.events(1)
    await admin.ResetConsumer(reset("r-1", now=True))
    (letter,) = await letters(admin, 1)
    assert (letter.number, letter.requeued) == (1, False)
    reader.call.cancel()


async def test_a_consumer_is_forgotten_only_when_nobody_reads_it_and_its_letters_stay(stub: Any, admin: Any) -> None:
    reader = await give_up(stub, "NQ")
    await letters(admin, 1)
    removal = pb.DeleteConsumerRequest(request_id="d", name="c", actor="ann")
    told = await refused(admin.DeleteConsumer(removal))
    assert (told.code.name, told.reason) == ("FAILED_PRECONDITION", "ERROR_REASON_STATE_CONFLICT")
    assert "members are connected: m" in told.message
    await reader.call.done_writing()
    await reader.ended()
    gone = await admin.DeleteConsumer(removal)
    assert gone.consumer.name == "c"
    assert await admin.DeleteConsumer(removal) == gone
    assert not (await admin.ListConsumers(pb.ListConsumersRequest())).consumers
    await letters(admin, 1)
    removal.request_id = "e"
    assert (await refused(admin.DeleteConsumer(removal))).reason == "ERROR_REASON_CONSUMER_UNKNOWN"


# Types, statistics, backup.


async def test_types_of_the_catalogue_are_listed_with_what_is_stored(stub: Any, admin: Any) -> None:
    await publish(stub, event("NQ"), event("NQ"))
    found, token = [], ""
    while True:
        page = await admin.ListEventTypes(pb.ListEventTypesRequest(page_size=5, page_token=token))
        found += page.types
        token = page.next_page_token
        if not token:
            break
    by_name = {each.type: each for each in found}
    assert sorted(by_name) == [each.type for each in found]
    started = by_name["service.started"]
    assert (started.payload, started.version, started.held) == ("minhos_api.registry.v1.ServiceStarted", 1, 2)
    assert by_name["trade.executed"].published == 0


async def test_statistics_show_readers_and_what_is_refused_by_type(stub: Any, admin: Any) -> None:
    reader = RawReader(stub, bus_pb.SubscribeOpen(credit=1))
    await reader.open()
    await publish(stub, event("NQ"), event("NQ"), event("NQ"))
    assert await reader.sequences(1) == [1]
    bad = event()
    bad.type = "no.such"
    await refused(stub.Publish(bus_pb.PublishRequest(events=[bad])))
    stats = await admin.GetStats(pb.GetStatsRequest())
    (found,) = stats.readers
    assert (found.delivered, found.lag, found.credit, found.skipped) == (1, 2, 0, 0)
    assert dict(stats.refused_types) == {"no.such": 1}
    assert (stats.retention.held, stats.types[0].held) == (3, 3)
    reader.call.cancel()


async def test_a_backup_taken_while_it_runs_holds_everything_acknowledged(
    stub: Any, admin: Any, tmp_path: Path
) -> None:
    reader = await give_up(stub, "NQ")
    await letters(admin, 1)
    request = pb.BackupJournalRequest(request_id="b", file_name="one.db", actor="ann")
    answer = await admin.BackupJournal(request)
    assert Path(answer.path) == tmp_path / "bus" / "backup" / "one.db"
    assert (answer.newest_sequence, answer.bytes) == (1, Path(answer.path).stat().st_size)
    connection = sqlite3.connect(answer.path)
    assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    assert connection.execute("SELECT count(*) FROM event").fetchone() == (1,)
    assert connection.execute("SELECT count(*) FROM dead_letter").fetchone() == (1,)
    connection.close()
    assert await admin.BackupJournal(request) == answer
    request.request_id = "c"
    assert (await refused(admin.BackupJournal(request))).reason == "ERROR_REASON_STATE_CONFLICT"
    for name in ("../x", "a/b", ".x"):
        request.file_name = name
        assert (await refused(admin.BackupJournal(request))).code.name == "INVALID_ARGUMENT"
    assert sorted(path.name for path in Path(answer.path).parent.iterdir()) == ["one.db"]
    reader.call.cancel()


async def test_a_bus_goes_on_from_its_backup(stub: Any, admin: Any, bus: Bus, tmp_path: Path) -> None:
    await publish(stub, event("NQ"), event("ES"))
    answer = await admin.BackupJournal(pb.BackupJournalRequest(request_id="b", actor="ann"))
    await publish(stub, event("YM"))
    await bus.stop()
    store = tmp_path / "bus" / "store"
    for path in store.iterdir():
        path.unlink()
    Path(answer.path).rename(store / "event_bus.db")
    await bus.start()
    listed = await stub.ListEvents(bus_pb.ListEventsRequest(ascending=True))
    assert [each.subject for each in listed.events] == ["NQ", "ES"]
