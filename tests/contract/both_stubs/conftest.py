from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest
from google.protobuf.message import Message
from tests.contract.both_stubs.comparing import Outcome, by_betterproto, by_grpcio, made, method_of, stub_class
from tests.contract.both_stubs.serving import ServedMesh, serving
from tests.sharing import Shared, shared

HERE: Final = Path(__file__).parent
TRIES = 5


@pytest.fixture(scope="session")
def of_this_folder(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Shared[ServedMesh]]:
    with shared(request.session, HERE, lambda: serving(tmp_path_factory.mktemp("both_stubs"))) as made:
        yield made


@pytest.fixture(scope="module")
def served(of_this_folder: Shared[ServedMesh]) -> ServedMesh:
    """All services of the mesh, for all tests of this folder."""
    return of_this_folder.get()


# The fixtures of pytest-grpc, with the served mesh in the place of its own server.


@pytest.fixture(scope="module")
def contract(request: pytest.FixtureRequest) -> str:
    """The contract of a test: parametrize it indirectly."""
    name: str = request.param
    return name


@pytest.fixture(scope="module")
def grpc_server() -> None:
    """No server of pytest-grpc: its servers have threads and no asyncio."""


@pytest.fixture(scope="module")
def grpc_addr(served: ServedMesh, contract: str) -> str:
    """Where the contract is served."""
    return served.addresses[contract]


@pytest.fixture(scope="module")
def grpc_stub_cls(contract: str) -> Callable[..., Any]:
    """The generated grpcio stub of the contract."""
    kind: Callable[..., Any] = stub_class(contract)
    return kind


@dataclass(frozen=True)
class Both:
    """One contract, called with both stubs."""

    contract: str
    address: str
    stub: Any

    def outcomes(self, method: str, *requests: Message, **options: Any) -> tuple[Outcome, Outcome]:
        """What grpcio saw and what betterproto saw."""
        described = method_of(self.contract, method)
        given = requests or [made(described.input_type, {})]
        return (
            by_grpcio(self.stub, described, given, **options),
            by_betterproto(self.address, described, given, **options),
        )

    def same(self, method: str, *requests: Message, **options: Any) -> Outcome:
        """What both saw. Services that speak among themselves may change an answer between two calls: a few more decide."""
        first, second = self.outcomes(method, *requests, **options)
        for _ in range(TRIES):
            if first == second:
                break
            first, second = self.outcomes(method, *requests, **options)
        assert first == second
        return first


@pytest.fixture
def both(contract: str, grpc_addr: str, grpc_stub: Any) -> Both:
    """Both stubs of the contract."""
    return Both(contract, grpc_addr, grpc_stub)
