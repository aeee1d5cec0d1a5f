from __future__ import annotations

import os
import random
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from minhos_mesh.sierra_files.depth import read_depth, write_depth_header
from minhos_mesh.sierra_files.depth_book import LARGEST_BOOK, BookView, DepthBook, Level
from minhos_mesh.sierra_files.depth_layout import DEPTH_RECORD, END_OF_BATCH, DepthCommand
from minhos_mesh.sierra_files.header import ScidError, ScidIncomplete, ScidMalformed, ScidMissing
from minhos_mesh.sierra_files.layout import EPOCH_SHIFT_US

QUARTER = 250_000_000
FUZZ_CASES = 300 * int(os.environ.get("MINHOS_FUZZ_TIMES", "1"))


def commands(*rows: tuple[int, int, float, int]) -> NDArray[np.void]:
    """Rows of command, flags, price, quantity; one microsecond apart."""
    found = np.zeros(len(rows), DEPTH_RECORD)
    for at, (command, flags, price, quantity) in enumerate(rows):
        found[at] = (EPOCH_SHIFT_US + 1 + at, command, flags, 2, price, quantity, 0)
    return found


SNAPSHOT = commands(
    (DepthCommand.CLEAR_BOOK, 0, 0.0, 0),
    (DepthCommand.ADD_BID, 0, 100.0, 5),
    (DepthCommand.ADD_BID, 0, 99.75, 7),
    (DepthCommand.ADD_ASK, 0, 100.25, 3),
    (DepthCommand.ADD_ASK, END_OF_BATCH, 100.5, 9),
)


def file_of(path: Path, records: NDArray[np.void], header: bytes | None = None) -> Path:
    path.write_bytes((write_depth_header() if header is None else header) + records.tobytes())
    return path


def prices(levels: tuple[Level, ...]) -> list[float]:
    return [level.price_e9 / 1e9 for level in levels]


def last_view(book: DepthBook, records: NDArray[np.void]) -> BookView:
    return list(book.views(records))[-1]


def test_header_is_64_bytes_as_the_format_says() -> None:
    assert write_depth_header().hex() == "53434444" + "40000000" + "18000000" + "01000000" + "00" * 48
    assert DEPTH_RECORD.itemsize == 24


def test_file_reads_back_and_a_half_record_is_left(tmp_path: Path) -> None:
    path = file_of(tmp_path / "NQZ26-CME.2026-11-20.depth", SNAPSHOT)
    assert read_depth(path).tobytes() == SNAPSHOT.tobytes()
    assert read_depth(path, from_index=3).tobytes() == SNAPSHOT[3:].tobytes()
    assert len(read_depth(path, from_index=99)) == 0
    with path.open("ab") as file:
        file.write(b"half a record")
    assert read_depth(path).tobytes() == SNAPSHOT.tobytes()


def test_longer_header_moves_the_records(tmp_path: Path) -> None:
    header = struct.pack("<IIII", 0x44444353, 80, 24, 1) + bytes(64)
    assert read_depth(file_of(tmp_path / "x.depth", SNAPSHOT, header)).tobytes() == SNAPSHOT.tobytes()


@pytest.mark.parametrize(
    ("header", "error", "message"),
    [
        (b"", ScidIncomplete, "has 0 bytes"),
        (b"SCID" + bytes(60), ScidMalformed, "begins with b'SCID', expected b'SCDD'"),
        (struct.pack("<IIII", 0x44444353, 64, 28, 1), ScidMalformed, "records of 28 bytes"),
        (struct.pack("<IIII", 0x44444353, 64, 24, 2), ScidMalformed, "version 2"),
        (struct.pack("<IIII", 0x44444353, 0, 24, 1), ScidMalformed, "header of 0 bytes"),
    ],
)
def test_what_is_no_depth_file_is_named(tmp_path: Path, header: bytes, error: type[ScidError], message: str) -> None:
    path = tmp_path / "x.depth"
    path.write_bytes(header)
    with pytest.raises(error, match=message) as raised:
        read_depth(path)
    assert str(path) in str(raised.value)


def test_missing_file_and_folder_are_named(tmp_path: Path) -> None:
    with pytest.raises(ScidMissing, match="does not exist"):
        read_depth(tmp_path / "x.depth")
    with pytest.raises(ScidError, match="cannot be read"):
        read_depth(tmp_path)


def test_snapshot_becomes_a_book_with_the_best_prices_first() -> None:
    book = DepthBook(QUARTER)
    (view,) = book.views(SNAPSHOT)
    assert (prices(view.bids), prices(view.asks)) == ([100.0, 99.75], [100.25, 100.5])
    assert view.bids[0] == Level(100_000_000_000, 5, 2)
    assert view.time_ns == 5_000
    assert book.cleared


def test_levels_are_changed_and_removed() -> None:
    book = DepthBook(QUARTER)
    last_view(book, SNAPSHOT)
    changes = commands(
        (DepthCommand.MODIFY_BID, 0, 100.0, 1),
        (DepthCommand.DELETE_ASK, 0, 100.25, 0),
        (DepthCommand.MODIFY_BID, END_OF_BATCH, 99.75, 0),
    )
    view = last_view(book, changes)
    assert [(level.price_e9, level.quantity) for level in view.bids] == [(100_000_000_000, 1)]
    assert prices(view.asks) == [100.5]


def test_a_book_is_shown_behind_each_batch_and_never_inside_one() -> None:
    assert len(list(DepthBook(QUARTER).views(SNAPSHOT[:4]))) == 0
    assert len(list(DepthBook(QUARTER).views(np.concatenate([SNAPSHOT, SNAPSHOT])))) == 2


def test_at_most_the_levels_asked_for_are_shown() -> None:
    many = commands(*[(DepthCommand.ADD_BID, END_OF_BATCH, 100.0 - 0.25 * at, 1) for at in range(30)])
    *_, view = DepthBook(QUARTER).views(many, levels=10)
    assert len(view.bids) == 10
    assert prices(view.bids)[0] == 100.0


def test_commands_that_mean_nothing_are_counted_and_change_nothing() -> None:
    book = DepthBook(QUARTER)
    last_view(book, SNAPSHOT)
    nonsense = commands((0, 0, 100.0, 1), (77, 0, 100.0, 1), (DepthCommand.ADD_BID, END_OF_BATCH, float("nan"), 1))
    assert prices(last_view(book, nonsense).bids) == [100.0, 99.75]
    assert book.refused == 2


@given(
    st.lists(st.tuples(st.integers(0, 8), st.integers(0, 1), st.integers(1, 8), st.integers(0, 3)), max_size=40),
    st.data(),
)
@settings(max_examples=60)
def test_book_of_pieces_is_the_book_of_the_whole(rows: list[tuple[int, int, int, int]], data: st.DataObject) -> None:
    records = commands(*[(command, flags, 100 + 0.25 * step, quantity) for command, flags, step, quantity in rows])
    cut = data.draw(st.integers(0, len(rows)))
    whole, parts = DepthBook(QUARTER), DepthBook(QUARTER)
    views = [*parts.views(records[:cut]), *parts.views(records[cut:])]
    assert list(whole.views(records)) == views
    assert (whole.bids, whole.asks, whole.refused) == (parts.bids, parts.asks, parts.refused)


def test_any_bytes_give_a_book_or_a_named_error(tmp_path: Path) -> None:
    source = random.Random(20261123)
    valid = write_depth_header() + np.concatenate([SNAPSHOT] * 4).tobytes()
    path = tmp_path / "x.depth"
    read = refused = 0
    for case in range(FUZZ_CASES):
        data = bytearray(valid)
        for _ in range(source.randrange(1, 12)):
            data[source.randrange(case % 2 * 64, len(data))] = source.randrange(256)
        path.write_bytes(data[: source.randrange(len(data))] if case % 3 == 0 else data)
        try:
            records = read_depth(path)
        except ScidError as error:
            refused += 1
            assert "x.depth" in str(error)  # noqa: PT017 - some cases are errors, others are not
            continue
        read += 1
        book = DepthBook(QUARTER)
        for view in book.views(records):
            assert all(level.price_e9 > 0 for level in (*view.bids, *view.asks))
        assert len(book.bids) + len(book.asks) <= 2 * LARGEST_BOOK
    assert read > 0
    assert refused > 0
