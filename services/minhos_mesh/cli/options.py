"""The options that several groups of commands share."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated

import typer

from minhos_mesh.cli.failure import CommandFailed
from minhos_mesh.runtime.paths import MeshPaths

DataDir = Annotated[
    Path,
    typer.Option("--data-dir", envvar="MINHOS_DATA_DIR", help="Folder of the mesh; another folder is another mesh."),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def seconds(value: float) -> float:
    """A number of seconds as it was typed; not a number, or one below 0, is refused."""
    if math.isnan(value) or value < 0:
        raise typer.BadParameter(f"{value:g} is no time to wait: allowed is a number of seconds from 0")
    return value


def span_ns(option: str, seconds: float, most: int) -> int:
    """Nanoseconds of a span above 0 and at most `most` seconds, however short. Raises CommandFailed."""
    if not 0 < seconds <= most:
        raise CommandFailed(f"{option} is {seconds:g}: allowed is a number of seconds above 0, at most {most}")
    return max(1, round(seconds * 1e9))


def paths_of(data_dir: Path) -> MeshPaths:
    """The data folder with `~` and relative parts resolved."""
    return MeshPaths(data_dir.expanduser().absolute())
