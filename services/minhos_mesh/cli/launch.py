"""Decides what a new mesh is started with: configuration resolved and saved, port checked."""

from __future__ import annotations

import socket
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from minhos_mesh.cli import declared
from minhos_mesh.cli.failure import CommandFailed
from minhos_mesh.cli.ignition import orphans
from minhos_mesh.runtime import config as configuration
from minhos_mesh.runtime.config import MeshConfig
from minhos_mesh.runtime.paths import MeshPaths, registry_address


@dataclass(frozen=True, slots=True)
class FeedChoice:
    """What the options of `minhos up` say about the feed; None leaves the configuration as it is."""

    kind: str | None = None
    file: Path | None = None
    speed: str | None = None

    def overrides(self) -> dict[str, Any]:
        """The same as the configuration would have it."""
        feed: dict[str, Any] = {}
        if self.kind is not None:
            feed["kind"] = self.kind
        if self.file is not None:
            feed["file"] = str(self.file.expanduser().absolute())
            feed.setdefault("kind", "replay")
        if self.speed is not None:
            feed["speed"] = self.speed
        return {"feed": feed} if feed else {}


def resolve(config_file: Path | None, feed: FeedChoice) -> MeshConfig:
    """The configuration of a new start. Raises ConfigError."""
    found = config_file if config_file is not None else Path("minhos.toml")
    path = found if config_file is not None or found.exists() else None
    config = configuration.load(path, overrides=feed.overrides())
    return config.resolved(datetime.now(UTC))


def settle(paths: MeshPaths, config: MeshConfig) -> None:
    """Saves the configuration for every process of the mesh. Raises CommandFailed for what can never run, or a port that is taken."""
    declared.check(paths, config)
    if not orphans(paths):
        _check_port(paths, config)
        _check_dtc_port(config)
    configuration.save(config, paths.config_file)


def _check_port(paths: MeshPaths, config: MeshConfig) -> None:
    known = registry_address(paths)
    host, _, port = known.rpartition(":") if known else (config.mesh.bind, "", str(config.mesh.port))
    if config.mesh.port and int(port) != config.mesh.port:
        raise CommandFailed(
            f"mesh.port is {config.mesh.port}, and the mesh in {paths.data_dir} has had {port} since its first start:"
            " clients know it by that; use another --data-dir"
        )
    if int(port) == 0:
        return
    _check_free(host, int(port), f"the registry's port {host}:{port}", "end that program, or use another --data-dir")


def _check_dtc_port(config: MeshConfig) -> None:
    port = config.feed.dtc_port
    if port and config.feed.kind != "none":
        _check_free(
            "127.0.0.1",
            port,
            f"feed.dtc_port is {port}, and 127.0.0.1:{port}",
            "end that program, or set another feed.dtc_port",
        )


def _check_free(host: str, port: int, told: str, action: str) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise CommandFailed(f"{told} is taken by another program ({error.strerror}): {action}") from None
