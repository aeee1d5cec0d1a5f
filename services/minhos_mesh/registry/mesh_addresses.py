"""Decides what the run folder tells of the registries of a mesh: the own address, which is fixed, and where else to attach."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence

from minhos_mesh.registry.store import Member
from minhos_mesh.runtime.paths import MeshPaths, registry_address


def port_before(paths: MeshPaths) -> int:
    """The port of an earlier life of this mesh; 0, meaning any, when there was none."""
    _, _, port = (registry_address(paths) or "").rpartition(":")
    return int(port) if port.isdigit() else 0


class MeshAddresses:
    """Writes `run/mesh.json`, always in one step."""

    def __init__(self, paths: MeshPaths, configured: Sequence[str]) -> None:
        """`configured` peers are told whether or not they live."""
        self._paths, self._configured = paths, tuple(configured)
        self._others: tuple[str, ...] = ()
        self.own = ""

    def own_is(self, address: str) -> None:
        """The registry is bound."""
        self.own = address
        self._write()

    def others_are(self, members: Sequence[Member]) -> None:
        """These other registries live."""
        others = tuple(member.address for member in members if member.address)
        if others != self._others:
            self._others = others
            self._write()

    def _write(self) -> None:
        peers = [peer for peer in dict.fromkeys((*self._others, *self._configured)) if peer != self.own]
        told = {"address": self.own, "pid": os.getpid(), "peers": peers}
        new = self._paths.mesh_file.with_suffix(".new")
        new.write_text(json.dumps(told) + "\n", encoding="utf-8")
        new.replace(self._paths.mesh_file)
