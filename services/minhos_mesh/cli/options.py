"""The options that several groups of commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from minhos_mesh.runtime.paths import MeshPaths

DataDir = Annotated[
    Path,
    typer.Option("--data-dir", envvar="MINHOS_DATA_DIR", help="Folder of the mesh; another folder is another mesh."),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def paths_of(data_dir: Path) -> MeshPaths:
    """The data folder with `~` and relative parts resolved."""
    return MeshPaths(data_dir.expanduser().absolute())
