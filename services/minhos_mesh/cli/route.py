"""Decides how routes are shown and changed from a terminal: `route set`, `list`, `clear`, `rollback`."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Annotated, Final

import typer

from minhos_mesh.cli.options import DataDir, Json, paths_of
from minhos_mesh.runtime.paths import DEFAULT_DATA_DIR

route_app: Final = typer.Typer(help="Show or change which instances get which calls.", no_args_is_help=True)

Name = Annotated[
    str, typer.Argument(help="A contract, for example TradingEngineService, or a service for all of its own.")
]
Reason = Annotated[str, typer.Option("--reason", help="Why; kept with the change.")]
Expect = Annotated[
    int | None, typer.Option("--expect", min=0, help="Change it only when this is its newest revision; 0 for none.")
]


@route_app.command("set")
def route_set(
    name: Name,
    to: Annotated[
        list[str],
        typer.Option(
            "--to",
            metavar="WHO[=PERCENT]",
            help="WHO is a version, a service or service/instance; without PERCENT only calls with the header get there.",
        ),
    ],
    header: Annotated[
        list[str] | None,
        typer.Option(
            "--header", metavar="NAME[=VALUE]", help="Calls with this header go to WHO; any value without one."
        ),
    ] = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="Let calls wait or fail while nobody of WHO serves.")
    ] = False,
    reason: Reason = "",
    expect: Expect = None,
    data_dir: DataDir = DEFAULT_DATA_DIR,
    json: Json = False,
) -> None:
    """Send a share of the calls, or calls with a header, to some instances; the rest stays with all others.

    `minhos route set RiskManagerService --to v2=10` and `--to v2 --header x-canary=1`.
    """
    from minhos_mesh.cli import routing as commands
    from minhos_mesh.cli.mesh import execute

    execute(
        commands.set_route(
            paths_of(data_dir),
            name,
            _some(to),
            _some(header),
            strict=strict,
            reason=reason,
            expected=expect,
            as_json=json,
        )
    )


@route_app.command("list")
def route_list(
    name: Annotated[str, typer.Argument(help="A contract or a service; all routes when not given.")] = "",
    history: Annotated[bool, typer.Option("--history", help="Show the earlier changes too.")] = False,
    data_dir: DataDir = DEFAULT_DATA_DIR,
    json: Json = False,
) -> None:
    """Show the routes and whether they can be followed now."""
    from minhos_mesh.cli import routing as commands
    from minhos_mesh.cli.mesh import execute

    execute(commands.list_routes(paths_of(data_dir), name, history=history, as_json=json))


@route_app.command("clear")
def route_clear(
    name: Name,
    reason: Reason = "",
    expect: Expect = None,
    data_dir: DataDir = DEFAULT_DATA_DIR,
    json: Json = False,
) -> None:
    """Remove a route, so that calls go to all instances in turn; `route rollback` brings it back."""
    from minhos_mesh.cli import routing as commands
    from minhos_mesh.cli.mesh import execute

    execute(commands.clear(paths_of(data_dir), name, reason=reason, expected=expect, as_json=json))


@route_app.command("rollback")
def route_rollback(
    name: Name,
    revision: Annotated[
        int | None, typer.Option("--to-revision", min=0, help="The revision before when not given.")
    ] = None,
    reason: Reason = "",
    expect: Expect = None,
    data_dir: DataDir = DEFAULT_DATA_DIR,
    json: Json = False,
) -> None:
    """Go back to the route before the last change; no call fails meanwhile."""
    from minhos_mesh.cli import routing as commands
    from minhos_mesh.cli.mesh import execute

    execute(commands.roll_back(paths_of(data_dir), name, revision, reason=reason, expected=expect, as_json=json))


def _some(values: Collection[str] | None) -> Sequence[str]:
    return tuple(values or ())
