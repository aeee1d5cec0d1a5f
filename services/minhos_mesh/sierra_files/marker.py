"""Decides how a folder says that a simulator writes it, so that its data can never count as LIVE."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from minhos_mesh.sierra_files.layout import MARKER_NAME

_NOTE = "A simulator writes this folder. While this file is here, nothing in the folder is read as LIVE or DELAYED."


@dataclass(frozen=True, slots=True)
class Marker:
    """What the simulator says about its files."""

    records_expected: Mapping[str, int] = field(default_factory=dict)
    """Records with which a file will end, by file name; a file that grows for ever is not in it."""


def write_marker(folder: Path, marker: Marker) -> None:
    """Puts the marker in place in one step; call it before the first data file is written. Raises OSError."""
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"note": _NOTE, "records_expected": dict(marker.records_expected)}, indent=2)
    fresh = folder / f".{MARKER_NAME}.new"
    fresh.write_text(text + "\n", encoding="utf-8")
    fresh.replace(folder / MARKER_NAME)


def read_marker(folder: Path) -> Marker | None:
    """The folder's marker, None when there is none. A marker that cannot be understood is one that says nothing."""
    try:
        text = (folder / MARKER_NAME).read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, UnicodeDecodeError):
        return Marker()
    try:
        expected = json.loads(text)["records_expected"]
        return Marker({str(name): int(count) for name, count in expected.items()})
    except (ValueError, KeyError, TypeError, AttributeError):
        return Marker()
