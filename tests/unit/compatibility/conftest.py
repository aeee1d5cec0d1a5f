from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from grpc_tools import protoc

from minhos_mesh.compatibility.descriptors import ContractSet, resolve
from minhos_mesh.runtime.contracts import whole_set

Compile = Callable[..., ContractSet]
HEAD = """
syntax = "proto3"; package shop.v1;
import "buf/validate/validate.proto"; import "minhos_api/mesh/v1/contract_options.proto";
"""


@pytest.fixture(scope="session")
def known(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("known") / "known.binpb"
    file.write_bytes(whole_set())
    return file


@pytest.fixture
def compiled(known: Path, tmp_path: Path) -> Compile:
    """Compiles the body of a proto file."""
    number = iter(range(100))

    def compile_it(body: str, *, head: str = HEAD, name: str = "shop.proto") -> ContractSet:
        folder = tmp_path / str(next(number))
        folder.mkdir()
        (folder / name).write_text(head + body)
        out = folder / "out.binpb"
        options = [f"--descriptor_set_in={known}", f"-I{folder}", "--include_imports", f"--descriptor_set_out={out}"]
        run: Callable[[list[str]], int] = protoc.main
        assert run(["protoc", *options, name]) == 0
        return resolve(out.read_bytes())

    return compile_it
