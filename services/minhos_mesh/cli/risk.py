"""Decides the commands of `minhos risk`: the limits with their use, and the reset of the breaker."""

from __future__ import annotations

from typing import Annotated, Final

import typer

from minhos_mesh.cli.options import DataDir, Json, paths_of
from minhos_mesh.runtime.paths import DEFAULT_DATA_DIR

risk_app: Final = typer.Typer(help="Show the limits with their use, or reset the breaker.", invoke_without_command=True)


@risk_app.callback()
def risk(context: typer.Context, data_dir: DataDir = DEFAULT_DATA_DIR, json: Json = False) -> None:
    """Show the limits with their use, and what stops orders now; reset the breaker."""
    if context.invoked_subcommand is not None:
        return
    from minhos_mesh.cli import risk_work as work
    from minhos_mesh.cli.mesh import execute

    execute(work.show_risk(paths_of(data_dir), as_json=json))


@risk_app.command("reset")
def risk_reset(
    reason: Annotated[str, typer.Option("--reason", help="Why it is safe to go on; kept with the reset.")] = "",
    data_dir: DataDir = DEFAULT_DATA_DIR,
    json: Json = False,
) -> None:
    """Reset the tripped breaker, so that not only reductions pass."""
    from minhos_mesh.cli import risk_work as work
    from minhos_mesh.cli.mesh import execute

    execute(work.reset(paths_of(data_dir), reason, as_json=json))
