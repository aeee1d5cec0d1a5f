"""Event types that programs of their own bring: learned from what they offer, checked, kept, and refused when they clash."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from tests.contract.event_bus.conftest import Bus
from tests.contract.event_bus.own_types import CONTRACTS, OfferingRegistry, descriptors, event_of, payload
from tests.contract.event_bus.speaking import RawReader, code_and_reason, event, until

from minhos_api.events.v1 import event_admin_service_pb2 as admin_pb
from minhos_api.events.v1 import event_bus_service_pb2 as pb
from minhos_api.events.v1 import event_pb2
from minhos_mesh.runtime.context import ServiceContext
from minhos_mesh.runtime.events import EventClient, EventInvalid, Reading

V1 = descriptors()
V2 = descriptors(version=2, numbers=("degrees",))


@pytest.fixture
async def registry() -> AsyncIterator[OfferingRegistry]:
    registry = OfferingRegistry()
    async with registry.server:
        yield registry


@pytest.fixture
async def bus(tmp_path: Path, registry: OfferingRegistry) -> AsyncIterator[Bus]:
    bus = Bus(tmp_path / "bus", targets={CONTRACTS: registry.server.address})
    await bus.start()
    yield bus
    await bus.stop()


async def publish(stub: Any, *events: Any) -> list[int]:
    return list((await stub.Publish(pb.PublishRequest(events=events))).sequences)


async def decoded(admin: Any, stored: Any) -> Any:
    """The payload of a stored event, read by nothing but what the bus tells."""
    request = admin_pb.GetEventTypeRequest(type=stored.type, version=stored.version)
    told = await admin.GetEventType(request)
    pool = descriptor_pool.DescriptorPool()
    for file in descriptor_pb2.FileDescriptorSet.FromString(told.descriptor_set).file:
        pool.AddSerializedFile(file.SerializeToString())
    found = message_factory.GetMessageClass(pool.FindMessageTypeByName(told.definition.payload))
    return found.FromString(stored.payload.value)


async def test_what_a_program_offers_when_it_attaches_can_be_published_at_once(
    stub: Any, admin: Any, registry: OfferingRegistry
) -> None:
    told = event_of(payload(V1, station="Zugspitze"))
    assert await code_and_reason(publish(stub, told)) == ("INVALID_ARGUMENT", "EVENT_TYPE_UNKNOWN")
    registry.attach(V1)
    assert await publish(stub, told) == [1]
    (stored,) = (await stub.ListEvents(pb.ListEventsRequest(types=["weather.*"]))).events
    assert (await decoded(admin, stored)).station == "Zugspitze"


async def test_its_rules_are_checked_as_those_of_the_mesh_are(stub: Any, registry: OfferingRegistry) -> None:
    registry.attach(descriptors(shortest=4))
    bad, good = payload(V1, station="abc"), payload(V1, station="abcd")
    assert await code_and_reason(publish(stub, event_of(bad))) == ("INVALID_ARGUMENT", "EVENT_PAYLOAD_INVALID")
    other = event(subject="north")
    other.type, other.version = "weather.measured", 1
    assert await code_and_reason(publish(stub, other)) == ("INVALID_ARGUMENT", "EVENT_PAYLOAD_INVALID")
    assert await publish(stub, event_of(good)) == [1]


async def test_a_publish_stream_learns_too_and_goes_on_behind_what_stays_unknown(
    stub: Any, registry: OfferingRegistry
) -> None:
    registry.attach(V1)
    call = stub.PublishStream()
    unknown = event_of(payload(descriptors("weather.unheard"), station="x"))
    for number, each in enumerate((unknown, event_of(payload(V1, station="x")), event()), start=1):
        await call.write(pb.PublishStreamRequest(batch_id=number, events=[each]))
    answers: list[Any] = []
    while len(answers) < 3:
        answer = await call.read()
        answers += [answer] if answer.batch_id else []
    call.cancel()
    assert [item.reason for item in answers[0].refusals] == ["ERROR_REASON_EVENT_TYPE_UNKNOWN"]
    assert [list(answer.sequences) for answer in answers[1:]] == [[1], [2]]


async def test_what_was_learned_stays_without_its_program_and_over_a_restart(
    stub: Any, admin: Any, bus: Bus, registry: OfferingRegistry
) -> None:
    registry.attach(V1)
    first = event_of(payload(V1, station="Zugspitze"))
    await publish(stub, first)
    registry.leave()
    await bus.stop()
    await registry.server.stop(0)
    await bus.start()
    (stored,) = (await stub.ListEvents(pb.ListEventsRequest(types=["weather.measured"]))).events
    assert (await decoded(admin, stored)).station == "Zugspitze"
    assert await publish(stub, first, event_of(payload(V1, station="Brocken"))) == [1, 2]
    reader = RawReader(stub, pb.SubscribeOpen(types=["weather.>"], start=pb.SubscribeStart(beginning=True), credit=9))
    await reader.open()
    assert await reader.sequences(2) == [1, 2]


async def test_old_versions_stay_readable_and_unknown_fields_survive(
    stub: Any, admin: Any, registry: OfferingRegistry
) -> None:
    registry.attach(V1)
    await publish(stub, event_of(payload(V1, station="old")))
    newer = event_of(payload(V2, station="new", degrees=-7), version=2)
    assert await code_and_reason(publish(stub, newer)) == ("INVALID_ARGUMENT", "EVENT_PAYLOAD_INVALID")
    registry.attach(V2, instance="2")
    assert await publish(stub, newer, event_of(payload(V1, station="still old"))) == [2, 3]
    stored = (await stub.ListEvents(pb.ListEventsRequest(ascending=True))).events
    assert [each.version for each in stored] == [1, 2, 1]
    read = [await decoded(admin, each) for each in stored]
    assert [each.station for each in read] == ["old", "new", "still old"]
    assert read[1].degrees == -7
    old_reader = payload(V1).FromString(stored[1].payload.value)
    passed_on = type(read[1]).FromString(old_reader.SerializeToString())
    assert (passed_on.station, passed_on.degrees) == ("new", -7)
    (told,) = [t for t in (await admin.ListEventTypes(admin_pb.ListEventTypesRequest())).types if "weather" in t.type]
    assert [(each.version, each.offered_by) for each in told.definitions] == [(1, "weather"), (2, "weather")]


async def test_another_message_under_the_same_type_and_version_is_refused_with_why(
    stub: Any, admin: Any, registry: OfferingRegistry
) -> None:
    registry.attach(V1)
    await publish(stub, event_of(payload(V1, station="here")))
    clashing = descriptors(fields=(), numbers=("station",))
    registry.attach(clashing, service="climate")
    await admin.ListEventTypes(admin_pb.ListEventTypesRequest())
    theirs = event_of(payload(clashing, station=5), source="climate")
    assert await code_and_reason(publish(stub, theirs)) == ("INVALID_ARGUMENT", "EVENT_PAYLOAD_INVALID")
    told = await admin.GetEventType(admin_pb.GetEventTypeRequest(type="weather.measured"))
    assert told.definition.offered_by == "weather"
    assert list(told.definition.refused) == ["climate"]
    assert "acme.v1.Measured.station" in told.definition.refused["climate"]
    assert len(await publish(stub, event_of(payload(V1, station="still taken")))) == 1


async def test_a_definition_that_breaks_nothing_takes_the_place_of_the_one_before(
    stub: Any, admin: Any, registry: OfferingRegistry
) -> None:
    registry.attach(V1)
    await publish(stub, event_of(payload(V1, station="here")))
    wider = descriptors(numbers=("degrees",))
    registry.attach(wider, instance="2")
    await admin.ListEventTypes(admin_pb.ListEventTypesRequest())
    await publish(stub, event_of(payload(wider, station="here", degrees=3)), event_of(payload(V1, station="there")))
    stored = (await stub.ListEvents(pb.ListEventsRequest(ascending=True))).events
    assert [(await decoded(admin, each)).degrees for each in stored] == [0, 3, 0]


async def test_a_definition_that_nobody_uses_gives_way(stub: Any, admin: Any, registry: OfferingRegistry) -> None:
    registry.attach(V1)
    await admin.ListEventTypes(admin_pb.ListEventTypesRequest())
    registry.leave()
    other = descriptors(fields=(), numbers=("station",))
    registry.attach(other)
    assert await publish(stub, event_of(payload(other, station=5))) == [1]


async def test_a_type_of_the_mesh_is_not_taken_over(stub: Any, admin: Any, registry: OfferingRegistry) -> None:
    for version in (1, 9):
        registry.attach(descriptors("service.started", version), service=f"thief_{version}")
    await admin.ListEventTypes(admin_pb.ListEventTypesRequest())
    for version in (1, 9):
        theirs = event_of(payload(V1, station="x"), version=version, source=f"thief_{version}")
        theirs.type = "service.started"
        assert await code_and_reason(publish(stub, theirs)) == ("INVALID_ARGUMENT", "EVENT_PAYLOAD_INVALID")
    assert await publish(stub, event()) == [1]


async def test_while_the_registry_is_away_an_unknown_type_is_to_be_sent_again(
    stub: Any, registry: OfferingRegistry
) -> None:
    await registry.server.stop(0)
    told = event_of(payload(V1, station="x"))
    assert await code_and_reason(publish(stub, told)) == ("UNAVAILABLE", "DEPENDENCY_UNAVAILABLE")
    assert await publish(stub, event()) == [1]


async def test_a_reader_may_ask_for_a_type_that_was_just_offered(stub: Any, registry: OfferingRegistry) -> None:
    registry.attach(V1)
    reader = RawReader(stub, pb.SubscribeOpen(types=["weather.measured"], credit=9))
    await reader.open()
    await publish(stub, event(), event_of(payload(V1, station="x")))
    assert await reader.sequences(1) == [2]


async def test_an_offer_that_cannot_be_used_harms_nobody(stub: Any, registry: OfferingRegistry) -> None:
    registry.attach(descriptors("nonsense"), service="odd")
    registry.attach(V1)
    assert await publish(stub, event_of(payload(V1, station="x"))) == [1]


async def test_a_service_on_the_runtime_tells_and_hears_types_of_its_own(
    context: ServiceContext, registry: OfferingRegistry
) -> None:
    registry.attach(V1)
    made = payload(V1, station="Zugspitze")
    heard: list[str] = []

    async def handle(_: event_pb2.Event, measured: Any) -> None:
        heard.append(measured.station)

    events = EventClient(context)
    events.subscribe({type(made): handle}, Reading(from_beginning=True))
    await events.publish([events.event(made, subject="north")])
    await until(lambda: heard == ["Zugspitze"])
    with pytest.raises(EventInvalid, match=r"payload\.station"):
        await events.publish([events.event(type(made)(), subject="north")])


async def test_a_handler_is_not_given_another_message_for_its_own(
    stub: Any, admin: Any, context: ServiceContext, registry: OfferingRegistry
) -> None:
    other = descriptors(version=2, message="acme.v2.Measured", fields=("place",))
    registry.attach(V1)
    registry.attach(other, instance="2")
    heard: list[str] = []

    async def handle(_: event_pb2.Event, measured: Any) -> None:
        heard.append(measured.station)

    await publish(stub, event_of(payload(other, "acme.v2.Measured", place="x"), version=2))
    await publish(stub, event_of(payload(V1, station="y")))
    wanted = Reading(durable="old", from_beginning=True, max_attempts=1)
    EventClient(context).subscribe({type(payload(V1)): handle}, wanted)
    await until(lambda: heard == ["y"])

    async def dead() -> bool:
        letters = (await admin.ListDeadLetters(admin_pb.ListDeadLettersRequest())).dead_letters
        return [each.attempts[0].error.partition(":")[0] for each in letters] == ["TypeError"]

    await until(dead)
