"""Decides where in the data folder of a mesh each thing lies."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Final

DEFAULT_DATA_DIR: Final = Path("~/.minhos")
"""Where a mesh keeps everything unless it is told otherwise."""


@dataclass(frozen=True, slots=True)
class MeshPaths:
    """The folders and files of one mesh; two meshes with two data folders do not touch each other."""

    data_dir: Path

    @property
    def run_dir(self) -> Path:
        """What holds while the mesh runs: sockets, ports, process ids."""
        return self.data_dir / "run"

    @property
    def log_dir(self) -> Path:
        """One file of JSON lines per service."""
        return self.data_dir / "log"

    @property
    def store_dir(self) -> Path:
        """One database per service."""
        return self.data_dir / "store"

    @property
    def sierra_dir(self) -> Path:
        """Files that the simulator writes as Sierra Chart would."""
        return self.data_dir / "sierra"

    @property
    def history_dir(self) -> Path:
        """Ticks of the past by provenance, symbol and day."""
        return self.data_dir / "history"

    @property
    def mesh_file(self) -> Path:
        """Names the registry's address, which is fixed for the life of the mesh."""
        return self.run_dir / "mesh.json"

    @property
    def config_file(self) -> Path:
        """The configuration that `minhos up` resolved; every process of the mesh reads this one."""
        return self.run_dir / "config.json"

    def log_file(self, service: str) -> Path:
        """JSON lines of one service."""
        return self.log_dir / f"{service}.log"

    def store_file(self, service: str) -> Path:
        """Database of one service."""
        return self.store_dir / f"{service}.db"

    def create(self) -> None:
        """Makes the folders, readable by their owner only."""
        for folder in (self.data_dir, self.run_dir, self.log_dir, self.store_dir, self.sierra_dir):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)


def registry_address(paths: MeshPaths) -> str | None:
    """Where the registry of this data folder listens; None before its first start."""
    try:
        address = json.loads(paths.mesh_file.read_text(encoding="utf-8"))["address"]
    except (OSError, ValueError, KeyError):
        return None
    return str(address)


def registry_peers(paths: MeshPaths) -> tuple[str, ...]:
    """Other registries of the mesh, where an instance may attach while that of this data folder does not answer."""
    try:
        peers = json.loads(paths.mesh_file.read_text(encoding="utf-8")).get("peers", [])
    except (OSError, ValueError, AttributeError):
        return ()
    return tuple(str(peer) for peer in peers) if isinstance(peers, list) else ()
