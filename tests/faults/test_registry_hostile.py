"""Clients that attach as nobody should: each is told clearly, the registry stays small, and the mesh is unharmed."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from tests.faults.registry_process import OWN, RegistryProcess, Witness, hello

from minhos_api.registry.v1 import registry_service_pb2 as pb
from minhos_api.registry.v1 import registry_service_pb2_grpc as rpc
from minhos_mesh.registry.attach_limits import (
    BEATS_AT_ONCE,
    HELLO_SECONDS,
    MAX_STRANGERS,
)
from minhos_mesh.runtime import errors
from minhos_mesh.runtime.catalogue import service_names
from minhos_mesh.runtime.contracts import load_all

pytestmark = pytest.mark.timeout(120)


load_all()
MAX_SILENT, MAX_INSTANCES = 200, 100
BOUNDS = {
    "MINHOS_REGISTRY__MAX_SILENT_STREAMS": str(MAX_SILENT),
    "MINHOS_REGISTRY__MAX_INSTANCES_OF_SERVICE": str(MAX_INSTANCES),
}


@pytest.fixture
def loading() -> Iterator[Witness]:
    """Begun before the registry, beside which it loads."""
    made = Witness()
    yield made
    made.stop()


@pytest.fixture
async def registry(tmp_path: Path, loading: Witness) -> AsyncIterator[RegistryProcess]:
    running = RegistryProcess(tmp_path / "mesh", BOUNDS)
    try:
        await running.ready()
        yield running
        assert running.alive
    finally:
        running.stop()


@pytest.fixture
async def witness(registry: RegistryProcess, loading: Witness) -> Witness:
    await loading.ready(registry)
    return loading


class Hostile:
    """Opens attach streams, all on one connection."""

    def __init__(self, registry: RegistryProcess) -> None:
        self._channel = grpc.aio.insecure_channel(registry.address, options=OWN)
        self.calls: list[Any] = []

    def attach(self) -> Any:
        self.calls.append(rpc.RegistryServiceStub(self._channel).Attach())
        return self.calls[-1]

    async def hello(self, service: str, instance: str, **fields: Any) -> Any:
        call = self.attach()
        await call.write(hello(service, **{"instance_id": instance, **fields}))
        return call

    async def close(self) -> None:
        for call in self.calls:
            call.cancel()
        await self._channel.close()


@pytest.fixture
async def hostile(registry: RegistryProcess) -> AsyncIterator[Hostile]:
    made = Hostile(registry)
    yield made
    await made.close()


async def told(call: Any, within_s: float = 15.0) -> errors.CallError:
    """How the registry ends a stream."""
    async with asyncio.timeout(within_s):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            while await call.read() is not grpc.aio.EOF:
                pass
            raise_for(await call.code(), call)
    return errors.read(caught.value)


def raise_for(code: grpc.StatusCode, call: Any) -> None:
    if code is not grpc.StatusCode.OK:
        raise grpc.aio.AioRpcError(code, call.initial_metadata, call.trailing_metadata)


async def granted(call: Any) -> pb.AttachGranted:
    async with asyncio.timeout(60):
        answer = await call.read()
    assert answer is not grpc.aio.EOF, await call.details()
    assert answer.HasField("granted"), answer
    found: pb.AttachGranted = answer.granted
    return found


async def until(condition: Callable[[], Any], what: str, within_s: float = 15.0) -> None:
    end = asyncio.get_running_loop().time() + within_s
    while not await condition():
        assert asyncio.get_running_loop().time() < end, f"not within {within_s} s: {what}"
        await asyncio.sleep(0.05)


async def test_a_lease_that_is_taken_is_refused_however_often_it_is_asked_for(
    registry: RegistryProcess, witness: Witness, hostile: Hostile
) -> None:
    seen: Counter[tuple[str, str]] = Counter()
    for _round in range(10):
        bare = [await hostile.hello("sierra_simulator", "witness") for _ in range(10)]
        wrong = [await hostile.hello("sierra_simulator", "witness", fencing_token=9_999) for _ in range(10)]
        for error in await asyncio.gather(*(told(call) for call in [*bare, *wrong])):
            seen[error.code.name, error.reason] += 1
    assert seen == {
        ("ALREADY_EXISTS", "ERROR_REASON_INSTANCE_TAKEN"): 100,
        ("FAILED_PRECONDITION", "ERROR_REASON_LEASE_STALE"): 100,
    }
    await witness.assert_unharmed()


def storm(address: str, number: int, beats: int) -> tuple[int, errors.CallError]:
    """Sends heartbeats as fast as they go; returns how many went, and how the registry ended the stream."""
    sent = 0

    def requests() -> Iterator[pb.AttachRequest]:
        nonlocal sent
        yield hello("stormy", f"storm-{number}")
        for _ in range(beats):
            yield pb.AttachRequest(heartbeat=pb.AttachHeartbeat(serving=True))
            sent += 1

    with grpc.insecure_channel(address, options=OWN) as channel, pytest.raises(grpc.RpcError) as caught:
        for _answer in rpc.RegistryServiceStub(channel).Attach(requests(), timeout=30):
            pass
    return sent, errors.read(caught.value)


async def test_a_storm_of_heartbeats_ends_its_own_stream_only(registry: RegistryProcess, witness: Witness) -> None:
    before_mb, before_s = registry.memory_mb(), registry.cpu_s()
    storms = await asyncio.gather(*(asyncio.to_thread(storm, registry.address, n, 100_000) for n in range(5)))
    for sent, error in storms:
        assert (error.code, error.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "ERROR_REASON_LIMIT_REACHED")
        assert error.metadata == {"limit": "heartbeats a second", "seen": "more than 50", "allowed": "50"}
        assert sent > BEATS_AT_ONCE
    assert registry.memory_mb() - before_mb < 40
    assert registry.cpu_s() - before_s < 5
    await witness.assert_unharmed()


async def test_streams_that_never_say_hello_are_ended_and_keep_nobody_out(
    registry: RegistryProcess, witness: Witness, hostile: Hostile
) -> None:
    before_mb = registry.memory_mb()
    for _ in range(MAX_SILENT + 300):
        hostile.attach()
    open_ones = [asyncio.create_task(told(call, HELLO_SECONDS + 15)) for call in hostile.calls]
    other, began = Hostile(registry), asyncio.get_running_loop().time()
    await granted(await other.hello("honest", "honest-1"))
    assert asyncio.get_running_loop().time() - began < 3.0
    await other.close()
    seen = Counter((error.code.name, error.reason) for error in await asyncio.gather(*open_ones))
    gave_way = seen["RESOURCE_EXHAUSTED", "ERROR_REASON_LIMIT_REACHED"]
    too_late = seen["INVALID_ARGUMENT", "ERROR_REASON_INVALID_FIELD"]
    cut = seen["CANCELLED", ""]  # what gRPC makes of a refusal that meets a stream which is still being opened
    assert gave_way + too_late + cut == MAX_SILENT + 300, seen
    assert gave_way > 100
    assert cut < 100
    assert registry.memory_mb() - before_mb < 100
    await witness.assert_unharmed(slowest_s=3.0)


async def test_an_instance_that_never_beats_loses_its_lease_and_never_gets_a_call(
    registry: RegistryProcess, witness: Witness, hostile: Hostile
) -> None:
    call = await hostile.hello("mute", "mute-1")
    await granted(call)
    error = await told(call)
    assert (error.code, error.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "ERROR_REASON_LEASE_STALE")
    assert "let its lease run out" in error.message
    assert not [i for i in (await registry.services())["mute"].instances if i.in_rotation]
    await witness.assert_unharmed()


HUGE = "x" * 1_000
OVERSIZE = [
    ("a descriptor set of 5 MB", {"descriptor_set": b"\0" * 5_000_000}, "INVALID_ARGUMENT", "INVALID_FIELD"),
    ("a message of 20 MB", {"descriptor_set": b"\0" * 20_000_000}, "RESOURCE_EXHAUSTED", ""),
    (
        "ten thousand needs",
        {"depends_on": [{"contract": f"a.b.C{n}"} for n in range(10_000)]},
        "RESOURCE_EXHAUSTED",
        "LIMIT_REACHED",
    ),
    ("a hundred contracts", {"contracts": [f"a.b.C{n}" for n in range(100)]}, "INVALID_ARGUMENT", "INVALID_FIELD"),
    ("a name of a megabyte", {"instance_id": HUGE * 1_000}, "INVALID_ARGUMENT", "INVALID_FIELD"),
]


@pytest.mark.parametrize(("_name", "fields", "code", "reason"), OVERSIZE, ids=[row[0] for row in OVERSIZE])
async def test_a_hello_that_is_too_large_is_refused(
    registry: RegistryProcess,
    witness: Witness,
    hostile: Hostile,
    _name: str,
    fields: dict[str, Any],
    code: str,
    reason: str,
) -> None:
    before_mb = 0.0
    for number in range(16):
        error = await told(await hostile.hello("large", "large-1", **fields))
        assert (error.code.name, error.reason.removeprefix("ERROR_REASON_")) == (code, reason)
        if number == 5:
            before_mb = registry.memory_mb()
    assert "large" not in await registry.services()
    assert registry.memory_mb() - before_mb < 80
    await witness.assert_unharmed()


async def test_a_heartbeat_that_is_too_large_ends_its_stream(
    registry: RegistryProcess, witness: Witness, hostile: Hostile
) -> None:
    call = await hostile.hello("chatty", "chatty-1")
    await granted(call)
    conditions = {f"C{n}": HUGE for n in range(2_000)}
    await call.write(pb.AttachRequest(heartbeat=pb.AttachHeartbeat(serving=True, conditions=conditions)))
    error = await told(call)
    assert (error.code, error.metadata["limit"]) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "bytes of a heartbeat")
    await witness.assert_unharmed()


async def test_a_message_that_is_none_ends_its_stream(
    registry: RegistryProcess, witness: Witness, hostile: Hostile
) -> None:
    async with grpc.aio.insecure_channel(registry.address, options=OWN) as channel:
        attach: Any = channel.stream_stream("/minhos_api.registry.v1.RegistryService/Attach")
        for garbage in (b"\xff" * 1_000, b"\x0a\xff\xff\xff\xff\x0f", b""):
            call = attach()
            await call.write(garbage)
            error = await told(call)
            assert error.code in (grpc.StatusCode.INTERNAL, grpc.StatusCode.INVALID_ARGUMENT), error
    await witness.assert_unharmed()


async def test_a_flood_of_hellos_under_new_ids_ends_at_the_limit_of_a_service(
    registry: RegistryProcess, witness: Witness, hostile: Hostile
) -> None:
    before_mb = registry.memory_mb()
    beat = pb.AttachRequest(heartbeat=pb.AttachHeartbeat(serving=True))
    seen: Counter[str] = Counter()

    async def beating(number: int) -> None:
        call = await hostile.hello("flood", f"flood-{number}")
        try:
            await granted(call)
        except grpc.aio.AioRpcError as ended:
            error = errors.read(ended)
            seen[f"{error.code.name} {error.metadata.get('limit')}"] += 1
            return
        seen["granted"] += 1
        with contextlib.suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):  # too busy to keep its lease
            while True:
                await call.write(beat)
                await call.read()
                await asyncio.sleep(0.7)

    streams = [asyncio.create_task(beating(n)) for n in range(MAX_INSTANCES + 80)]

    async def all_answered() -> bool:
        for stream in streams:
            assert not stream.done() or stream.exception() is None, stream
        return sum(seen.values()) == len(streams)

    await until(all_answered, f"all are answered, not only {seen}", 60.0)
    assert seen["granted"] <= MAX_INSTANCES + 50  # a stream that beat too late made room for another
    assert seen["granted"] + seen["RESOURCE_EXHAUSTED attached instances of flood"] == len(streams)
    for stream in streams:
        stream.cancel()
    await asyncio.gather(*streams, return_exceptions=True)
    await hostile.close()

    async def empty() -> bool:
        return not (await registry.services())["flood"].instances

    await until(empty, "all of the flood are gone", 30.0)
    assert registry.memory_mb() - before_mb < 250
    await witness.assert_unharmed(slowest_s=3.0)


async def test_a_flood_of_hellos_under_new_names_leaves_a_bounded_list_of_services(
    registry: RegistryProcess, witness: Witness, hostile: Hostile
) -> None:
    for begin in range(0, MAX_STRANGERS + 200, 50):
        calls = [await hostile.hello(f"name_{n}", "one") for n in range(begin, begin + 50)]
        await asyncio.gather(*(granted(call) for call in calls))
        for call in calls:
            call.cancel()

    async def newest() -> bool:
        return f"name_{begin + 49}" in await registry.services()

    await until(newest, "the newest is told of")
    known = await registry.services()
    assert set(service_names()) <= set(known)
    assert len(known) - len(service_names()) <= MAX_STRANGERS
    await witness.assert_unharmed(slowest_s=3.0)
