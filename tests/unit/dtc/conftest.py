from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).resolve().parent


def spread(runs: str) -> bytes:
    """Bytes from `size offset:hex offset:hex ...`; what lies between is zero."""
    size, *parts = runs.split(" ")
    data = bytearray(int(size))
    for part in parts:
        offset, text = part.split(":")
        raw = bytes.fromhex(text)
        data[int(offset) : int(offset) + len(raw)] = raw
    return bytes(data)


@pytest.fixture(scope="session")
def golden() -> dict[str, dict[str, Any]]:
    """Every message with all members set and with none, byte for byte; the bytes were laid out without our codec."""
    read: dict[str, dict[str, Any]] = json.loads((HERE / "golden.json").read_text())
    for entry in read.values():
        for name in ("fixed", "empty", "variable", "variable_empty"):
            if name in entry:
                entry[name] = spread(entry[name])
    return read


@pytest.fixture(scope="session")
def facts() -> dict[str, Any]:
    folder = Path(os.environ.get("MINHOS_TEST_FACTS", HERE.parents[3] / "shared" / "facts"))
    path = folder / "dtc-layout-v8-2022.json"
    if not path.exists():
        pytest.skip(f"the measured layout {path} is not there: set MINHOS_TEST_FACTS to the folder that holds it")
    found: dict[str, Any] = json.loads(path.read_text())
    return found
