"""Decides how a keeper is set going before anything else is loaded, since it loads longest."""

from __future__ import annotations

import json

from minhos_mesh.cli import interrupts
from minhos_mesh.cli.failure import CommandFailed
from minhos_mesh.runtime.keeper_client import PendingKeeper, keeper_state
from minhos_mesh.runtime.keeper_protocol import KeeperPaths
from minhos_mesh.runtime.last_listing import process_runs
from minhos_mesh.runtime.paths import MeshPaths


def ignite(paths: MeshPaths) -> PendingKeeper:
    """Starts a keeper that loads and touches nothing before its `go`; interrupts are held back until someone watches over it.

    Raises CommandFailed when a mesh runs here.
    """
    running = keeper_state(paths.data_dir)
    if running is not None:
        raise CommandFailed(
            f"a mesh already runs in {paths.data_dir} (keeper pid {running.pid}):"
            " `minhos status` shows it, `minhos down` ends it"
        )
    try:
        paths.create()
    except OSError as error:
        raise CommandFailed(f"--data-dir {paths.data_dir} cannot be used: {error.strerror}") from None
    interrupts.hold()
    return PendingKeeper(paths.data_dir, paths.config_file, held=True)


def orphans(paths: MeshPaths) -> bool:
    """Whether processes of an earlier keeper still run."""
    record = KeeperPaths(paths.data_dir).record
    try:
        processes = json.loads(record.read_text(encoding="utf-8")).get("processes", [])
    except (OSError, ValueError, AttributeError):
        return False
    return any(process_runs(item.get("pid"), item.get("start_ticks")) for item in processes if isinstance(item, dict))
