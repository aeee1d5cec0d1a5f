"""The contract gate over the wire, also for those who mean ill: clear refusals, bounded memory, the mesh unharmed."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import psutil
import pytest
from google.protobuf import descriptor_pb2

from minhos_api.registry.v1 import contract_service_pb2 as contract_pb
from minhos_api.registry.v1 import registry_service_pb2 as pb
from minhos_api.registry.v1 import registry_service_pb2_grpc as rpc
from minhos_mesh.runtime import errors
from minhos_mesh.runtime.attach import versions
from minhos_mesh.runtime.contracts import built_with
from minhos_mesh.runtime.errors import CallError

SIMULATOR = "minhos_api.sierra.v1.SierraSimulatorService"
ENGINE = "minhos_api.trading.v1.TradingEngineService"
VENUE = "minhos_api.venue.v1.VenueService"
MOST_GROWN_MB = 96.0
Files = descriptor_pb2.FileDescriptorSet
Attach = Callable[..., Any]


async def refusal(mesh: Any, hello: pb.AttachHello) -> CallError:
    stream = mesh.stream()
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stream.say(hello=hello)
        await stream.heard()
    return errors.read(caught.value)


def changed(data: bytes, change: Callable[[Files], None]) -> bytes:
    files = Files.FromString(data)
    change(files)
    return files.SerializeToString()


def add_everywhere(files: Files) -> None:
    for file in files.file:
        for message in file.message_type if file.package.startswith("minhos_api.") else ():
            message.field.add(name="added", number=900, type=9, label=1)
        for service in file.service:
            kinds = service.method[0].input_type, service.method[0].output_type
            service.method.add(name="Added", input_type=kinds[0], output_type=kinds[1])


def bend_everything(files: Files) -> None:
    for file in files.file:
        if file.package.startswith("minhos_api."):
            for message in file.message_type:
                for field in message.field:
                    field.number += 300


async def test_an_addition_and_the_build_before_it_run_side_by_side(mesh: Any, attach: Attach) -> None:
    newer = changed(built_with([SIMULATOR]), add_everywhere)
    for number, data in enumerate([built_with([SIMULATOR]), newer, built_with([SIMULATOR])]):
        stream = await attach("sierra_simulator", f"sim-{number}", SIMULATOR, descriptor_set=data)
        await stream.beat()

    async def all_serve() -> bool:
        service = (await mesh.services())["sierra_simulator"]
        return [i.in_rotation for i in service.instances] == [True] * 3

    await mesh.eventually(all_serve, "all three in rotation")


async def test_hundreds_of_violations_arrive_as_one_error_that_every_client_takes(mesh: Any, attach: Attach) -> None:
    await attach("trading_engine", "engine-1", ENGINE, descriptor_set=built_with([ENGINE]))
    offer = changed(built_with([VENUE]), bend_everything)
    told = await refusal(mesh, mesh.hello("paper_venue", "venue-1", VENUE, descriptor_set=offer))
    assert (told.code, told.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "ERROR_REASON_CONTRACT_VIOLATION")
    details = contract_pb.ContractViolations()
    assert any(detail.Unpack(details) for detail in told.details)
    assert details.violations_count > 100
    assert 5 < len(details.violations) < details.violations_count
    assert all("trading_engine/engine-1" in violation.consumers for violation in details.violations)
    assert sum(detail.ByteSize() for detail in told.details) + 2 * len(told.message) < 6_000


async def test_a_dependent_that_left_is_harmed_no_more(mesh: Any, attach: Attach) -> None:
    def dependents_of(told: CallError) -> set[str]:
        return set(told.metadata.get("consumers", "").split(", ")) - {""}

    offer = changed(built_with([VENUE]), bend_everything)
    stream = await attach("trading_engine", "engine-1", ENGINE, descriptor_set=built_with([ENGINE]))
    hello = mesh.hello("paper_venue", "venue-1", VENUE, descriptor_set=offer)
    assert dependents_of(await refusal(mesh, hello)) == {"trading_engine/engine-1"}
    await stream.beat()
    await stream.say(goodbye=pb.AttachGoodbye(reason="test"))
    async with asyncio.timeout(5):
        assert await stream.call.read() is grpc.aio.EOF
    assert dependents_of(await refusal(mesh, hello)) == set()


async def test_a_dependent_that_is_ahead_of_its_server_is_admitted_and_seen(mesh: Any, attach: Attach) -> None:
    await attach("paper_venue", "venue-1", VENUE, descriptor_set=built_with([VENUE]))
    await attach("trading_engine", "engine-1", ENGINE, descriptor_set=changed(built_with([ENGINE]), add_everywhere))

    async def errors() -> list[str]:
        return list((await mesh.services())["trading_engine"].errors)

    (told, *_others) = await mesh.eventually(errors, "what it is ahead of is told")
    assert "engine-1 was built with more than paper_venue/venue-1 serves" in told


async def test_what_an_instance_was_made_with_is_shown(mesh: Any, attach: Attach) -> None:
    await attach("sierra_simulator", "sim-1", SIMULATOR, versions=versions())
    (instance,) = (await mesh.services())["sierra_simulator"].instances
    assert set(instance.versions) == {"python", "grpcio", "protobuf", "generator", "contracts"}
    assert instance.versions["generator"].startswith("grpcio-tools ")


async def test_hostile_versions_are_cut(mesh: Any, attach: Attach) -> None:
    hostile = {f"k{n:04d}" + "x" * 500: "y" * 5_000 for n in range(500)}
    await attach("sierra_simulator", "sim-1", SIMULATOR, versions=hostile)
    (instance,) = (await mesh.services())["sierra_simulator"].instances
    assert len(instance.versions) <= 32
    assert all(len(key) <= 64 and len(value) <= 64 for key, value in instance.versions.items())


def evil(mesh: Any, data: bytes) -> pb.AttachHello:
    hello = mesh.hello("evil", "evil-1", contracts=["evil.S"], descriptor_set=data)
    assert isinstance(hello, pb.AttachHello)
    return hello


def circle() -> bytes:
    files = Files()
    files.file.add(name="a.proto", dependency=["b.proto"]).service.add(name="S")
    files.file.add(name="b.proto", dependency=["a.proto"])
    return files.SerializeToString()


def doubled() -> bytes:
    files = Files()
    for name in ("a.proto", "b.proto"):
        files.file.add(name=name).service.add(name="S")
    return files.SerializeToString()


def huge() -> bytes:
    files = Files()
    file = files.file.add(name="a.proto")
    file.service.add(name="S")
    file.message_type.extend(descriptor_pb2.DescriptorProto(name=f"M{n}") for n in range(60_000))
    return files.SerializeToString()


def chain() -> bytes:
    """Every file imports the one before it, as many as are allowed."""
    files = Files()
    for number in range(500):
        imports = [f"f{number - 1}.proto"] if number else []
        files.file.add(name=f"f{number}.proto", dependency=imports)
    files.file[-1].service.add(name="S")
    return files.SerializeToString()


def deep() -> bytes:
    files = Files()
    message = files.file.add(name="a.proto").message_type.add(name="M")
    for _level in range(5_000):
        inner = descriptor_pb2.DescriptorProto(name="M")
        inner.nested_type.add().name = "N"
        message = message.nested_type.add(name="M") if _level < 90 else message
    files.file[0].service.add(name="S")
    return files.SerializeToString()


HOSTILE: list[tuple[str, Callable[[], bytes], str]] = [
    ("noise", lambda: random.Random(1).randbytes(500_000), "bytes that are none"),
    ("10 MB of it", lambda: random.Random(2).randbytes(10_000_000), "hello.descriptor_set"),
    ("10 MB of empty files", lambda: b"\x0a\x00" * 5_000_000, "hello.descriptor_set"),
    ("2 MB", lambda: b"\x0a\x00" * 1_000_000, "2000000"),
    ("too many elements", huge, "more than"),
    ("a circle", circle, "in a circle"),
    ("a name twice", doubled, "duplicate symbol"),
    ("a long chain that says nothing", chain, "is not in the offer"),
    ("as deep as can be parsed", deep, "is not in the offer"),
]


@pytest.mark.parametrize(("_name", "data", "text"), HOSTILE, ids=[row[0] for row in HOSTILE])
async def test_a_hostile_descriptor_set_is_refused_and_everybody_else_lives_on(
    _name: str, data: Callable[[], bytes], text: str, mesh: Any, attach: Attach
) -> None:
    other = await attach("sierra_simulator", "sim-1", SIMULATOR)
    await other.beat()
    began = time.monotonic()
    told = await refusal(mesh, evil(mesh, data()))
    assert told.code in (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.FAILED_PRECONDITION)
    assert told.reason in ("ERROR_REASON_INVALID_FIELD", "ERROR_REASON_CONTRACT_VIOLATION")
    assert text in told.message
    assert len(told.message) < 1_500
    assert (await other.beat()).HasField("beat")
    assert time.monotonic() - began < 20


async def test_many_hostile_sets_leave_no_memory_behind(processes: Any, new_registry: Any, tmp_path: Path) -> None:
    process, address = await processes.registry()
    registry = psutil.Process(process.pid)
    unstarted = new_registry(tmp_path / "unstarted")
    many = huge()

    async def once(stub: rpc.RegistryServiceAsyncStub, number: int) -> None:
        package = changed(many, lambda files: setattr(files.file[0], "package", f"p{number}"))
        for data in (package, random.Random(number).randbytes(4_000_000)):
            call = stub.Attach()
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await call.write(pb.AttachRequest(hello=evil(unstarted, data)))
                await call.read()
            assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT

    async with grpc.aio.insecure_channel(address) as channel:
        stub = rpc.RegistryServiceStub(channel)
        for number in range(5):
            await once(stub, number)
        before = registry.memory_info().rss
        for number in range(5, 45):
            await once(stub, number)
        grown = (registry.memory_info().rss - before) / 1_048_576
    assert grown < MOST_GROWN_MB, f"{grown:.0f} MB more after 40 rounds of 5 MB each"
