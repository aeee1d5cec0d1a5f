"""The commands of `minhos contract` and their options."""

from __future__ import annotations

import re
from typing import Annotated, Final

import typer

from minhos_mesh.cli.options import DataDir, Json, paths_of
from minhos_mesh.runtime.paths import DEFAULT_DATA_DIR

contract_app: Final = typer.Typer(help="Show contracts, and what a change of one would break.", no_args_is_help=True)

_RELEASE: Final = re.compile(r"[0-9]{1,9}(\.[0-9]{1,9})*", re.ASCII)

Candidate = Annotated[
    str, typer.Argument(help="A descriptor set or image, a .proto file, a folder of them, or host:port of a server.")
]


def _release(value: str) -> str:
    """Refuses what is no row of numbers. Raises typer.BadParameter."""
    if value and not _RELEASE.fullmatch(value):
        raise typer.BadParameter(
            f"{value!r} is no release: allowed are numbers with dots between them, for example 1.2"
        )
    return value


@contract_app.command("check")
def check(
    candidate: Candidate,
    against: Annotated[
        str | None, typer.Option(help="Compare with this instead of the running mesh; like the argument.")
    ] = None,
    whole: Annotated[
        bool | None,
        typer.Option(
            "--whole/--part", help="Whether contracts that it does not have count as removed; guessed if not given."
        ),
    ] = None,
    release: Annotated[
        str,
        typer.Option(help="Release of the contracts that it was generated from, if it is older.", callback=_release),
    ] = "",
    data_dir: DataDir = DEFAULT_DATA_DIR,
    json: Json = False,
) -> None:
    """Say what a contract set would break; exit 1 when it would break anything, 2 when nothing of it is known."""
    from minhos_mesh.cli import contract_check as commands
    from minhos_mesh.cli.mesh import execute

    question = commands.Question(candidate, against, whole, release)
    if not execute(commands.check(paths_of(data_dir), question, as_json=json)):
        raise typer.Exit(1)


@contract_app.command("diff")
def diff(
    first: Annotated[str, typer.Argument(help="The old one, or the new one when it stands alone; as for check.")],
    second: Annotated[str | None, typer.Argument(help="The new one; the first is then the old one.")] = None,
    data_dir: DataDir = DEFAULT_DATA_DIR,
    json: Json = False,
) -> None:
    """Show everything that differs between two contract sets: what breaks and what is added."""
    from minhos_mesh.cli import contract_check as commands
    from minhos_mesh.cli.mesh import execute

    execute(commands.diff(paths_of(data_dir), first, second, as_json=json))


@contract_app.command("list")
def list_contracts(data_dir: DataDir = DEFAULT_DATA_DIR, json: Json = False) -> None:
    """Show all contracts with who serves and who needs them."""
    from minhos_mesh.cli import contract_show as commands
    from minhos_mesh.cli.mesh import execute

    execute(commands.list_all(paths_of(data_dir), as_json=json))


@contract_app.command("show")
def show(
    name: Annotated[str, typer.Argument(help="TradingEngine, ITradingEngine, TradingEngineService or the full name.")],
    data_dir: DataDir = DEFAULT_DATA_DIR,
    json: Json = False,
) -> None:
    """Show one contract: methods with access, deadline and idempotency, events, who serves and who needs it."""
    from minhos_mesh.cli import contract_show as commands
    from minhos_mesh.cli.mesh import execute

    execute(commands.show_one(paths_of(data_dir), name, as_json=json))
