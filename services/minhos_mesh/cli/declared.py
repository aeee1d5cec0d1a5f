"""Decides whether files can be what they are declared to be, before anything is started for them."""

from __future__ import annotations

from typing import Final

from minhos_mesh.cli.failure import CommandFailed
from minhos_mesh.runtime.config import MeshConfig
from minhos_mesh.runtime.paths import MeshPaths
from minhos_mesh.sierra_files.layout import MARKER_NAME
from minhos_mesh.sierra_files.marker import read_marker

REAL: Final = frozenset({"LIVE", "DELAYED"})


def check(paths: MeshPaths, config: MeshConfig) -> None:
    """Raises CommandFailed for a provenance that can never be believed, with what to do."""
    declared, reads = config.sierra_client.provenance, _files_read(config)
    if declared not in REAL or not reads:
        return
    told = f'sierra_client.provenance is "{declared}"'
    own, folder = paths.sierra_dir, (config.sierra_client.folder or paths.sierra_dir).expanduser()
    if folder.resolve() == own.resolve() and config.feed.kind != "none":
        raise CommandFailed(
            f'{told}, and the files of {folder} are those of the simulator (feed.kind is "{config.feed.kind}"):'
            ' set feed.kind = "none" and sierra_client.folder to the folder of Sierra Chart, or leave provenance out'
        )
    if read_marker(folder) is not None:
        raise CommandFailed(
            f"{told}, and {folder / MARKER_NAME} says that a simulator writes this folder, of which nothing is read as LIVE or"
            ' DELAYED: set provenance = "SIMULATED", or sierra_client.folder to the folder of Sierra Chart'
        )
    if declared == "LIVE":
        _check_server(config, told)


def _check_server(config: MeshConfig, told: str) -> None:
    if config.dtc.port is None:
        raise CommandFailed(
            f"{told}, and dtc.port is not set: LIVE is believed only after a logon to the DTC server of the Sierra Chart that"
            ' writes the files, mostly dtc.port = 11099; without one set provenance = "DELAYED"'
        )
    local = config.dtc.host in ("127.0.0.1", "localhost", "::1")
    if config.feed.kind != "none" and local and config.dtc.port == config.feed.dtc_port:
        raise CommandFailed(
            f"{told}, and dtc.port {config.dtc.port} is feed.dtc_port, the DTC server of the simulator: name that of the Sierra"
            ' Chart that writes the files, or set provenance = "SIMULATED"'
        )


def _files_read(config: MeshConfig) -> tuple[str, ...]:
    """Symbols whose prices come from files; the others come from the bridge or over DTC."""
    elsewhere = {*config.bridge_symbols(), *(config.dtc.market_data if config.dtc.port is not None else ())}
    return tuple(symbol for symbol in config.symbols() if symbol not in elsewhere)
