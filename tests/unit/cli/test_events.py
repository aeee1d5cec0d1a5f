"""How the commands of events understand what was typed, and show events to people."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from typer.testing import CliRunner

from minhos_api.events.v1 import event_bus_service_pb2 as bus_pb
from minhos_api.events.v1 import event_pb2
from minhos_api.market.v1.market_events_pb2 import MarketDataUpdated
from minhos_api.registry.v1.registry_events_pb2 import ServiceStarted
from minhos_mesh.cli import event_care, event_reading
from minhos_mesh.cli.failure import CommandFailed
from minhos_mesh.cli.main import app
from minhos_mesh.runtime.events import make_event
from minhos_mesh.runtime.paths import MeshPaths


def event(**more: str) -> event_pb2.Event:
    payload = ServiceStarted(service="ai_brain", instance_id="ai_brain-1")
    return make_event(payload, subject="ai_brain", source="registry", time_ns=1_790_000_000_000_000_000, **more)  # type: ignore[arg-type] # by keyword


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("now", None),
        ("beginning", "beginning"),
        ("latest", "latest_per_subject"),
        ("10m", "time"),
        ("17", "after_sequence"),
    ],
)
def test_a_beginning_is_understood(text: str, kind: str | None) -> None:
    assert event_reading.start_of(text).WhichOneof("start") == kind


def test_a_sequence_begins_with_itself() -> None:
    assert event_reading.start_of("17").after_sequence == 16


def test_times_are_utc_unless_they_say_otherwise() -> None:
    expected = int(datetime(2026, 11, 22, 14, 30, tzinfo=UTC).timestamp())
    for text in ("2026-11-22T14:30", "2026-11-22T14:30Z", "2026-11-22T15:30+01:00"):
        assert event_reading.time_of("--since", text).seconds == expected


@pytest.mark.parametrize("text", ["yesterday", "", "10", "-5m", "99999999999d", "2026-13-01"])
def test_a_time_that_is_none_is_refused_with_what_is_allowed(text: str) -> None:
    with pytest.raises(CommandFailed, match="--since is .*: allowed is .*10m, 2h or 3d, or a time in UTC"):
        event_reading.time_of("--since", text)


def test_an_event_shows_its_payload_decoded() -> None:
    told = event_reading.event_dict(event())
    assert told["payload"]["service"] == "ai_brain"
    assert json.dumps(told)
    assert event_reading.payload_text(event()) == "service=ai_brain instance_id=ai_brain-1 fencing_token=0"


def test_a_payload_that_this_program_does_not_know_is_shown_as_bytes() -> None:
    strange = event()
    strange.payload.type_url = "type.googleapis.com/minhos_api.gone.v1.Gone"
    strange.payload.value = b"\x01\x02"
    assert event_reading.event_dict(strange)["payload"] == {
        "@type": "type.googleapis.com/minhos_api.gone.v1.Gone",
        "undecoded": "AQI=",
    }


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["requeue"], "say which"),
        (["requeue", "1", "--all"], "say which"),
        (["requeue", "1", "--consumer", "c"], "go with --all"),
        (["requeue", "1", "2", "--payload", "{}"], "exactly one number"),
        (["discard"], "say which"),
        (["consumers", "--pause"], "the name of a consumer is missing"),
        (["consumers", "c", "--pause", "--resume"], "do not go together"),
        (["list", "--since", "soon"], "--since is 'soon'"),
    ],
)
def test_a_mistake_is_told_before_the_mesh_is_asked(
    arguments: list[str], told: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = str(tmp_path_factory.mktemp("none"))
    result = CliRunner().invoke(app, ["events", *arguments, "--data-dir", folder])
    assert (result.exit_code, result.output.startswith("minhos: ")) == (1, True)
    assert told in result.output


def test_a_payload_is_typed_as_the_message_of_its_event_type() -> None:
    packed = event_care._payload('{"service": "x", "instance_id": "x-1"}', "service.started", ServiceStarted)
    assert packed.TypeName() == "minhos_api.registry.v1.ServiceStarted"
    for text, why in (('{"servce": "x"}', "servce"), ("[]", "is no"), ("{", "is no"), ("@/no/such", "cannot be read")):
        with pytest.raises(CommandFailed, match=why):
            event_care._payload(text, "service.started", ServiceStarted)


def test_an_event_whose_times_are_none_is_shown_all_the_same() -> None:
    strange = event()
    strange.event_time.seconds, strange.event_time.nanos = 2**62, -1
    told = event_reading.event_dict(strange)
    assert told["event_time"] == f"no time: {2**62} s and -1 ns since 1970"
    assert told["payload"]["service"] == "ai_brain"


def test_a_payload_with_a_time_that_is_none_is_shown_as_bytes() -> None:
    updated = MarketDataUpdated()
    updated.quote.event_time.seconds = 2**62
    strange = make_event(updated, subject="NQZ26-CME", source="market_data", time_ns=1)
    assert event_reading.event_dict(strange)["payload"]["undecoded"]


async def test_an_export_that_breaks_off_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Link:
        clients = None

    @contextlib.asynccontextmanager
    async def connected(_: MeshPaths) -> AsyncIterator[Link]:
        yield Link()

    async def breaks(*_: object) -> AsyncIterator[event_pb2.Event]:
        yield event()
        raise CommandFailed("the bus is gone")

    monkeypatch.setattr(event_reading, "connected", connected)
    monkeypatch.setattr(event_reading, "_stored", breaks)
    wanted = event_reading.Wanted((), None, None, None, None, None, None)
    with pytest.raises(CommandFailed, match="the bus is gone"):
        await event_reading.export(MeshPaths(tmp_path), wanted, tmp_path / "events.jsonl")
    assert not (tmp_path / "events.jsonl").exists()


async def test_what_a_call_would_still_ask_ends_with_the_call() -> None:
    asked: asyncio.Queue[bus_pb.SubscribeRequest | None] = asyncio.Queue()

    async def asking() -> None:
        while await asked.get() is not None:
            pass

    with pytest.raises(CommandFailed):
        async with event_reading._ended(asked):
            task = asyncio.create_task(asking())
            await asyncio.sleep(0)
            raise CommandFailed("refused by the bus")
    assert task.done()
