"""Decides how two streams of ticks of one generation become one, a piece at a time, so that memory does not grow with a day."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from minhos_mesh.history.domain.rows import Rows, merged


@dataclass(slots=True)
class Counts:
    """What became of the rows that were put to those held."""

    added: int = 0
    known: int = 0
    contradicting: int = 0


def merged_streams(held: Iterator[Rows], more: Iterator[Rows], counts: Counts) -> Iterator[Rows]:
    """Both in order of sequence, each sequence once; what is held stays. Pieces are not empty."""
    mine, theirs = next(held, None), next(more, None)
    while mine is not None or theirs is not None:
        if theirs is None or (mine is not None and mine.sequence[-1] < theirs.sequence[0]):
            assert mine is not None, "one of them is left"
            yield mine
            mine = next(held, None)
        elif mine is None or theirs.sequence[-1] < mine.sequence[0]:
            counts.added += len(theirs)
            yield theirs
            theirs = next(more, None)
        else:
            through = min(int(mine.sequence[-1]), int(theirs.sequence[-1]))
            one, mine = _cut(mine, through)
            other, theirs = _cut(theirs, through)
            result = merged(one, other)
            counts.added += result.added
            counts.known += result.known
            counts.contradicting += result.contradicting
            yield result.rows
            mine = mine if mine is not None else next(held, None)
            theirs = theirs if theirs is not None else next(more, None)


def _cut(rows: Rows, through: int) -> tuple[Rows, Rows | None]:
    at = int(np.searchsorted(rows.sequence, through, side="right"))
    return rows.part(slice(at)), rows.part(slice(at, None)) if at < len(rows) else None


def each_once(pieces: Iterable[Rows]) -> Iterator[Rows]:
    """Pieces of one generation in order of their first sequence, without what a former one held already."""
    through = 0
    for piece in pieces:
        at = int(np.searchsorted(piece.sequence, through, side="right"))
        if at < len(piece):
            through = int(piece.sequence[-1])
            yield piece.part(slice(at, None)) if at else piece
