"""What the bus keeps when its process is killed: nothing acknowledged is lost, nothing is stored twice, readers miss nothing."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import signal
import socket
import sys
import textwrap
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from minhos_api.events.v1 import event_admin_service_pb2 as admin_pb
from minhos_api.events.v1 import event_bus_service_pb2 as pb
from minhos_api.events.v1 import event_pb2
from minhos_api.events.v1.event_admin_service_pb2_grpc import EventAdminServiceStub
from minhos_api.events.v1.event_bus_service_pb2_grpc import EventBusServiceStub
from minhos_api.registry.v1.registry_events_pb2 import ServiceStarted
from minhos_mesh.runtime.clients import Clients
from minhos_mesh.runtime.config import MeshConfig
from minhos_mesh.runtime.context import ServiceContext
from minhos_mesh.runtime.events import EventClient, EventsUnacknowledged, Reading
from minhos_mesh.runtime.outbox import OUTBOX_SCHEMA, Outbox
from minhos_mesh.runtime.paths import MeshPaths
from minhos_mesh.runtime.storage import Database

CONTRACT = "minhos_api.events.v1.EventBusService"
ADMIN = "minhos_api.events.v1.EventAdminService"
KILLS = 4
SUBJECTS = 5

PROGRAM = textwrap.dedent(
    """
    import asyncio, sys
    from pathlib import Path
    import uvloop
    from minhos_mesh.event_bus.bootstrap import build
    from minhos_mesh.runtime.clients import Clients
    from minhos_mesh.runtime.config import MeshConfig
    from minhos_mesh.runtime.context import ServiceContext
    from minhos_mesh.runtime.paths import MeshPaths
    from minhos_mesh.runtime.server import MeshServer

    async def main(folder, port):
        context = ServiceContext("event_bus", "event_bus-1", MeshConfig(), MeshPaths(Path(folder)), Clients())
        async with build(context) as parts, MeshServer(parts.servicers, errors=parts.errors, port=port):
            print("serving", flush=True)
            await asyncio.Event().wait()

    uvloop.run(main(sys.argv[1], int(sys.argv[2])))
    """
)

READER = textwrap.dedent(
    """
    import asyncio, sys
    from pathlib import Path
    from minhos_mesh.runtime.clients import Clients
    from minhos_mesh.runtime.config import MeshConfig
    from minhos_mesh.runtime.context import ServiceContext
    from minhos_mesh.runtime.events import EventClient, Reading
    from minhos_mesh.runtime.paths import MeshPaths

    async def never(event):
        print("handling", flush=True)
        await asyncio.Event().wait()

    async def main(contract, address, folder):
        context = ServiceContext("x", "x-1", MeshConfig(), MeshPaths(Path(folder)), Clients({contract: address}))
        EventClient(context).subscribe_types([], never, Reading(durable="c", from_beginning=True, max_attempts=3))
        await asyncio.Event().wait()

    asyncio.run(main(*sys.argv[1:]))
    """
)


async def program_that_says(line: bytes, program: str, *arguments: str) -> asyncio.subprocess.Process:
    """A process of its own, once it has said that line."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "GRPC_VERBOSITY": "NONE"}
    command = (sys.executable, "-c", program, *arguments)
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE, env=environment)
    assert process.stdout is not None
    async with asyncio.timeout(20):
        assert await process.stdout.readline() == line
    return process


class BusProcess:
    """A real bus process that is killed and started again at the same port."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        self._process = await program_that_says(b"serving\n", PROGRAM, str(self._folder), str(self.port))

    async def kill(self) -> None:
        if self._process is not None and self._process.returncode is None:
            self._process.send_signal(signal.SIGKILL)
            await self._process.wait()


@pytest.fixture
async def bus(tmp_path: Path) -> AsyncIterator[BusProcess]:
    bus = BusProcess(tmp_path / "bus")
    await bus.start()
    yield bus
    await bus.kill()


@pytest.fixture
async def context(bus: BusProcess, tmp_path: Path) -> AsyncIterator[ServiceContext]:
    clients = Clients(dict.fromkeys((CONTRACT, ADMIN), f"127.0.0.1:{bus.port}"))
    context = ServiceContext("tester", "tester-1", MeshConfig(), MeshPaths(tmp_path / "tester"), clients)
    yield context
    await context.tasks.close()
    await clients.close()


async def stored(context: ServiceContext) -> list[event_pb2.Event]:
    """The whole journal, oldest first."""
    stub = context.clients.stub(EventBusServiceStub)
    request = pb.ListEventsRequest(ascending=True, page_size=1000)
    events: list[event_pb2.Event] = []
    while True:
        response = await stub.ListEvents(request)
        events += response.events
        request.page_token = response.next_page_token
        if not request.page_token:
            return events


def check_journal(journal: list[event_pb2.Event], acknowledged: dict[str, int]) -> None:
    """No acknowledged event is lost or moved, no id is stored twice, no sequence is missing."""
    places = {event.event_id: event.sequence for event in journal}
    assert {event_id: places.get(event_id) for event_id in acknowledged} == acknowledged
    assert len(places) == len(journal)
    assert [event.sequence for event in journal] == list(range(1, len(journal) + 1))


async def publish_for_ever(client: EventClient, number: int, acknowledged: dict[str, int]) -> None:
    """Publishes batches of one to three events, each again and again until it is acknowledged."""
    for count in range(1_000_000):
        events = [
            client.event(ServiceStarted(service=f"{count}", instance_id="i"), subject=f"s{(number + n) % SUBJECTS}")
            for n in range(1 + count % 3)
        ]
        while True:
            with contextlib.suppress(EventsUnacknowledged):
                sequences = await client.publish(events, timeout_s=0.3)
                break
        acknowledged.update({event.event_id: sequence for event, sequence in zip(events, sequences, strict=True)})


@pytest.mark.timeout(120)
async def test_sigkill_while_publishing_loses_no_acknowledged_event_and_doubles_none(
    bus: BusProcess, context: ServiceContext
) -> None:
    client = EventClient(context)
    acknowledged: dict[str, int] = {}
    durable: list[tuple[int, str]] = []
    live: list[int] = []

    async def on_durable(event: event_pb2.Event) -> None:
        durable.append((event.sequence, event.subject))

    async def on_live(event: event_pb2.Event) -> None:
        live.append(event.sequence)

    reading = client.subscribe_types([], on_durable, Reading(durable="checker", from_beginning=True))
    client.subscribe_types([], on_live, Reading(from_beginning=True))
    await reading.wait_open(10)
    publishers = [context.tasks.start(publish_for_ever(client, n, acknowledged), f"p{n}") for n in range(4)]
    for _ in range(KILLS):
        wanted = len(acknowledged) + 400
        async with asyncio.timeout(20):
            while len(acknowledged) < wanted:
                await asyncio.sleep(0.005)
        await bus.kill()
        await bus.start()
    for publisher in publishers:
        publisher.cancel()
    await asyncio.wait(publishers)
    await client.publish([client.event(ServiceStarted(service="last", instance_id="i"), subject="last")], timeout_s=10)
    journal = await stored(context)
    check_journal(journal, acknowledged)
    async with asyncio.timeout(20):
        while len({sequence for sequence, _ in durable}) < len(journal) or len(live) < len(journal):
            await asyncio.sleep(0.01)
    assert live == [event.sequence for event in journal]
    check_order_per_subject(durable)


def check_order_per_subject(deliveries: list[tuple[int, str]]) -> None:
    """Each subject's events came for the first time in the order of the journal."""
    firsts: dict[str, dict[int, None]] = {}
    for sequence, subject in deliveries:
        firsts.setdefault(subject, {}).setdefault(sequence)
    for order in firsts.values():
        assert list(order) == sorted(order)


@pytest.mark.timeout(120)
async def test_an_outbox_delivers_everything_once_and_in_order_over_kills_of_the_bus(
    bus: BusProcess, context: ServiceContext, tmp_path: Path
) -> None:
    client = EventClient(context)
    async with Database(tmp_path / "service.db", migrations=[OUTBOX_SCHEMA]) as database:
        outbox = Outbox(database, client)
        outbox.start(context.tasks)
        for round_ in range(KILLS):
            for n in range(50):
                name = f"{round_}-{n}"
                event = client.event(ServiceStarted(service=name, instance_id="i"), subject=name)
                await database.write(functools.partial(outbox.add, events=[event]))
            await bus.kill()
            await bus.start()
        async with asyncio.timeout(20):
            while await outbox.pending():
                await asyncio.sleep(0.01)
        await context.tasks.close()
    subjects = [event.subject for event in await stored(context)]
    assert subjects == [f"{round_}-{n}" for round_ in range(KILLS) for n in range(50)]


@pytest.mark.timeout(60)
async def test_a_reader_that_stands_still_slows_nobody_else(bus: BusProcess, context: ServiceContext) -> None:
    client = EventClient(context)
    seen: list[int] = []
    release = asyncio.Event()

    async def stuck(event: event_pb2.Event) -> None:
        await release.wait()

    async def quick(event: event_pb2.Event) -> None:
        seen.append(event.sequence)

    slow = client.subscribe_types([], stuck, Reading(durable="slow"))
    fast = client.subscribe_types([], quick, Reading(durable="fast"))
    await slow.wait_open(10)
    await fast.wait_open(10)
    for n in range(100):
        events = [client.event(ServiceStarted(service="x", instance_id="i"), subject=f"s{n}") for n in range(10)]
        await client.publish(events, timeout_s=10)
    async with asyncio.timeout(10):
        while len(seen) < 1000:
            await asyncio.sleep(0.005)
    stats = await context.clients.stub(EventAdminServiceStub).GetStats(admin_pb.GetStatsRequest())
    lag = {consumer.name: consumer.lag for consumer in stats.consumers}
    assert lag["slow"] == 1000
    release.set()


@pytest.mark.timeout(120)
async def test_what_a_killed_reader_held_is_free_at_once_and_an_event_that_kills_its_readers_ends_as_a_dead_letter(
    bus: BusProcess, context: ServiceContext, tmp_path: Path
) -> None:
    client = EventClient(context)
    made = [client.event(ServiceStarted(service=name, instance_id="i"), subject=name) for name in ("deadly", "other")]
    await client.publish(made, timeout_s=10)
    for _ in range(3):
        address = f"127.0.0.1:{bus.port}"
        reader = await program_that_says(b"handling\n", READER, CONTRACT, address, str(tmp_path / "reader"))
        reader.kill()
        await reader.wait()
    heard: list[str] = []

    async def handle(event: event_pb2.Event) -> None:
        heard.append(event.subject)

    client.subscribe_types([], handle, Reading(durable="c", max_attempts=3))
    async with asyncio.timeout(15):
        while heard != ["other"]:
            await asyncio.sleep(0.005)
    stats = await context.clients.stub(EventAdminServiceStub).GetStats(admin_pb.GetStatsRequest())
    assert (stats.dead_letters, stats.failed, stats.consumers[0].members) == (1, 3, 1)
