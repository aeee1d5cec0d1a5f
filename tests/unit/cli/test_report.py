from __future__ import annotations

from dataclasses import replace

import pytest

from minhos_api.order.v1.position_pb2 import Position
from minhos_mesh.cli import report
from minhos_mesh.cli.report import Book, Progress

BOOK: Book = (1, 20_000, -5, 2)
DONE = Progress(
    written=10, total=10, acknowledged=10, read=10, sequenced=9, thought=9, acted=9, fills=3, projected=3, ended=True
)


def books(engine: dict[str, Book], state: dict[str, Book]) -> dict[str, dict[str, Book]]:
    return {"fill events": {"NQ": BOOK}, "trading engine": engine, "state manager": state}


def test_a_replay_is_over_when_everyone_has_seen_everything() -> None:
    assert DONE.done()


@pytest.mark.parametrize(
    "behind", ["written", "acknowledged", "read", "sequenced", "thought", "acted", "fills", "projected"]
)
def test_a_replay_is_not_over_while_anyone_is_behind(behind: str) -> None:
    assert not replace(DONE, **{behind: getattr(DONE, behind) - 1}).done()


def test_a_replay_is_not_over_before_the_simulator_says_so() -> None:
    assert not replace(DONE, ended=False).done()
    assert not Progress(ended=True).done()


def test_equal_books_have_no_difference() -> None:
    assert report._differences(books({"NQ": BOOK}, {"NQ": BOOK})) == []


def test_a_flat_book_without_money_counts_as_absent() -> None:
    assert report._differences(books({"NQ": BOOK, "ES": (0, 0, 0, 0)}, {"NQ": BOOK})) == []


def test_every_book_that_differs_is_named_with_both_values() -> None:
    other: Book = (2, 40_000, -5, 2)
    assert report._differences(books({"NQ": other}, {})) == [
        f"state manager has None of NQ, the fill events give {BOOK}",
        f"trading engine has {other} of NQ, the fill events give {BOOK}",
    ]


def test_a_book_that_no_fill_explains_is_a_difference() -> None:
    (told,) = report._differences(books({"NQ": BOOK, "ES": BOOK}, {"NQ": BOOK}))
    assert told == f"trading engine has {BOOK} of ES, the fill events give None"


def test_books_are_read_from_positions_exactly() -> None:
    position = Position(symbol="NQ", quantity=-1, cost_e9=-5, realized_pnl_e9=7, commission_e9=3)
    assert report._books([position]) == {"NQ": (-1, -5, 7, 3)}
