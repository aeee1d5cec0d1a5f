from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
from tests.e2e.running_mesh import Mesh, started
from tests.sharing import Shared, shared

SAMPLE = "MNQU21-CME.scid"
HERE: Final = Path(__file__).parent


@pytest.fixture(scope="session")
def newcomer(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shared[Mesh]]:
    with shared(request.session, HERE, lambda: started(tmp_path_factory.mktemp("newcomer") / "data")) as made:
        yield made


@pytest.fixture(scope="module")
def mesh(newcomer: Shared[Mesh]) -> Mesh:
    """The mesh of a newcomer, with nothing configured; shared by all tests that leave it running as it was."""
    return newcomer.get()


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Mesh]:
    """A data folder for one test, in which nothing runs yet; what runs in the end is ended."""
    made = Mesh(tmp_path / "data")
    yield made
    made.end()


@pytest.fixture(scope="session")
def sample() -> Path:
    """A real recording, where there is one."""
    folder = Path(os.environ.get("MINHOS_TEST_DATA", Path(__file__).parents[3] / "shared" / "data"))
    path = folder / SAMPLE
    if not path.exists():
        pytest.skip(f"{path} is not there: MINHOS_TEST_DATA names the folder that holds it")
    return path
