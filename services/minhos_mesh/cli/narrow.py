"""Decides how rows look that are wider than the terminal: whole columns are left out, nothing is cut off."""

from __future__ import annotations

from collections.abc import Sequence

from rich.text import Text

from minhos_mesh.cli import show

_GAP = 2

Cells = Sequence[str | Text]


def natural_width(columns: Sequence[str], rows: Sequence[Cells], gap: int = _GAP) -> int:
    """Characters of a line when no cell is cut off."""
    widths = [max(len(name), *(len(row[place]) for row in rows), 0) for place, name in enumerate(columns)]
    return sum(widths) + gap * (len(columns) - 1)


def print_table(
    columns: Sequence[str], rows: Sequence[Cells], *, right: Sequence[str], leave_out: Sequence[str]
) -> list[str]:
    """Prints a table without as many columns of `leave_out` as a narrow terminal makes necessary; returns those it has.

    Where what must stay is too wide by little, the columns stand closer together.
    """
    width = show.out.width
    names, lines = fitting(columns, rows, width, leave_out)
    show.out.print(show.table(names, lines, right=right, close=natural_width(names, lines) > width))
    return names


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
