from __future__ import annotations

import json
from dataclasses import dataclass, field
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


@dataclass
class Part:
    """One form of a message: with strings of fixed, or of variable length."""

    size: int
    offsets: dict[str, int] = field(default_factory=dict)


@dataclass
class Measured:
    """Where members lie, as it was measured without our code."""

    types: dict[str, int] = field(default_factory=dict)
    fixed: dict[str, Part] = field(default_factory=dict)
    variable: dict[str, Part] = field(default_factory=dict)
    enums: dict[str, list[int]] = field(default_factory=dict)


@pytest.fixture(scope="session")
def measured() -> Measured:
    """The table in measured.txt, which says itself how it is written."""
    found, name, part = Measured(), "", Part(0)
    for line in (HERE / "measured.txt").read_text(encoding="utf-8").splitlines():
        first, *words = line.split() or [""]
        if not first or first == "#":
            continue
        if first == "enum":
            found.enums[words[0]] = [int(number) for number in words[1:]]
        elif not line.startswith(" "):
            name = first
            found.types[name] = int(words[0])
        elif first in ("fixed", "variable"):
            part = Part(int(words.pop(0)))
            (found.fixed if first == "fixed" else found.variable)[name] = part
            part.offsets.update(_placed(words))
        else:
            part.offsets.update(_placed([first, *words]))
    return found


def _placed(words: list[str]) -> dict[str, int]:
    return {member: int(offset) for member, _, offset in (word.partition("@") for word in words)}
