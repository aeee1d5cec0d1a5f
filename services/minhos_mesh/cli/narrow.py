"""Decides how rows look that are wider than the terminal: whole columns are left out, nothing is cut off."""

from __future__ import annotations

from collections.abc import Sequence

from rich.text import Text

_GAP = 2

Cells = Sequence[str | Text]


def natural_width(columns: Sequence[str], rows: Sequence[Cells]) -> int:
    """Characters of a line when no cell is cut off."""
    widths = [max(len(name), *(len(row[place]) for row in rows), 0) for place, name in enumerate(columns)]
    return sum(widths) + _GAP * (len(columns) - 1)


def fitting(
    columns: Sequence[str], rows: Sequence[Cells], width: int, leave_out: Sequence[str]
) -> tuple[list[str], list[list[str | Text]]]:
    """The columns and rows that fit into `width`; of `leave_out` as many are gone as need be, in this order."""
    names, lines = list(columns), [list(row) for row in rows]
    for name in leave_out:
        if natural_width(names, lines) <= width:
            break
        if name in names:
            place = names.index(name)
            del names[place]
            for line in lines:
                del line[place]
    return names, lines
