"""Decides what follows when a mesh was set going: bring it up, and then return, stay, or run a replay to its end."""

from __future__ import annotations

import signal
import sys
from collections.abc import Collection
from pathlib import Path

import typer

from minhos_mesh.cli import interrupts, live, loop, show, start
from minhos_mesh.cli.failure import CommandFailed, Failed, fail
from minhos_mesh.cli.mesh import execute
from minhos_mesh.cli.report import run_to_end
from minhos_mesh.cli.status import NOT_WELL
from minhos_mesh.runtime.keeper_client import KeeperError, PendingKeeper, keeper_state
from minhos_mesh.runtime.log_tail import LogTails
from minhos_mesh.runtime.paths import MeshPaths


def after_launch(
    paths: MeshPaths, keeper: PendingKeeper, *, until_end: bool, report: Path | None, detach: bool, timeout_s: float
) -> None:
    """Waits until everything is HEALTHY, then does what was asked for. What fails on the way is taken down again."""
    consistent = True
    unhealthy: dict[str, str] = {}
    latched: list[str] = []
    try:
        interrupts.obey()
        keeper.wait()
        unhealthy, latched = execute(_bring_up(paths, timeout_s))
        _tell(paths, unhealthy)
        if until_end and unhealthy:
            fail(f"a replay is not run beside programs that are not HEALTHY: {', '.join(sorted(unhealthy))}")
        consistent = execute(run_to_end(paths, report)) if until_end else True
    except KeeperError as error:
        fail(str(error))
    except (typer.Exit, KeyboardInterrupt) as error:
        interrupts.ignore()
        show.err.print("stopping what was started")
        _take_back(paths, keeper, error)
        raise
    if until_end:
        _shut_down(paths)
        if not consistent:
            fail("the books do not agree: the report says where")
    elif detach:
        _leave(paths, unhealthy, latched)
    else:
        _stay(paths, unhealthy, latched)


def _take_back(paths: MeshPaths, keeper: PendingKeeper, error: BaseException) -> None:
    """Ends what was started, and says at last why."""
    if keeper_state(paths.data_dir) is None:
        keeper.cancel()
    if keeper_state(paths.data_dir) is not None:
        _shut_down(paths)
    if isinstance(error, Failed):
        show.err.print(f"everything was stopped because {in_short(error.message)}", markup=False)


def in_short(message: str) -> str:
    """A message without what it quotes: its first line, and what a person should do."""
    first, *rest = message.splitlines()
    return "\n".join([first, *(line for line in rest if line.startswith("  -> "))])


def _leave(paths: MeshPaths, unhealthy: Collection[str], latched: list[str]) -> None:
    """Leaves the mesh running; ends with NOT_WELL when own programs are not HEALTHY."""
    if unhealthy:
        show.err.print(
            f"the mesh itself is HEALTHY and stays up in {paths.data_dir}, without {', '.join(sorted(unhealthy))}:"
            " `minhos status` says more, `minhos down` ends it",
            markup=False,
        )
        raise typer.Exit(NOT_WELL)
    show.out.print(
        f"{_all_but(latched)} are HEALTHY in {paths.data_dir}: `minhos status` shows them, `minhos down` ends them"
    )


def take_down(paths: MeshPaths) -> None:
    """Ends the mesh and says so."""
    try:
        start.shut_down(paths, show.out.print)
    except (CommandFailed, KeeperError) as error:
        fail(str(error))
    show.out.print("the mesh is down")


async def _bring_up(paths: MeshPaths, timeout_s: float) -> tuple[dict[str, str], list[str]]:
    """The state of own programs that are not HEALTHY, and services that are DEGRADED until a person acts, as was said.

    Raises when a service of the mesh itself is not well otherwise.
    """
    address = await start.registry_ready(paths)
    unhealthy = await start.bring_up(address, paths, timeout_s, show.err.print)
    latched = await start.latched(address)
    for service, told in latched.items():
        show.err.print(f"{service} is DEGRADED: {told}", style="bold red", markup=False)
    return unhealthy, sorted(latched)


def _all_but(latched: list[str]) -> str:
    return f"all services but {', '.join(latched)}" if latched else "all services"


def _tell(paths: MeshPaths, unhealthy: dict[str, str]) -> None:
    """Says which programs are not HEALTHY, each with the last lines of its log."""
    for program, state in sorted(unhealthy.items()):
        show.err.print(f"{program} is {state}", markup=False)
        for line in LogTails(paths.data_dir, lines=start.SAID_LINES).read(program):
            show.err.print(f"  {line}", markup=False)


def _stay(paths: MeshPaths, unhealthy: Collection[str], latched: list[str]) -> None:
    """Shows the mesh until Ctrl-C, then ends it in reverse order."""
    try:
        if sys.stdout.isatty():
            loop.run(live.watch(paths))
        else:
            those = "all services of the mesh itself" if unhealthy else _all_but(latched)
            show.out.print(f"{those} are HEALTHY; Ctrl-C stops them")
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
