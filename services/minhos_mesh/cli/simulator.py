"""Decides the commands of `minhos simulator`: what it writes, how fast, and what goes wrong on purpose."""

from __future__ import annotations

from typing import Annotated, Final

import typer

from minhos_mesh.cli.options import DataDir, Json, paths_of
from minhos_mesh.runtime.paths import DEFAULT_DATA_DIR

simulator_app: Final = typer.Typer(
    help="Show or disturb the simulated market; nothing of it reaches a real one.", no_args_is_help=True
)

Id = Annotated[str, typer.Option("--id", help="Id of the fault, to clear it by; made when not given.")]


@simulator_app.command("status")
def simulator_status(data_dir: DataDir = DEFAULT_DATA_DIR, json: Json = False) -> None:
    """Show what is written, how far, and what goes wrong on purpose."""
    from minhos_mesh.cli import simulator_work as work
    from minhos_mesh.cli.mesh import execute

    execute(work.status(paths_of(data_dir), as_json=json))


@simulator_app.command("speed")
def simulator_speed(
    speed: Annotated[
        str, typer.Argument(help="Ticks a second of a random walk, times as fast of a recording, or max.")
    ],
    data_dir: DataDir = DEFAULT_DATA_DIR,
    json: Json = False,
) -> None:
    """Change the rate from now on."""
    from minhos_mesh.cli import simulator_work as work
    from minhos_mesh.cli.mesh import execute

    execute(work.set_speed(paths_of(data_dir), speed, as_json=json))


@simulator_app.command("pause")
def simulator_pause(data_dir: DataDir = DEFAULT_DATA_DIR, json: Json = False) -> None:
    """Stop writing until `minhos simulator resume`."""
    from minhos_mesh.cli import simulator_work as work
    from minhos_mesh.cli.mesh import execute

    execute(work.pause(paths_of(data_dir), as_json=json))


@simulator_app.command("resume")
def simulator_resume(data_dir: DataDir = DEFAULT_DATA_DIR, json: Json = False) -> None:
    """Write again after a pause."""
    from minhos_mesh.cli import simulator_work as work
    from minhos_mesh.cli.mesh import execute

    execute(work.resume(paths_of(data_dir), as_json=json))


@simulator_app.command("fault")
def simulator_fault(
    kind: Annotated[str, typer.Argument(help="For example feed_gap or dtc_rejects; a wrong one names all.")],
    symbol: Annotated[str, typer.Option("--symbol", help="Only this one; for faults of feed and file.")] = "",
    probability: Annotated[
        float | None, typer.Option("--probability", help="How often, above 0 to 1; for single messages over DTC.")
    ] = None,
    duration: Annotated[
        float | None, typer.Option("--for", help="Seconds it lasts; until it is cleared when not given.")
    ] = None,
    delay: Annotated[float | None, typer.Option("--delay", help="Seconds by which messages are late.")] = None,
    request_id: Id = "",
    data_dir: DataDir = DEFAULT_DATA_DIR,
    json: Json = False,
) -> None:
    """Make something go wrong on purpose, at once."""
    from minhos_mesh.cli import simulator_work as work
    from minhos_mesh.cli.mesh import execute

    wanted = work.Wanted(kind, symbol, probability, duration, delay, request_id)
    execute(work.inject(paths_of(data_dir), wanted, as_json=json))


@simulator_app.command("faults")
def simulator_faults(data_dir: DataDir = DEFAULT_DATA_DIR, json: Json = False) -> None:
    """List what goes wrong on purpose, and the last of what did."""
    from minhos_mesh.cli import simulator_work as work
    from minhos_mesh.cli.mesh import execute

    execute(work.list_faults(paths_of(data_dir), as_json=json))


@simulator_app.command("clear")
def simulator_clear(
    request_id: Annotated[str, typer.Argument(help="Id of a fault; all of them when not given.")] = "",
    data_dir: DataDir = DEFAULT_DATA_DIR,
    json: Json = False,
) -> None:
    """End one fault, or all of them."""
    from minhos_mesh.cli import simulator_work as work
    from minhos_mesh.cli.mesh import execute

    execute(work.clear(paths_of(data_dir), request_id, as_json=json))
