"""Decides what the commands about history do and say: import, list and verify."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.table import Column

from minhos_mesh.cli import interrupts
from minhos_mesh.cli import show as terminal
from minhos_mesh.cli.failure import CommandFailed, fail
from minhos_mesh.cli.narrow import print_table
from minhos_mesh.history.asking import days_held
from minhos_mesh.history.daily import DailyHeld, ImportedDays, import_daily, read_held
from minhos_mesh.history.domain.series import PROVENANCES, HistoryError, Series
from minhos_mesh.history.domain.validation import Rules
from minhos_mesh.history.importing import Imported, import_scid
from minhos_mesh.history.places import HistoryPlaces
from minhos_mesh.history.verifying import Gap, Verified, verify
from minhos_mesh.runtime.config import ConfigError, load_saved
from minhos_mesh.runtime.instruments import DEFAULT_INSTRUMENTS, InstrumentError, InstrumentSpec, spec_for
from minhos_mesh.runtime.paths import MeshPaths
from minhos_mesh.runtime.symbols import SymbolError, parse_symbol, symbol_of_file
from minhos_mesh.sierra_files.daily import DAILY_SUFFIX, read_daily
from minhos_mesh.sierra_files.header import ScidError
from minhos_mesh.sierra_files.layout import MARKER_NAME, SUFFIX
from minhos_mesh.sierra_files.marker import read_marker
from minhos_mesh.sierra_files.reader import ScidFile

Step = Callable[[int, int], None]
"""Told what is done and how much there is."""

_IMPORTED: Final = ("DELAYED", "REPLAY", "SIMULATED")
_SHOWN: Final = 20
"""Gaps and problems of a series that are shown to people; JSON has all."""


@dataclass(frozen=True, slots=True)
class _File:
    """A file that can be imported."""

    path: Path
    series: Series
    rules: Rules

    @property
    def daily(self) -> bool:
        """Whether it holds daily bars, not ticks."""
        return self.path.suffix.lower() == DAILY_SUFFIX


def places_of(paths: MeshPaths) -> HistoryPlaces:
    """The folder of history of a mesh."""
    return HistoryPlaces(paths.history_dir)


@contextlib.contextmanager
def told_plainly() -> Iterator[None]:
    """What is expected to go wrong, and Ctrl-C, ends the command with one sentence."""
    try:
        yield
    except (CommandFailed, HistoryError, ScidError, SymbolError, InstrumentError, ConfigError) as error:
        fail(str(error))
    except OSError as error:
        fail(f"{error.filename}: {error.strerror}" if error.filename else f"{error.strerror or error}")
    except KeyboardInterrupt:
        typer.echo(
            "minhos: interrupted: every file is whole, and the same command does the rest",
            err=True,
        )
        raise typer.Exit(130) from None


@contextlib.contextmanager
def progress(what: str, *, as_json: bool) -> Iterator[Step]:
    """A bar on the error output of a terminal, so that what is printed can be piped; Ctrl-C takes effect at a step."""
    console = Console(stderr=True)
    with interrupts.held_back() as obeyed, _bar(what, console, silent=as_json or not console.is_terminal) as shown:

        def step(done: int, whole: int) -> None:
            obeyed()
            shown(done, whole)

        yield step


@contextlib.contextmanager
def _bar(what: str, console: Console, *, silent: bool) -> Iterator[Step]:
    if silent:
        yield lambda _done, _all: None
        return
    named = TextColumn("{task.description}", table_column=Column(ratio=2, no_wrap=True, overflow="ellipsis"))
    bar = BarColumn(None, table_column=Column(ratio=3, min_width=6))
    with Progress(named, bar, TaskProgressColumn(), TimeRemainingColumn(), console=console, transient=True) as shown:
        task = shown.add_task(what, total=None)
        yield lambda done, whole: shown.update(task, completed=done, total=whole)


def provenance_of(text: str | None, allowed: Sequence[str] = PROVENANCES) -> str | None:
    """The provenance that was typed; None stays None. Raises CommandFailed."""
    if text is None:
        return None
    if text.upper() not in allowed:
        names = ", ".join(name.lower() for name in allowed)
        raise CommandFailed(f"--provenance is {text!r}: allowed are {names}")
    return text.upper()


def canonical(text: str | None) -> str | None:
    """A symbol as it is kept; None stays None. Raises SymbolError."""
    return None if text is None else str(parse_symbol(text))


def import_files(
    paths: MeshPaths, files: Sequence[Path], symbol: str | None, provenance: str | None, *, as_json: bool
) -> None:
    """Checks all files, then brings them into the history one after the other."""
    with told_plainly():
        declared = provenance_of(provenance, _IMPORTED)
        if symbol is not None and len(files) > 1:
            raise CommandFailed("--symbol goes with one file: the others' names say which symbol they are of")
        specs = _specs(paths)
        chosen = [_checked(path, symbol, declared, specs) for path in files]
        done = [(file, _imported(places_of(paths), file, as_json=as_json)) for file in chosen]
    if as_json:
        terminal.as_json([{"file": str(file.path), **asdict(file.series), **asdict(each)} for file, each in done])
        return
    columns = ("FILE", "SYMBOL", "PROVENANCE", "RECORDS", "NEW", "KNOWN", "REFUSED")
    rows = [(file.path.name, file.series.symbol, file.series.provenance, *_counts(each)) for file, each in done]
    print_table(columns, rows, right=("RECORDS", "NEW", "KNOWN"), leave_out=("KNOWN", "FILE", "PROVENANCE", "RECORDS"))
    for file, each in done:
        for line in _remarks(each):
            terminal.out.print(f"{file.path.name}: {line}", soft_wrap=True)


def _imported(places: HistoryPlaces, file: _File, *, as_json: bool) -> Imported | ImportedDays:
    if file.daily:
        return import_daily(places, file.series, file.path, file.rules.tick_e9)
    with progress(file.path.name, as_json=as_json) as step:
        return import_scid(places, file.series, file.path, file.rules, step)


def _counts(done: Imported | ImportedDays) -> tuple[str, ...]:
    if isinstance(done, ImportedDays):
        refused = f"{done.refused:,} NO_BAR" if done.refused else "none"
        return f"{done.read:,}", f"{done.added:,}", f"{done.known:,}", refused
    return f"{done.read:,}", f"{done.written.added:,}", f"{done.written.known:,}", _reasons(done)


def _remarks(done: Imported | ImportedDays) -> Iterator[str]:
    """What the table has no column for."""
    for each in done.set_aside:
        yield f"{each}; what this file says was written anew, and what came from elsewhere is only there"
    if isinstance(done, ImportedDays):
        if done.changed:
            yield f"{done.changed:,} days were held otherwise; they are as this file says now"
        yield from done.problems[:_SHOWN]
        if done.refused > _SHOWN:
            yield f"... and {done.refused - _SHOWN:,} more lines that are no bar"
        if done.between_steps:
            yield f"{done.between_steps:,} days have prices between two price steps of the symbol; they are kept as they are"
    elif done.written.contradicting:
        yield f"{done.written.contradicting:,} ticks are held otherwise than the file says; what is held stays"


def _checked(path: Path, symbol: str | None, declared: str | None, specs: Mapping[str, InstrumentSpec]) -> _File:
    if path.suffix.lower() not in {SUFFIX, DAILY_SUFFIX}:
        raise CommandFailed(f"{path} is neither a {SUFFIX} file of ticks nor a {DAILY_SUFFIX} file of daily bars")
    if path.suffix.lower() == SUFFIX:
        ScidFile(path).close()
    else:
        read_daily(path)
    marked = read_marker(path.parent) is not None
    meant = parse_symbol(symbol) if symbol is not None else symbol_of_file(path.name)
    if marked and declared == "DELAYED":
        raise CommandFailed(
            f"{path} lies beside {MARKER_NAME}, with which a simulator marks what it invents: it is simulated"
        )
    provenance = declared or ("SIMULATED" if marked else "DELAYED")
    return _File(path, Series(provenance, str(meant)), Rules(tick_e9=spec_for(meant, specs).tick_e9))


def _specs(paths: MeshPaths) -> Mapping[str, InstrumentSpec]:
    return load_saved(paths.config_file).specs() if paths.config_file.exists() else DEFAULT_INSTRUMENTS


def _reasons(done: Imported) -> str:
    return ", ".join(f"{count:,} {reason}" for reason, count in sorted(done.rejected.items())) or "none"


def show(paths: MeshPaths, symbol: str | None, provenance: str | None, *, by_day: bool, as_json: bool) -> None:
    """Lists series, or their days."""
    with told_plainly():
        wanted, declared = canonical(symbol), provenance_of(provenance)
        held = days_held(places_of(paths), lambda each: _is_wanted(each, wanted, declared))
        daily = list(_daily_held(places_of(paths), lambda each: _is_wanted(each, wanted, declared)))
    if as_json:
        rows = [{**asdict(each.series), **asdict(each)} for each in held]
        rows += [{**asdict(series), **_about_daily(each)} for series, each in daily]
        terminal.as_json([{k: _plain(v) for k, v in row.items() if k != "series"} for row in rows])
        return
    if not held and not daily:
        terminal.out.print(
            "Nothing is held. `minhos data import FILES` brings files in; a running mesh records by itself."
        )
        return
    lines: dict[tuple[str, ...], list[int]] = {}
    for each in held:
        key = (each.series.symbol, each.series.provenance, *([each.day.isoformat()] if by_day else []))
        line = lines.setdefault(key, [0, 0, each.first_ns, each.last_ns, 0])
        line[0] += 1
        line[1] += each.ticks
        line[2], line[3] = min(line[2], each.first_ns), max(line[3], each.last_ns)
        line[4] += each.file_bytes or 0
    columns = ("SYMBOL", "PROVENANCE", "DAY" if by_day else "DAYS", "TICKS", "FROM (UTC)", "TO (UTC)", "FILES")
    table = [
        (key[0], key[1], key[2] if by_day else str(line[0]), f"{line[1]:,}", _time(line[2]), _time(line[3]),
         _size(line[4]))
        for key, line in lines.items()
    ]  # fmt: skip
    if table:
        print_table(
            columns,
            table,
            right=("DAYS", "TICKS", "FILES"),
            leave_out=("FILES", "FROM (UTC)", "PROVENANCE", "TO (UTC)"),
        )
    if daily:
        _print_daily(daily)


def _daily_held(places: HistoryPlaces, wanted: Callable[[Series], bool]) -> Iterator[tuple[Series, DailyHeld]]:
    for series in filter(wanted, places.series()):
        if (held := read_held(places, series)).bars:
            yield series, held


def _about_daily(held: DailyHeld) -> dict[str, object]:
    days = {"daily_bars": len(held.bars), "first_day": held.bars[0].day, "last_day": held.bars[-1].day}
    return {**days, "file_bytes": held.size_bytes, "sources": list(held.sources)}


def _print_daily(daily: Sequence[tuple[Series, DailyHeld]]) -> None:
    columns = ("SYMBOL", "PROVENANCE", "DAILY BARS", "FROM", "TO", "FILE")
    rows = [
        (series.symbol, series.provenance, f"{len(held.bars):,}", f"{held.bars[0].day}", f"{held.bars[-1].day}",
         _size(held.size_bytes))
        for series, held in daily
    ]  # fmt: skip
    print_table(columns, rows, right=("DAILY BARS", "FILE"), leave_out=("FILE", "PROVENANCE", "FROM"))


def check(paths: MeshPaths, symbol: str | None, provenance: str | None, *, as_json: bool) -> None:
    """Verifies every series; ends with exit code 1 when a file is broken."""
    places, found = places_of(paths), list[Verified]()
    with told_plainly():
        wanted, declared = canonical(symbol), provenance_of(provenance)
        kept = sorted({*places.series(), *places.unfinished_series()})
        for series in filter(lambda each: _is_wanted(each, wanted, declared), kept):
            with progress(str(series), as_json=as_json) as step:
                found.append(verify(places, series, step))
    problems = sum(len(each.problems) for each in found)
    if as_json:
        terminal.as_json([asdict(each) for each in found])
    elif not found:
        terminal.out.print("Nothing is held: there is nothing to verify.")
    else:
        _print_verified(found)
    if problems:
        fail(
            f"{problems} problem{'s' if problems > 1 else ''} found: `minhos data import` of the file that a broken one came from"
            " moves it aside and writes its days again; one that was recorded cannot be made again: move it away, and the"
            " rest is read"
        )


def _print_verified(found: Sequence[Verified]) -> None:
    columns = ("SYMBOL", "PROVENANCE", "FILES", "TICKS", "GAPS", "PROBLEMS")
    rows = [
        (
            each.series.symbol, each.series.provenance, str(each.files), f"{each.ticks:,}",
            str(len(each.gaps)), str(len(each.problems)),
        )
        for each in found
    ]  # fmt: skip
    print_table(
        columns, rows, right=("FILES", "TICKS", "GAPS", "PROBLEMS"), leave_out=("FILES", "PROVENANCE", "TICKS", "GAPS")
    )
    for each in found:
        for left in each.removed:
            terminal.out.print(f"{left} was left by a process that ended while it wrote: removed", soft_wrap=True)
        said = [*each.problems, *(
            f"{each.series}: sequences {gap.first_sequence} to {gap.last_sequence} of epoch {gap.epoch} {_missing(gap)}"
            for gap in each.gaps
        )]  # fmt: skip
        for line in said[:_SHOWN]:
            terminal.out.print(line, soft_wrap=True)
        if len(said) > _SHOWN:
            terminal.out.print(f"... and {len(said) - _SHOWN} more; --json shows all")


def _missing(gap: Gap) -> str:
    return "are not held, unless by a file that is broken" if gap.may_be_in_broken_file else "are not held"


def _is_wanted(series: Series, symbol: str | None, provenance: str | None) -> bool:
    return symbol in {None, series.symbol} and provenance in {None, series.provenance}


def _time(time_ns: int) -> str:
    return datetime.fromtimestamp(time_ns // 1_000_000_000, UTC).strftime("%Y-%m-%d %H:%M:%S")


def _size(count: int) -> str:
    if not count:
        return "journal"
    return f"{count / 1e6:.1f} MB" if count >= 1e6 else f"{count / 1e3:.1f} kB"


def _plain(value: object) -> object:
    return value.isoformat() if hasattr(value, "isoformat") else value
