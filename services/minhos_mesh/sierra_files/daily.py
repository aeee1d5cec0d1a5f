"""Decides how a .dly file of daily bars is read: text with one header line, and no bar that the text does not spell out."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Final

from minhos_mesh.runtime.money import LARGEST_PRICE_E9, MoneyError, parse_e9
from minhos_mesh.sierra_files.header import ScidIncomplete, ScidMalformed
from minhos_mesh.sierra_files.told_errors import told_errors

DAILY_SUFFIX: Final = ".dly"
LARGEST_FILE: Final = 64 << 20
"""Bytes of the largest file that is read: three hundred years of days take 8 MB."""
PROBLEMS_KEPT: Final = 100
"""Lines that cannot be read are named up to this number; all are counted."""

_DATE: Final = re.compile(r"(\d{4})[/-](\d{1,2})[/-](\d{1,2})\Z", re.ASCII)
_COUNT: Final = re.compile(r"\d{1,18}(\.0*)?\Z", re.ASCII)
_EXPONENT: Final = re.compile(r"(\d+)(?:\.(\d*))?[eE]\+?(\d{1,2})\Z", re.ASCII)
_COLUMNS: Final = {"date": "date", "open": "open", "high": "high", "low": "low", "close": "close", "last": "close",
                   "volume": "volume", "openinterest": "open_interest"}  # fmt: skip
_NEEDED: Final = ("date", "open", "high", "low", "close")


@dataclass(frozen=True, slots=True, kw_only=True)
class DailyBar:
    """One day; prices in 1e-9 units."""

    day: date
    open_e9: int
    high_e9: int
    low_e9: int
    close_e9: int
    volume: int | None
    """Contracts; None when the file does not say."""
    open_interest: int | None


@dataclass(frozen=True, slots=True)
class DailyFile:
    """What a file holds."""

    bars: tuple[DailyBar, ...]
    """In the order of the file, the oldest first."""
    refused: int
    """Lines that are no bar; they are left out."""
    problems: tuple[str, ...]
    """What was wrong with the first of them."""


def read_daily(path: Path) -> DailyFile:
    """Reads a file. Raises ScidMissing, ScidForbidden, ScidIncomplete, ScidMalformed or ScidError by its name."""
    return parse_daily(read_bytes(path), str(path))


def read_bytes(path: Path) -> bytes:
    """All bytes of a file that can be one of daily bars. Raises as `read_daily`."""
    with told_errors(path, "read"):
        if path.stat().st_size > LARGEST_FILE:
            raise ScidMalformed(
                f"{path} has {path.stat().st_size} bytes: a file of daily bars has at most {LARGEST_FILE}"
            )
        return path.read_bytes()


def parse_daily(data: bytes, name: str) -> DailyFile:
    """Reads the text of a file. The delimiter (comma, tab or semicolon) is that of its header line.

    A last line without its end is one that is still being written, and is left. Raises ScidIncomplete, ScidMalformed.
    """
    text = data.decode("latin-1").removeprefix("\xef\xbb\xbf")
    lines = text.replace("\r\n", "\n").split("\n")
    if len(lines) < 2:
        raise ScidIncomplete(f"{name} has no whole header line yet")
    delimiter = next((sign for sign in (",", "\t", ";") if sign in lines[0]), ",")
    columns = _columns(lines[0].split(delimiter), name)
    bars: list[DailyBar] = []
    problems: list[str] = []
    refused = 0
    for number, line in enumerate(lines[1:-1], start=2):
        if not line.strip():
            continue
        try:
            bars.append(_bar([cell.strip() for cell in line.split(delimiter)], columns, bars[-1].day if bars else None))
        except ValueError as error:
            refused += 1
            if len(problems) < PROBLEMS_KEPT:
                problems.append(f"line {number}: {error}")
    return DailyFile(tuple(bars), refused, tuple(problems))


def _columns(names: list[str], name: str) -> dict[str, int]:
    columns: dict[str, int] = {}
    for index, title in enumerate(names):
        meant = _COLUMNS.get(re.sub(r"[^a-z]", "", title.lower()))
        if meant is not None:
            columns.setdefault(meant, index)
    missing = [needed for needed in _NEEDED if needed not in columns]
    if missing:
        raise ScidMalformed(f"{name} is not a .dly file: its first line has no column {', '.join(missing)}")
    return columns


def _bar(cells: list[str], columns: dict[str, int], before: date | None) -> DailyBar:
    if len(cells) <= max(columns[needed] for needed in _NEEDED):
        raise ValueError(f"has {len(cells)} columns, and the header names more")
    day = _day(cells[columns["date"]])
    if before is not None and day <= before:
        raise ValueError(f"{day} is not after {before}")
    first, high, low, last = (_price(cells[columns[name]], name) for name in ("open", "high", "low", "close"))
    if not low <= min(first, last) <= max(first, last) <= high:
        raise ValueError(f"{day} has its low above, or its high below, another of its prices")
    return DailyBar(
        day=day,
        open_e9=first,
        high_e9=high,
        low_e9=low,
        close_e9=last,
        volume=_count(cells, columns.get("volume"), "volume"),
        open_interest=_count(cells, columns.get("open_interest"), "open interest"),
    )


def _day(text: str) -> date:
    match = _DATE.match(text)
    if match is None:
        raise ValueError(f"date is {text[:20]!r}, expected year/month/day")
    return date(*(int(part) for part in match.groups()))


def _price(text: str, name: str) -> int:
    try:
        price_e9 = parse_e9(text[:60], field=name)
    except MoneyError as error:
        raise ValueError(str(error)) from None
    if not 0 < price_e9 <= LARGEST_PRICE_E9:
        raise ValueError(f"{name} is {text[:20]!r}, which is no price")
    return price_e9


def _count(cells: list[str], index: int | None, name: str) -> int | None:
    """A whole number, None for a column that is absent or empty."""
    if index is None or index >= len(cells) or not cells[index]:
        return None
    text = cells[index]
    if _COUNT.match(text):
        return int(text.split(".")[0])
    match = _EXPONENT.match(text[:40])
    if match is None:
        raise ValueError(f"{name} is {text[:20]!r}, expected a whole number")
    whole, part, power = match.group(1), match.group(2) or "", int(match.group(3))
    if int(power) > 18 or len(part) > power or len(whole) > 18:
        raise ValueError(f"{name} is {text[:20]!r}, expected a whole number")
    return int(whole + part.ljust(power, "0"))
