"""Decides what follows when a mesh was set going: bring it up, and then return, stay, or run a replay to its end."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

import typer

from minhos_mesh.cli import interrupts, live, loop, show, start
from minhos_mesh.cli.failure import CommandFailed, fail
from minhos_mesh.cli.mesh import execute
from minhos_mesh.cli.report import run_to_end
from minhos_mesh.runtime.keeper_client import KeeperError, PendingKeeper, keeper_state
from minhos_mesh.runtime.paths import MeshPaths


def after_launch(
    paths: MeshPaths, keeper: PendingKeeper, *, until_end: bool, report: Path | None, detach: bool, timeout_s: float
) -> None:
    """Waits until everything is HEALTHY, then does what was asked for. What fails on the way is taken down again."""
    consistent = True
    try:
        interrupts.obey()
        keeper.wait()
        execute(_bring_up(paths, timeout_s))
        if until_end:
            consistent = execute(run_to_end(paths, report))
    except KeeperError as error:
        fail(str(error))
    except (typer.Exit, KeyboardInterrupt):
        interrupts.ignore()
        show.err.print("stopping what was started")
        if keeper_state(paths.data_dir) is None:
            keeper.cancel()
        if keeper_state(paths.data_dir) is not None:
            _shut_down(paths)
        raise
    if until_end:
        _shut_down(paths)
        if not consistent:
            fail("the books do not agree: the report says where")
    elif detach:
        show.out.print(
            f"all services are HEALTHY in {paths.data_dir}: `minhos status` shows them, `minhos down` ends them"
        )
    else:
        _stay(paths)


def take_down(paths: MeshPaths) -> None:
    """Ends the mesh and says so."""
    try:
        start.shut_down(paths, show.out.print)
    except (CommandFailed, KeeperError) as error:
        fail(str(error))
    show.out.print("the mesh is down")


async def _bring_up(paths: MeshPaths, timeout_s: float) -> None:
    address = await start.registry_ready(paths)
    await start.start_all(address, show.err.print)
    await start.all_healthy(address, timeout_s, start.may_end(paths))


def _stay(paths: MeshPaths) -> None:
    """Shows the mesh until Ctrl-C, then ends it in reverse order."""
    try:
        if sys.stdout.isatty():
            loop.run(live.watch(paths))
        else:
            show.out.print("all services are HEALTHY; Ctrl-C stops them")
            signal.pause()
    except KeyboardInterrupt:
        interrupts.ignore()
    show.err.print("\nstopping, dependents first")
    _shut_down(paths)
    show.err.print("the mesh is down")


def _shut_down(paths: MeshPaths) -> None:
    """Ends everything; a second Ctrl-C does not leave half of it behind."""
    interrupts.ignore()
    try:
        start.shut_down(paths, show.err.print)
    except (CommandFailed, KeeperError) as error:
        fail(str(error))
