"""Decides what the commands about history do and say: import, list and verify."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from minhos_mesh.cli import show as terminal
from minhos_mesh.cli.failure import CommandFailed, fail
from minhos_mesh.history.asking import days_held
from minhos_mesh.history.domain.series import PROVENANCES, HistoryError, Series
from minhos_mesh.history.domain.validation import Rules
from minhos_mesh.history.importing import Imported, import_scid
from minhos_mesh.history.places import HistoryPlaces
from minhos_mesh.history.verifying import Verified, verify
from minhos_mesh.runtime.config import ConfigError, load_saved
from minhos_mesh.runtime.instruments import DEFAULT_INSTRUMENTS, InstrumentError, InstrumentSpec, spec_for
from minhos_mesh.runtime.paths import MeshPaths
from minhos_mesh.runtime.symbols import SymbolError, parse_symbol, symbol_of_file
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


def places_of(paths: MeshPaths) -> HistoryPlaces:
    """The folder of history of a mesh."""
    return HistoryPlaces(paths.history_dir)


@contextlib.contextmanager
def told_plainly() -> Iterator[None]:
    """What is expected to go wrong ends the command with one sentence."""
    try:
        yield
    except (CommandFailed, HistoryError, ScidError, SymbolError, InstrumentError, ConfigError) as error:
        fail(str(error))
    except OSError as error:
        fail(f"{error.filename}: {error.strerror}")


@contextlib.contextmanager
def progress(what: str, *, as_json: bool) -> Iterator[Step]:
    """A bar on the error output of a terminal, so that what is printed can be piped."""
    console = Console(stderr=True)
    if as_json or not console.is_terminal:
        yield lambda _done, _all: None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, whole: bar.update(task, completed=done, total=whole)


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
        done: list[tuple[_File, Imported]] = []
        for file in chosen:
            with progress(file.path.name, as_json=as_json) as step:
                done.append((file, import_scid(places_of(paths), file.series, file.path, file.rules, step)))
    if as_json:
        terminal.as_json([{"file": str(file.path), **asdict(file.series), **asdict(each)} for file, each in done])
        return
    columns = ("FILE", "SYMBOL", "PROVENANCE", "RECORDS", "NEW", "KNOWN", "REFUSED")
    rows = [
        (
            file.path.name, file.series.symbol, file.series.provenance, f"{each.read:,}", f"{each.written.added:,}",
            f"{each.written.known:,}", _reasons(each),
        )
        for file, each in done
    ]  # fmt: skip
    terminal.out.print(terminal.table(columns, rows, right=("RECORDS", "NEW", "KNOWN")))
    for file, each in done:
        if each.written.contradicting:
            terminal.out.print(
                f"{file.path.name}: {each.written.contradicting:,} ticks are held otherwise than the file says;"
                " what is held stays"
            )


def _checked(path: Path, symbol: str | None, declared: str | None, specs: Mapping[str, InstrumentSpec]) -> _File:
    if path.suffix.lower() != SUFFIX:
        raise CommandFailed(f"{path} is no {SUFFIX} file: only files of ticks can be imported")
    with ScidFile(path):
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
    if as_json:
        rows = [{**asdict(each.series), **asdict(each)} for each in held]
        terminal.as_json([{k: _plain(v) for k, v in row.items() if k != "series"} for row in rows])
        return
    if not held:
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
    terminal.out.print(terminal.table(columns, table, right=("DAYS", "TICKS", "FILES")))


def check(paths: MeshPaths, symbol: str | None, provenance: str | None, *, as_json: bool) -> None:
    """Verifies every series; ends with exit code 1 when a file is broken."""
    places, found = places_of(paths), list[Verified]()
    with told_plainly():
        wanted, declared = canonical(symbol), provenance_of(provenance)
        for series in filter(lambda each: _is_wanted(each, wanted, declared), places.series()):
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
            f"{problems} problem{'s' if problems > 1 else ''} found: a file that is broken must be imported or recorded again"
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
    terminal.out.print(terminal.table(columns, rows, right=("FILES", "TICKS", "GAPS", "PROBLEMS")))
    for each in found:
        said = [*each.problems, *(
            f"{each.series}: sequences {gap.first_sequence} to {gap.last_sequence} of epoch {gap.epoch} were never recorded"
            for gap in each.gaps
        )]  # fmt: skip
        for line in said[:_SHOWN]:
            terminal.out.print(line, soft_wrap=True)
        if len(said) > _SHOWN:
            terminal.out.print(f"... and {len(said) - _SHOWN} more; --json shows all")


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
