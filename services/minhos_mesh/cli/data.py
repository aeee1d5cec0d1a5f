"""Decides how history is kept in order from a terminal: `data import`, `list`, `export`, `verify`. No mesh need run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final

import typer

from minhos_mesh.cli.options import DataDir, Json, paths_of
from minhos_mesh.runtime.paths import DEFAULT_DATA_DIR

data_app: Final = typer.Typer(help="Import, show, export and verify what was traded before.", no_args_is_help=True)

OnlySymbol = Annotated[str | None, typer.Option("--symbol", help="Only this symbol.")]
Provenance = Annotated[str | None, typer.Option("--provenance", help="live, delayed, replay or simulated.")]


@data_app.command("import")
def data_import(
    files: Annotated[
        list[Path], typer.Argument(help="Files of Sierra Chart, named SYMBOL.scid (ticks) or SYMBOL.dly (daily bars).")
    ],
    symbol: Annotated[str | None, typer.Option(help="The symbol of a file whose name says none.")] = None,
    provenance: Annotated[
        str | None,
        typer.Option(help="delayed, replay or simulated; delayed when not given, simulated beside a marker."),
    ] = None,
    data_dir: DataDir = DEFAULT_DATA_DIR,
    json: Json = False,
) -> None:
    """Bring .scid and .dly files into the history; what was imported before is found again and not written twice."""
    from minhos_mesh.cli import data_work as commands

    commands.import_files(paths_of(data_dir), files, symbol, provenance, as_json=json)


@data_app.command("list")
def data_list(
    symbol: OnlySymbol = None,
    provenance: Provenance = None,
    days: Annotated[bool, typer.Option("--days", help="A line for each day.")] = False,
    data_dir: DataDir = DEFAULT_DATA_DIR,
    json: Json = False,
) -> None:
    """Show what is held."""
    from minhos_mesh.cli import data_work as commands

    commands.show(paths_of(data_dir), symbol, provenance, by_day=days, as_json=json)


@data_app.command("export")
def data_export(
    symbol: Annotated[str, typer.Argument(help="Canonical symbol, as `minhos data list` shows it.")],
    out: Annotated[Path, typer.Option("--out", help="File to write; .csv or .parquet.")],
    bars: Annotated[
        str | None,
        typer.Option(
            help="Bars of 1s, 5m (minutes), 1h, 1d, 500t (trades) or 1000v (contracts); ticks when not given."
        ),
    ] = None,
    start: Annotated[str | None, typer.Option("--from", help="A day or time in UTC, inclusive.")] = None,
    end: Annotated[str | None, typer.Option("--to", help="A day or time in UTC, exclusive.")] = None,
    provenance: Provenance = None,
    always_open: Annotated[
        bool, typer.Option("--always-open", help="Divide bars by calendar days and not by the exchange's sessions.")
    ] = False,
    data_dir: DataDir = DEFAULT_DATA_DIR,
    json: Json = False,
) -> None:
    """Write ticks or bars to a file."""
    from minhos_mesh.cli import data_export as commands

    wanted = commands.Wanted(symbol, provenance, bars, start, end, always_open)
    commands.export(paths_of(data_dir), wanted, out, as_json=json)


@data_app.command("verify")
def data_verify(
    symbol: OnlySymbol = None,
    provenance: Provenance = None,
    data_dir: DataDir = DEFAULT_DATA_DIR,
    json: Json = False,
) -> None:
    """Check every file: checksums, order, days; and show which sequences are missing. Exit 1 when a file is broken."""
    from minhos_mesh.cli import data_work as commands

    commands.check(paths_of(data_dir), symbol, provenance, as_json=json)
