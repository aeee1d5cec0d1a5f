"""How many events a consumer has still to come to: the number that is kept is the one that a scan would find."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import pytest
from tests.unit.event_bus.conftest import MakeEvent

from minhos_mesh.event_bus import lag as lag_module
from minhos_mesh.event_bus.domain.patterns import Selection
from minhos_mesh.event_bus.readers import Reader
from minhos_mesh.event_bus.reports import consumer_reports
from minhos_mesh.event_bus.service import Durable, EventBus, Start

BEGINNING = Start(beginning=True)


async def scanned(bus: EventBus, name: str) -> int:
    """What a scan of the journal finds, with what the consumer holds."""
    consumer = bus.consumers[name]
    held, letters = consumer.machine.held()
    return len(held) + len(letters) + await bus.engine.count(consumer.reached, consumer.machine.state.selection)


async def told(bus: EventBus, name: str) -> int:
    (report,) = await consumer_reports(bus, [name])
    return report.lag


async def same(bus: EventBus, name: str) -> None:
    """Both agree, at the latest when what is being read at this moment was read."""
    async with asyncio.timeout(5):
        while await told(bus, name) != await scanned(bus, name):
            await asyncio.sleep(0.001)


@pytest.mark.parametrize("look_every", [4, 10_000])
async def test_the_kept_number_is_that_of_a_scan_whatever_happens(
    bus: EventBus, make_event: MakeEvent, monkeypatch: pytest.MonkeyPatch, look_every: int
) -> None:
    monkeypatch.setattr(lag_module, "LOOK_EVERY", look_every)
    monkeypatch.setattr(lag_module, "PIECE", 7)
    chance = random.Random(7)
    selections = {
        "all": Selection(),
        "one": Selection(("t.a",)),
        "subject": Selection(("t.*",), "S1"),
    }
    readers: dict[str, Reader] = {}
    for step in range(150):
        match chance.randrange(6):
            case 0 | 1 | 2:
                count = chance.randrange(1, 6)
                events = [make_event(chance.choice(("t.a", "t.b")), chance.choice(("S1", "S2"))) for _ in range(count)]
                await bus.publish(events)
            case 3:
                name = chance.choice(list(selections))
                if name in readers:
                    bus.close_reader(readers.pop(name), clean=True)
                else:
                    start = BEGINNING if chance.random() < 0.7 else Start(latest_per_subject=True)
                    readers[name] = await bus.open_durable(selections[name], start, 3, Durable(name, f"m{step}"))
            case 4:
                for reader in readers.values():
                    output = await reader.next_output(0.01)
                    if output is not None and output.events:
                        reader.ack([each.event.sequence for each in output.events])
                        reader.grant(len(output.events))
            case 5:
                async with bus.gate.removing():
                    through = chance.randrange(1 + bus.bounds.newest)
                    bus.note_removed((await bus.engine.trim({"t.a": through}, 2)).removed)
        if bus.consumers and chance.random() < 0.1:
            bus.consumers[chance.choice(list(bus.consumers))].behind.forget()
        for name in list(bus.consumers) if chance.random() < 0.3 else ():
            await same(bus, name)
    assert bus.consumers.keys() == selections.keys()
    for name in bus.consumers:
        await same(bus, name)


async def test_who_reads_on_while_it_is_counted_is_counted_right(bus: EventBus, make_event: MakeEvent) -> None:
    await bus.publish([make_event() for _ in range(50)])
    reader = await bus.open_durable(Selection(), BEGINNING, 7, Durable("c", "m"))
    asked = [asyncio.create_task(told(bus, "c")) for _ in range(3)]
    await bus.publish([make_event() for _ in range(5)])
    for _ in range(3):
        output = await reader.next_output(1)
        assert output is not None
        reader.ack([each.event.sequence for each in output.events])
        reader.grant(len(output.events))
    await asyncio.gather(*asked)
    assert await told(bus, "c") == await scanned(bus, "c")


async def test_what_fell_out_of_memory_is_counted_anew(
    bus: EventBus, make_event: MakeEvent, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(lag_module, "LOOK_EVERY", 10**9)
    monkeypatch.setattr("minhos_mesh.event_bus.engines.sqlite.RECENT_EVENTS", 4)
    reader = await bus.open_durable(Selection(), BEGINNING, 1, Durable("c", "m"))
    bus.close_reader(reader, clean=True)
    assert await told(bus, "c") == 0
    for _ in range(10):
        await bus.publish([make_event() for _ in range(5)])
    assert await told(bus, "c") == 50
