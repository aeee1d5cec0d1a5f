"""Decides where a contract set is read from: a descriptor set, proto files, a running server, the mesh, or this program."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import sys
import tempfile
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from google.protobuf import descriptor_pb2
from google.protobuf.message import DecodeError

import minhos_mesh
from minhos_api.registry.v1 import contract_service_pb2 as pb
from minhos_api.registry.v1.contract_service_pb2_grpc import ContractServiceStub
from minhos_mesh.cli.failure import CommandFailed
from minhos_mesh.cli.mesh import Link, NotRunning, connected
from minhos_mesh.compatibility.descriptors import ContractSet, DescriptorsInvalid, resolve
from minhos_mesh.runtime.attach import PROGRAM_VERSION
from minhos_mesh.runtime.contracts import whole_set
from minhos_mesh.runtime.paths import MeshPaths
from minhos_mesh.runtime.reflection import NotReflected, served_contracts

ADDRESS: Final = re.compile(r"^(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9_.-]+):\d{1,5}$")
IMAGE: Final = "contracts.binpb"
COMPILE_S: Final = 60.0
MAX_FILE_BYTES: Final = 64 * 1_048_576
"""A file that is larger is no descriptor set of contracts."""


@dataclass(frozen=True, slots=True)
class Source:
    """A contract set with where it comes from."""

    name: str
    """For people."""
    set: ContractSet


async def read(what: str) -> Source:
    """The contract set that an argument of a command names. Raises CommandFailed."""
    if not what.strip():
        raise CommandFailed("no contract set is named: give a descriptor set, a .proto file, a folder or host:port")
    path = Path(what).expanduser()
    if path.is_dir() or path.suffix == ".proto":
        return Source(what, _resolved(what, _compiled(path)))
    if path.is_file():
        if path.stat().st_size > MAX_FILE_BYTES:
            raise CommandFailed(f"{what} has {path.stat().st_size} bytes: that is no descriptor set of contracts")
        return Source(what, _resolved(what, path.read_bytes()))
    if ADDRESS.match(what):
        try:
            _names, data = await served_contracts(what)
        except NotReflected as error:
            raise CommandFailed(str(error)) from None
        return Source(what, _resolved(what, data))
    raise CommandFailed(f"{what}: there is no such file or folder, and it is no address like 127.0.0.1:40112")


def own() -> Source:
    """The contracts to compare with when no mesh runs: the committed image of this checkout, else those of this program."""
    image = Path(minhos_mesh.__file__).parents[2] / "proto" / IMAGE
    if image.is_file():
        return Source(f"the committed contracts in {image}", _resolved(str(image), image.read_bytes()))
    return Source(f"the contracts of this program, release {PROGRAM_VERSION}", resolve(whole_set()))


async def link_or_none(paths: MeshPaths, stack: AsyncExitStack) -> Link | None:
    """A way to the running mesh; None when none runs."""
    try:
        return await stack.enter_async_context(connected(paths))
    except NotRunning:
        return None


async def of_mesh(link: Link) -> Source:
    """All contracts of a running mesh."""
    stub, files = link.clients.stub(ContractServiceStub), descriptor_pb2.FileDescriptorSet()
    listed = await stub.ListContracts(pb.ListContractsRequest())
    there = set[str]()
    for entry in listed.contracts:
        found = await stub.GetContract(pb.GetContractRequest(name=entry.name))
        for file in descriptor_pb2.FileDescriptorSet.FromString(found.descriptor_set).file:
            if file.name not in there:
                there.add(file.name)
                files.file.append(file)
    return Source(f"the mesh in {link.paths.data_dir}", _resolved("the mesh", files.SerializeToString()))


def _resolved(what: str, data: bytes) -> ContractSet:
    try:
        files = descriptor_pb2.FileDescriptorSet.FromString(data)
    except DecodeError:
        raise CommandFailed(f"{what}: {len(data)} bytes that are no descriptor set") from None
    for file in files.file:
        file.ClearField("source_code_info")
    try:
        return resolve(files.SerializeToString(deterministic=True))
    except DescriptorsInvalid as error:
        raise CommandFailed(f"{what}: {error}") from None


def _compiled(path: Path) -> bytes:
    """Compiles proto files; what they import from elsewhere comes from the contracts of this program."""
    root, names = _sources(path)
    with tempfile.TemporaryDirectory(prefix="minhos-contract-") as folder:
        out, known = Path(folder, "out.binpb"), Path(folder, "known.binpb")
        known.write_bytes(whole_set())
        if importlib.util.find_spec("grpc_tools") is not None:
            options = [f"--descriptor_set_in={known}", f"-I{root}", "--include_imports", f"--descriptor_set_out={out}"]
            command = [sys.executable, "-m", "grpc_tools.protoc", *options, *names]
        elif (tool := shutil.which("buf") or shutil.which("buf", path=str(Path(sys.executable).parent))) is not None:
            command = [tool, "build", str(root), "-o", str(out)]
        else:
            raise CommandFailed(
                f"{path}: neither grpcio-tools nor buf is here to compile it; give a descriptor set made with"
                " `buf build -o contracts.binpb` or `protoc --include_imports -o`"
            )
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=COMPILE_S)
        except subprocess.TimeoutExpired:
            raise CommandFailed(f"{path} does not compile within {COMPILE_S:g} s") from None
        if done.returncode != 0 or not out.exists():
            raise CommandFailed(f"{path} does not compile:\n{(done.stderr or done.stdout).strip()}")
        return out.read_bytes()


def _sources(path: Path) -> tuple[Path, list[str]]:
    """The folder that imports begin from, and the files below it."""
    if path.is_file():
        text = path.read_text(encoding="utf-8", errors="replace")
        package = re.search(r"^\s*package\s+([\w.]+)\s*;", text, re.MULTILINE)
        below = tuple(package[1].split(".")) if package else ()
        folder = path.absolute().parent
        root = folder.parents[len(below) - 1] if below and folder.parts[-len(below) :] == below else folder
        return root, [path.absolute().relative_to(root).as_posix()]
    if not path.exists():
        raise CommandFailed(f"{path}: there is no such file")
    names = sorted(file.relative_to(path).as_posix() for file in path.rglob("*.proto"))
    if not names:
        raise CommandFailed(f"{path}: there is no .proto file in it")
    return path.absolute(), names
