from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="session")
def sample() -> Path:
    folder = Path(os.environ.get("MINHOS_TEST_DATA", ROOT.parent / "shared" / "data"))
    path = folder / "MNQU21-CME.scid"
    if not path.exists():
        pytest.skip(f"the real sample {path} is not there: set MINHOS_TEST_DATA to the folder that holds it")
    return path
