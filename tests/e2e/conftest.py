from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.e2e.running_mesh import Mesh, started

SAMPLE = "MNQU21-CME.scid"


@pytest.fixture(scope="session")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mesh]:
    """The mesh of a newcomer, with nothing configured; shared by all tests that leave it running as it was."""
    with started(tmp_path_factory.mktemp("newcomer") / "data") as made:
        yield made


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
