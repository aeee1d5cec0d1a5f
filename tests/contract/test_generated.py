"""What is derived from the contracts is up to date, complete, and can be made again by others from the image alone."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator
from importlib import import_module
from pathlib import Path

import betterproto
import grpc
import pytest
import pytest_asyncio
from betterproto.casing import pascal_case
from google.protobuf import descriptor_pb2

import generate
import xds_descriptors
from minhos_api.mesh.v1 import service_control_service_pb2 as control_pb2
from minhos_api.mesh.v1 import service_control_service_pb2_grpc as control_grpc

ROOT = generate.ROOT
IMAGE = ROOT / "proto" / "contracts.binpb"
SOURCES = ("buf.yaml", "buf.gen.yaml", "proto", "scripts")
TOOLS = Path(sys.executable).parent


class Control(control_grpc.ServiceControlServiceServicer):
    """Says that it is a service."""

    async def Describe(
        self,
        request: control_pb2.DescribeRequest,
        context: grpc.aio.ServicerContext[control_pb2.DescribeRequest, control_pb2.DescribeResponse],
    ) -> control_pb2.DescribeResponse:
        return control_pb2.DescribeResponse(name="event_bus", version="0.1.0")

    async def Drain(
        self,
        request: control_pb2.DrainRequest,
        context: grpc.aio.ServicerContext[control_pb2.DrainRequest, control_pb2.DrainResponse],
    ) -> control_pb2.DrainResponse:
        return control_pb2.DrainResponse()


@pytest_asyncio.fixture
async def address() -> AsyncIterator[str]:
    server = grpc.aio.server()
    control_grpc.add_ServiceControlServiceServicer_to_server(Control(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    yield f"127.0.0.1:{port}"
    await server.stop(None)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A copy of everything that generating needs, beside a copy of what is committed."""
    for name in (*SOURCES, "generated"):
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copyfile(source, tmp_path / name)
    return tmp_path


def _generated_again(project: Path) -> Path:
    out = project / "build" / "fresh"
    out.mkdir(parents=True)
    generate.prepare(project)
    image = project / "build" / "contracts.binpb"
    generate.write_image(project, image)
    generate.generate_into(project, image, out)
    return out / "generated"


def _run(*command: str | Path, cwd: Path = ROOT, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env={**os.environ, "PATH": f"{TOOLS}{os.pathsep}{os.environ['PATH']}", **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=50,
    )


def test_a_copy_generates_byte_for_byte_what_is_committed(project: Path) -> None:
    assert generate.differences(_generated_again(project), project / "generated") == []


def test_a_contract_changed_without_generating_is_found(project: Path) -> None:
    contract = project / "proto" / "minhos_api" / "mesh" / "v1" / "service_control_service.proto"
    text = contract.read_text(encoding="utf-8")
    contract.write_text(
        text.replace("message DescribeRequest {}", "message DescribeRequest {\n  // New.\n  int32 x = 1;\n}")
    )
    assert contract.read_text(encoding="utf-8") != text
    found = generate.differences(_generated_again(project), project / "generated")
    assert found == [
        f"out of date: generated/minhos_{name}"
        for name in (
            "api/mesh/v1/service_control_service_pb2.py",
            "api/mesh/v1/service_control_service_pb2.pyi",
            "dataclasses/mesh/v1/__init__.py",
        )
    ]


def test_hand_edits_and_left_over_files_are_found_and_settled(tmp_path: Path) -> None:
    fresh, committed = tmp_path / "fresh", tmp_path / "generated"
    for folder in (fresh, committed):
        (folder / "a" / "__pycache__").mkdir(parents=True)
        (folder / "a" / "same.py").write_text("1")
        (folder / "a" / "edited.py").write_text(str(folder))
    (fresh / "new.py").write_text("2")
    (committed / "gone").mkdir()
    (committed / "gone" / "old.py").write_text("3")
    assert generate.differences(fresh, committed) == [
        "missing: generated/new.py",
        "left over: generated/gone/old.py",
        "out of date: generated/a/edited.py",
    ]
    before = (committed / "a" / "same.py").stat().st_mtime_ns
    assert generate.settle(fresh, committed) == 3
    assert generate.differences(fresh, committed) == []
    assert not (committed / "gone").exists()
    assert (committed / "a" / "same.py").stat().st_mtime_ns == before


def test_the_baseline_image_is_not_broken_by_the_contracts(tmp_path: Path) -> None:
    image = tmp_path / "contracts.binpb"
    generate.prepare(ROOT)
    generate.write_image(ROOT, image)
    broken = generate.buf(ROOT, "breaking", str(image), "--against", str(IMAGE))
    assert broken.returncode == 0, broken.stdout


def test_a_deleted_rpc_breaks_the_baseline(project: Path) -> None:
    contract = project / "proto" / "minhos_api" / "mesh" / "v1" / "service_control_service.proto"
    head, _, tail = contract.read_text(encoding="utf-8").partition("  rpc Drain(")
    contract.write_text(head + tail.partition("\n  }\n")[2], encoding="utf-8")
    generate.prepare(project)
    image = project / "build" / "contracts.binpb"
    generate.write_image(project, image)
    broken = generate.buf(project, "breaking", str(image), "--against", "proto/contracts.binpb")
    assert broken.returncode != 0
    assert 'RPC "Drain" on service "ServiceControlService" was deleted' in broken.stdout.replace(
        "Previously present ", ""
    )


def test_the_image_stands_alone() -> None:
    files = descriptor_pb2.FileDescriptorSet.FromString(IMAGE.read_bytes()).file
    held = {each.name for each in files}
    assert {name for each in files for name in each.dependency} - held == set()


@pytest.mark.skipif(not (TOOLS / "grpcurl").exists(), reason="grpcurl comes for x86_64 Linux only")
def test_grpcurl_calls_a_service_with_the_image_and_no_reflection(address: str) -> None:
    listed = _run("grpcurl", "-protoset", IMAGE, "list")
    assert "minhos_api.trading.v1.TradingEngineService" in listed.stdout.split()


async def test_grpcurl_speaks_to_a_server_without_reflection(address: str) -> None:
    if not (TOOLS / "grpcurl").exists():
        pytest.skip("grpcurl comes for x86_64 Linux only")
    method = "minhos_api.mesh.v1.ServiceControlService/Describe"
    done = await asyncio.to_thread(_run, "grpcurl", "-plaintext", "-protoset", IMAGE, address, method)
    assert json.loads(done.stdout) == {"name": "event_bus", "version": "0.1.0"}


@pytest.mark.timeout(180)
async def test_the_image_alone_gives_working_stubs_for_typescript(tmp_path: Path, address: str) -> None:
    if shutil.which("npm") is None:
        pytest.skip("needs npm for the TypeScript generator; the Python half of the mesh does not")
    if _run("npm", "ping", cwd=tmp_path).returncode != 0:
        pytest.skip("the npm registry cannot be reached")
    example = tmp_path / "docs" / "typescript"
    ignored = shutil.ignore_patterns("gen", "node_modules")
    shutil.copytree(ROOT / "docs" / "typescript", example, ignore=ignored)
    (tmp_path / "proto").mkdir()
    shutil.copyfile(IMAGE, tmp_path / "proto" / "contracts.binpb")
    installed = await asyncio.to_thread(_run, "npm", "ci", "--no-audit", "--no-fund", cwd=example)
    assert installed.returncode == 0, installed.stderr
    made = _run("buf", "generate", "../../proto/contracts.binpb", cwd=example)
    assert made.returncode == 0, made.stderr
    said = await asyncio.to_thread(_run, "node", "client.mjs", address, cwd=example)
    assert said.stdout == "event_bus 0.1.0\n", said.stderr


def _contract_modules() -> list[str]:
    generated = ROOT / "generated" / "minhos_api"
    return sorted(
        "minhos_api." + path.relative_to(generated).with_suffix("").as_posix().replace("/", ".")
        for path in generated.rglob("*_pb2.py")
    )


def test_every_contract_file_has_its_modules() -> None:
    sources = {
        path.relative_to(ROOT / "proto").with_suffix("").as_posix() for path in (ROOT / "proto").rglob("*.proto")
    }
    modules = {name.removesuffix("_pb2").replace(".", "/") for name in _contract_modules()}
    assert modules == sources
    for name in _contract_modules():
        import_module(name)


def test_every_message_has_its_dataclass_and_every_service_its_second_client() -> None:
    for name in _contract_modules():
        file = import_module(name).DESCRIPTOR
        package = file.package.removeprefix("minhos_api.")
        dataclasses = import_module(f"minhos_dataclasses.{package}")
        for message in file.message_types_by_name:
            assert issubclass(getattr(dataclasses, pascal_case(message)), betterproto.Message), f"{name}.{message}"
        for service in file.services_by_name:
            assert issubclass(getattr(dataclasses, f"{pascal_case(service)}Stub"), betterproto.ServiceStub), (
                f"{name}.{service}"
            )


def test_the_xds_descriptor_set_is_complete_and_of_its_recipe() -> None:
    assert xds_descriptors.differences(ROOT) == []
    files = descriptor_pb2.FileDescriptorSet.FromString((ROOT / xds_descriptors.SET).read_bytes()).file
    held: set[str] = set()
    for each in files:
        assert set(each.dependency) <= held, f"{each.name} comes before what it imports"
        held.add(each.name)
    assert set(xds_descriptors.ROOTS) <= held
