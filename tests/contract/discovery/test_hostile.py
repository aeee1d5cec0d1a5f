"""Clients that mean harm, or are broken: each is told what is wrong and ended, costs little, and the others are served."""

from __future__ import annotations

import asyncio
import gc
import tracemalloc
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc
import pytest

from minhos_mesh.registry import ads, ads_limits
from minhos_mesh.registry.envoy import ADS_METHOD, ADS_SERVICE
from minhos_mesh.registry.xds_resources import CDS, EDS, LDS, RDS
from minhos_mesh.runtime import channel_options
from minhos_mesh.runtime.contracts import all_contracts

CONTRACT = "test.v1.EchoService"
GET = f"/{CONTRACT}/Get"
METHOD = f"/{ADS_SERVICE}/{ADS_METHOD}"


@pytest.fixture
async def channels() -> AsyncIterator[Callable[[str], Any]]:
    made: list[grpc.aio.Channel] = []

    def new(address: str) -> grpc.aio.Channel:
        options = (("grpc.use_local_subchannel_pool", 1), ("n", len(made)))
        made.append(grpc.aio.insecure_channel(address, options=options))
        return made[-1]

    yield new
    await asyncio.gather(*(channel.close() for channel in made))


async def half_open(channel: grpc.aio.Channel, count: int) -> list[Any]:
    """Streams on which nothing is ever said."""
    calls: list[Any] = [channel.stream_stream(METHOD)() for _ in range(count)]
    await asyncio.gather(*(call.wait_for_connection() for call in calls), return_exceptions=True)
    return calls


async def test_half_open_streams_by_the_hundred_on_one_connection_are_refused(
    plane: Any, channels: Callable[[str], Any], wait_until: Any
) -> None:
    await plane.add("a")
    calls = await half_open(channels(plane.address), 300)
    expected = 300 - ads_limits.MAX_ON_CONNECTION
    await wait_until(lambda: plane.discovery.stats().turned_away == expected, "turned away")
    assert plane.discovery.stats().streams == ads_limits.MAX_ON_CONNECTION
    refused = next(call for call in calls if call.done())
    assert await refused.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert await refused.details() == f"{ads_limits.MAX_ON_CONNECTION} discovery streams are open on this connection"
    client = await plane.caller()
    assert await client.count(10) == {"a": 10}
    for call in calls:
        call.cancel()


async def test_one_process_may_call_every_contract_there_is(plane: Any) -> None:
    await plane.add("a")
    client = await plane.caller()
    for number in range(2 * len(all_contracts())):
        (nobody, _) = (await client.ask("call", path=f"/test.v1.Nobody{number}/Get", timeout=5.0))[0]
        assert "No matching route found" in nobody
    assert plane.discovery.stats().turned_away == 0
    assert await client.count(3) == {"a": 3}


async def test_half_open_streams_by_the_hundred_on_connections_of_their_own_keep_nobody_out(
    plane: Any, channels: Callable[[str], Any], wait_until: Any
) -> None:
    await plane.add("a")
    before = await plane.caller()
    assert await before.count(3) == {"a": 3}
    calls = [call for _ in range(300) for call in await half_open(channels(plane.address), 1)]
    expected = 300 - ads_limits.MAX_UNPROVEN
    await wait_until(lambda: plane.discovery.stats().turned_away >= expected, "turned away")
    assert plane.discovery.stats().streams <= ads_limits.MAX_UNPROVEN + 10
    after = await plane.caller()
    assert await after.count(10) == {"a": 10}
    await plane.add("b")
    for client in (before, after):
        assert (await client.ask("until", path=GET, wanted="b"))["at"] is not None
    ended = next(call for call in calls if call.done())
    assert await ended.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert await ended.details() == "others need the room, and nothing was answered on this stream"
    assert await plane.discovery.settled(1.0), "nobody waits for those who say nothing"
    for call in calls:
        call.cancel()


async def test_a_stream_on_which_nothing_is_answered_ends(
    plane: Any, new_stream: Callable[[], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ads, "PROOF_SECONDS", 0.2)
    silent, deaf, working = new_stream(), new_stream(), new_stream()
    await deaf.ask(LDS, CONTRACT)
    await working.ask(LDS, CONTRACT)
    await working.ask(LDS, CONTRACT, to=await working.heard())
    for stream in (silent, deaf):
        ended = await stream.ended()
        assert (ended.code(), ended.details()) == (
            grpc.StatusCode.RESOURCE_EXHAUSTED,
            "nothing was answered on this stream for 0.2 s",
        )
    with pytest.raises(TimeoutError):
        await working.heard(within_s=0.3)


TOO_MUCH: list[tuple[str, tuple[str, ...], str]] = [
    ("10,000 names", tuple(f"name-{number}" for number in range(10_000)), "10000 names, allowed are 2000"),
    ("one long name", ("x" * 600,), "a name of 600 characters, allowed are 512"),
    ("many long names", tuple(f"{number:0500d}" for number in range(600)), "300000 characters in all"),
    ("names nobody knows", tuple(f"name-{number}" for number in range(100)), "100 names that nobody knows, allowed are 64"),
    ("megabytes", tuple(f"{number:0500d}" for number in range(5_000)), "bytes, allowed are 1048576"),
]  # fmt: skip


@pytest.mark.parametrize(("_name", "names", "text"), TOO_MUCH, ids=[row[0] for row in TOO_MUCH])
async def test_a_client_that_asks_for_too_much_is_told(
    _name: str, names: tuple[str, ...], text: str, plane: Any, new_stream: Callable[[], Any]
) -> None:
    stream = new_stream()
    await stream.ask(RDS, *names)
    ended = await stream.ended()
    assert ended.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert text in str(ended.details())


async def test_garbage_is_told_to_be_garbage(plane: Any, new_stream: Callable[[], Any]) -> None:
    stream = new_stream()
    await stream.call.write(b"\xff" * 100)
    ended = await stream.ended()
    assert (ended.code(), ended.details()) == (
        grpc.StatusCode.INVALID_ARGUMENT,
        "100 bytes that are no DiscoveryRequest",
    )


async def test_a_huge_node_id_is_cut(plane: Any, new_stream: Callable[[], Any], wait_until: Any) -> None:
    await plane.add("a")
    stream = new_stream()
    await stream.ask(CDS, CONTRACT, node="n" * 500_000)
    await stream.ask(CDS, CONTRACT, to=await stream.heard(), error="no", node="n" * 500_000)
    await wait_until(lambda: plane.withheld, "it refuses")
    assert [len(name) for name in plane.withheld] == [ads_limits.MAX_CLIENT_NAME]


async def test_what_a_client_says_cannot_drive_a_terminal(
    plane: Any, new_stream: Callable[[], Any], wait_until: Any
) -> None:
    await plane.add("a")
    stream = new_stream()
    await stream.ask(CDS, CONTRACT, node="evil\x1b[2J\n")
    await stream.ask(CDS, CONTRACT, to=await stream.heard(), error="no\x1b]0;owned\x07\r\n", node="evil\x1b[2J\n")
    await wait_until(lambda: plane.withheld, "it refuses")
    assert {client: withheld[0].text for client, withheld in plane.withheld.items()} == {"evil [2J ": "no ]0;owned   "}


async def test_connections_that_say_nothing_are_ended_and_keep_nobody_out(plane: Any) -> None:
    await plane.add("a")
    host, _, port = plane.address.rpartition(":")
    opened = await asyncio.gather(*(asyncio.open_connection(host, int(port)) for _ in range(300)))
    client = await plane.caller()
    assert await client.count(10) == {"a": 10}
    handshake_s = float(dict(channel_options.SERVER)["grpc.server_handshake_timeout_ms"]) / 1_000
    async with asyncio.timeout(handshake_s + 5):
        for reader, _writer in opened:
            while await reader.read(1_024):
                pass
    for _reader, writer in opened:
        writer.close()


async def test_strange_zones_cost_nothing(plane: Any, new_stream: Callable[[], Any]) -> None:
    await plane.add("a", zone="east")
    for number in range(20):
        stream = new_stream()
        await stream.ask(EDS, CONTRACT, zone=f"zone-{number}" * 50)
        assert len((await stream.heard()).resources) == 1
    assert len(plane.discovery._snapshots) <= 2


async def test_a_flood_of_requests_is_read_no_faster_than_is_fair(
    plane: Any, new_stream: Callable[[], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ads_limits, "BURST", 50)
    monkeypatch.setattr(ads_limits, "REQUESTS_PER_SECOND", 100.0)
    await plane.add("a")
    stream, read = new_stream(), 0
    receive = plane.discovery._receive

    def counted(client: Any, message: Any) -> None:
        nonlocal read
        read += 1
        receive(client, message)

    monkeypatch.setattr(plane.discovery, "_receive", counted)
    await stream.ask(CDS, CONTRACT)
    answer = await stream.heard()
    begun = asyncio.get_running_loop().time()
    flood = asyncio.create_task(_flood(stream, answer))
    client = await plane.caller()
    assert await client.count(10) == {"a": 10}
    took = asyncio.get_running_loop().time() - begun
    await asyncio.sleep(0.3)
    flood.cancel()
    await asyncio.gather(flood, return_exceptions=True)
    assert read < 50 + 100 * (took + 1.0) + 60


async def _flood(stream: Any, answer: Any) -> None:
    while True:
        await stream.ask(CDS, CONTRACT, to=answer)


async def test_what_bad_clients_cost_is_given_back(plane: Any, channels: Callable[[str], Any], wait_until: Any) -> None:
    await plane.add("a")
    request = plane.messages.discovery_request(
        type_url=EDS, resource_names=[f"{number:04d}" * 100 for number in range(60)], node={"id": "n" * 100}
    ).SerializeToString()

    async def round_of(count: int) -> None:
        made = [channels(plane.address) for _ in range(count // 8)]
        calls = [channel.stream_stream(METHOD)() for channel in made for _ in range(8)]
        for call in calls:
            await call.write(request)
        await wait_until(lambda: plane.discovery.stats().streams >= min(count, ads_limits.MAX_UNPROVEN) // 2, "open")
        for call in calls:
            call.cancel()
        await asyncio.gather(*(channel.close() for channel in made))
        await wait_until(lambda: plane.discovery.stats().streams == 0, "closed")

    await round_of(50)
    gc.collect()
    tracemalloc.start()
    for _ in range(3):
        await round_of(200)
    _kept, peak = tracemalloc.get_traced_memory()
    assert peak < 40_000_000, "at its worst"

    def given_back() -> bool:
        gc.collect()
        return tracemalloc.get_traced_memory()[0] < 3_000_000

    try:
        await wait_until(given_back, "memory of clients that are gone")  # gRPC lets go of a closed call a little later
    finally:
        tracemalloc.stop()
