"""Decides what is told about a data file that lies in the folder, whether it is followed or not."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from minhos_mesh.runtime.symbols import SymbolError, symbol_of_file
from minhos_mesh.sierra_files.header import ScidError
from minhos_mesh.sierra_files.layout import SUFFIX, Records
from minhos_mesh.sierra_files.marker import read_marker
from minhos_mesh.sierra_files.reader import ScidFile
from minhos_mesh.sierra_files.ticks import HAS_TIME, tick_columns

DEFAULT_PAGE = 100
LARGEST_PAGE = 1000


@dataclass(frozen=True, slots=True)
class DataFile:
    """One data file."""

    name: str
    symbol: str
    """Canonical symbol that the name says; empty when it says none."""
    size_bytes: int
    records: int | None
    """Whole records; None when the file cannot be read."""
    first_time_ns: int | None
    last_time_ns: int | None
    error: str
    """Why it cannot be read; empty when it can."""
    simulated: bool


def list_files(folder: Path, page_size: int, after: str) -> tuple[list[DataFile], str]:
    """A page of the folder's .scid files behind the name `after`, and the name to go on behind (empty: no more).

    A folder that is not there is empty.
    """
    simulated = read_marker(folder) is not None
    try:
        names = sorted(path.name for path in folder.iterdir() if path.suffix == SUFFIX and path.name[0] != ".")
    except OSError:
        names = []
    later = [name for name in names if name > after]
    page = [describe_file(folder / name, simulated) for name in later[:page_size]]
    return page, page[-1].name if len(later) > page_size else ""


def describe_file(path: Path, simulated: bool) -> DataFile:
    """What a file holds, or why it cannot be read."""
    try:
        symbol = str(symbol_of_file(path.name))
    except SymbolError:
        symbol = ""
    try:
        with ScidFile(path) as file:
            count = file.count()
            first, last = file.read(0, 1), file.read(max(0, count - 1), 1)
            return DataFile(path.name, symbol, file.size(), count, _time_ns(first), _time_ns(last), "", simulated)
    except ScidError as error:
        size = path.stat().st_size if path.exists() else 0
        return DataFile(path.name, symbol, size, None, None, None, str(error), simulated)


def _time_ns(records: Records) -> int | None:
    columns = tick_columns(records, 1)
    return int(columns.time_ns[0]) if len(records) and columns.flags[0] & HAS_TIME else None
