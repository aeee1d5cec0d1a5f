"""Reading a batch quickly gives what reading it event by event gives, for good and for bad ones."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from buf.validate import validate_pb2
from minhos_api.events.v1 import event_bus_service_pb2 as pb
from minhos_api.events.v1 import event_pb2
from minhos_api.health.v1.health_events_pb2 import ServiceHealthChanged
from minhos_api.registry.v1.registry_events_pb2 import ServiceStarted
from minhos_mesh.event_bus import intake, translate
from minhos_mesh.event_bus.domain.records import MAX_EVENT_BYTES
from minhos_mesh.event_bus.payloads import Payloads
from minhos_mesh.runtime.event_envelope import has_whole_time, is_surely_good, make_event
from minhos_mesh.runtime.validation import violations_of

Break = Callable[[event_pb2.Event], object]


def good(number: int = 0) -> event_pb2.Event:
    payload = ServiceStarted(service=f"s{number}", instance_id="i")
    return make_event(payload, subject=f"subject{number % 3}", source="test", time_ns=1, correlation_id="c")


def batch(*events: event_pb2.Event) -> pb.PublishStreamRequest:
    return pb.PublishStreamRequest(batch_id=1, events=events)


def read_both_ways(request: pb.PublishStreamRequest) -> None:
    copied = pb.PublishStreamRequest.FromString(request.SerializeToString())
    assert intake.events_of(request, Payloads()) == translate.events_from_pb(copied.events, Payloads())


def test_good_events_are_read_as_one_by_one() -> None:
    request = batch(*(good(number) for number in range(7)))
    events, refused = intake.events_of(request, Payloads())
    assert (len(events), refused) == (7, [])
    read_both_ways(request)


def test_a_good_batch_is_not_read_event_by_event(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(translate, "events_from_pb", None)
    assert len(intake.events_of(batch(good(1), good(2)), Payloads())[0]) == 2


def test_what_the_bus_gives_is_not_taken_from_a_publisher() -> None:
    event = good()
    event.sequence = 7
    event.store_time.FromNanoseconds(5)
    (_, read), _ = intake.events_of(batch(good(1), event), Payloads())
    assert not event_pb2.Event.FromString(read.envelope).sequence
    assert not event_pb2.Event.FromString(read.envelope).HasField("store_time")


def test_an_id_in_capitals_is_the_same_id() -> None:
    event = good()
    other = event_pb2.Event.FromString(event.SerializeToString())
    other.event_id = event.event_id.upper()
    (one, same), _ = intake.events_of(batch(event, other), Payloads())
    assert one.event_id == same.event_id


BREAKS: list[Break] = [
    lambda event: setattr(event, "event_id", "nonsense"),
    lambda event: setattr(event, "type", "no.such"),
    lambda event: setattr(event, "type", "Nonsense"),
    lambda event: setattr(event, "version", 0),
    lambda event: setattr(event, "version", 99),
    lambda event: setattr(event, "source", ""),
    lambda event: setattr(event, "subject", "x" * 129),
    lambda event: event.ClearField("event_time"),
    lambda event: event.ClearField("payload"),
    lambda event: setattr(event.payload, "value", b"\xff"),
    lambda event: setattr(event.payload, "value", b""),
    lambda event: event.payload.Pack(ServiceHealthChanged()),
    lambda event: setattr(event, "correlation_id", "x" * 65),
    lambda event: event.metadata.update({str(n): "" for n in range(33)}),
    lambda event: event.metadata.update({"large": "x" * MAX_EVENT_BYTES}),
]


@pytest.mark.parametrize("place", [0, 1])
@pytest.mark.parametrize("breaks", BREAKS)
def test_a_bad_event_is_refused_as_one_by_one(breaks: Break, place: int) -> None:
    events = [good(1), good(2), good(3)]
    breaks(events[place])
    request = batch(*events)
    _, refused = intake.events_of(batch(*events), Payloads())
    assert [item.index for item in refused] == [place]
    read_both_ways(request)


TEXTS = st.sampled_from(["", "x", "x" * 64, "x" * 65, "é" * 64, "x" * 128, "x" * 129, "é" * 128])


@st.composite
def envelopes(draw: st.DrawFn) -> event_pb2.Event:
    """A good event of which a few fields are at the edges of what they may be, or beyond."""
    event = good()
    for name in draw(st.lists(st.sampled_from(["source", "subject", "correlation_id", "causation_id", "traceparent"]))):
        setattr(event, name, draw(TEXTS))
    if draw(st.booleans()):
        event.event_id = draw(st.from_regex(r"[0-9a-fA-F]{8}-?([0-9a-g]{4}-){3}[0-9a-f]{12}\n?", fullmatch=True))
    if draw(st.booleans()):
        event.event_time.seconds = draw(st.sampled_from([-1, 0, 253_402_300_798, 253_402_300_799, 253_402_300_800]))
        event.event_time.nanos = draw(st.sampled_from([-1, 0, 1, 999_999_999, 1_000_000_000]))
    for number in range(draw(st.sampled_from([0, 31, 32, 33]))):
        event.metadata[str(number)] = ""
    for name in draw(st.lists(st.sampled_from(["event_time", "payload"]), max_size=1)):
        event.ClearField(name)  # type: ignore[arg-type] # one of the names of its fields
    return event


@given(envelopes())
def test_what_is_surely_good_keeps_its_contract(event: event_pb2.Event) -> None:
    broken = violations_of(event) or not has_whole_time(event)
    at_the_end = event.event_time.seconds == 253_402_300_799
    assert is_surely_good(event) == (not broken and not at_the_end)


def test_the_rules_of_an_envelope_are_those_that_are_known_by_hand() -> None:
    rules = {
        field.name: sorted(str(field.GetOptions().Extensions[validate_pb2.field]).split())
        for field in event_pb2.Event.DESCRIPTOR.fields
        if field.GetOptions().HasExtension(validate_pb2.field)
    }
    known = {
        "event_id": "string { uuid: true }",
        "type": r'string { pattern: "^[a-z][a-z0-9_]*(\\.[a-z][a-z0-9_]*)+$" }',
        "version": "uint32 { gte: 1 }",
        "source": "string { min_len: 1 max_len: 64 }",
        "subject": "string { max_len: 128 }",
        "event_time": "required: true timestamp { lte { seconds: 253402300799 } gte { } }",
        "correlation_id": "string { max_len: 64 }",
        "causation_id": "string { max_len: 64 }",
        "traceparent": "string { max_len: 64 }",
        "metadata": "map { max_pairs: 32 }",
        "payload": "required: true",
    }
    assert rules == {name: sorted(words.split()) for name, words in known.items()}
