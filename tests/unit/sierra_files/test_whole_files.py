from __future__ import annotations

import os
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minhos_mesh.sierra_files import reader
from minhos_mesh.sierra_files.bundles import bundles
from minhos_mesh.sierra_files.header import ScidError, ScidMalformed
from minhos_mesh.sierra_files.layout import EPOCH_SHIFT_US, MARK_FIRST, MARK_LAST, RECORD, Records
from minhos_mesh.sierra_files.reader import ScidFile, read_scid
from minhos_mesh.sierra_files.writer import ScidWriter


def made(count: int, first: int = 0) -> Records:
    records = np.zeros(count, RECORD)
    records["time_us"] = EPOCH_SHIFT_US + 1 + first + np.arange(count)
    records["close"] = 100.25
    records["num_trades"] = 1
    records["total_volume"] = 2
    return records


def marked(marks: str) -> Records:
    """Records whose Open is a first mark, a last mark or zero."""
    records = made(len(marks))
    bits = np.array([{"F": MARK_FIRST, "L": MARK_LAST}.get(mark, 0) for mark in marks], np.uint32)
    records["open"] = bits.view(np.float32)
    return records


def variant(header_size: int) -> bytes:
    return struct.pack("<4sIIHHI", b"SCID", header_size, 40, 1, 0, 0).ljust(header_size, b"\0")


@pytest.mark.parametrize("header_size", [56, 64, 128, 4096])
def test_records_begin_where_the_header_says(tmp_path: Path, header_size: int) -> None:
    path = tmp_path / "NQZ26-CME.scid"
    path.write_bytes(variant(header_size) + made(5).tobytes() + b"half")
    assert read_scid(path).tobytes() == made(5).tobytes()
    with ScidFile(path) as file:
        assert (file.count(), file.first_index_at(3_000)) == (5, 2)


@pytest.mark.parametrize("header_size", [0, 55, 4097, 2**32 - 1])
def test_header_of_an_unbelievable_size_is_refused(tmp_path: Path, header_size: int) -> None:
    path = tmp_path / "NQZ26-CME.scid"
    path.write_bytes(struct.pack("<4sIIHHI", b"SCID", header_size, 40, 1, 0, 0).ljust(8192, b"\0"))
    with pytest.raises(ScidMalformed, match=f"header of {header_size} bytes"):
        read_scid(path)


def test_file_with_a_longer_header_is_not_appended_to(tmp_path: Path) -> None:
    path = tmp_path / "NQZ26-CME.scid"
    path.write_bytes(variant(64))
    with pytest.raises(ScidMalformed, match="header of 64 bytes"):
        ScidWriter.resume(path)


def test_file_is_read_in_pieces_without_a_gap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "NQZ26-CME.scid"
    ScidWriter.create(path, made(1_000)).close()
    monkeypatch.setattr(reader, "_PIECE", 4096 + 7)
    assert read_scid(path).tobytes() == made(1_000).tobytes()
    with ScidFile(path) as file:
        pieces = list(file.chunks(170))
    assert [len(piece) for piece in pieces] == [170] * 5 + [150]
    assert np.concatenate(pieces).tobytes() == made(1_000).tobytes()


def test_file_that_grows_while_it_is_read_gives_its_new_records_too(tmp_path: Path) -> None:
    path = tmp_path / "NQZ26-CME.scid"
    writer = ScidWriter.create(path, made(4))
    with ScidFile(path) as file:
        seen = 0
        for piece in file.chunks(2):
            seen += len(piece)
            if seen == 2:
                writer.append(made(3, 4))
    writer.close()
    assert seen == 7


@pytest.mark.parametrize("left", [0, 30, 56, 57, 56 + 40, 56 + 2 * 40 + 13])
def test_file_that_is_truncated_while_it_is_read_gives_whole_records_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, left: int
) -> None:
    path = tmp_path / "NQZ26-CME.scid"
    ScidWriter.create(path, made(8)).close()
    ask = os.preadv
    cut = iter([True])

    def cut_then_ask(descriptor: int, buffers: list[memoryview], offset: int) -> int:
        if next(cut, False):
            os.truncate(path, left)
        return ask(descriptor, buffers, offset)

    with ScidFile(path) as file:
        monkeypatch.setattr(os, "preadv", cut_then_ask)
        found = file.read(0, 8)
        assert found.tobytes() == made(max(0, left - 56) // 40).tobytes()
        assert len(file.read(5, 8)) == 0


def test_file_that_is_replaced_while_it_is_read_stays_the_one_that_was_opened(tmp_path: Path) -> None:
    path = tmp_path / "NQZ26-CME.scid"
    ScidWriter.create(path, made(4)).close()
    with ScidFile(path) as file:
        first = file.read(0, 2)
        ScidWriter.create(path, made(4, 500)).close()
        both = np.concatenate([first, file.read(2, 2)])
    assert both.tobytes() == made(4).tobytes()
    assert read_scid(path).tobytes() == made(4, 500).tobytes()


def test_disk_that_fails_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "NQZ26-CME.scid"
    ScidWriter.create(path, made(4)).close()

    def fail(*_: object) -> int:
        raise OSError(5, "Input/output error")

    with ScidFile(path) as file:
        monkeypatch.setattr(os, "preadv", fail)
        with pytest.raises(ScidError, match="cannot be read at byte 96: Input/output error"):
            file.read(1, 2)


@pytest.mark.parametrize(
    ("marks", "found", "unmatched"),
    [
        ("", [], 0),
        ("....", [], 0),
        ("FL", [(0, 1)], 0),
        (".F..L.FL", [(1, 4), (6, 7)], 0),
        ("L.FL", [(2, 3)], 1),
        ("FL.F.", [(0, 1)], 1),
        ("FFL", [(1, 2)], 1),
        ("FLL", [(0, 1)], 1),
    ],
)
def test_trades_in_parts_are_found_by_their_marks(marks: str, found: list[tuple[int, int]], unmatched: int) -> None:
    records = marked(marks)
    trades = bundles(records)
    assert list(zip(trades.first.tolist(), trades.last.tolist(), strict=True)) == found
    assert (len(trades), trades.unmatched) == (len(found), unmatched)
    assert trades.sizes().tolist() == [last - first + 1 for first, last in found]
    assert trades.volumes(records).tolist() == [2 * (last - first + 1) for first, last in found]


def test_sample_has_2102_trades_in_2_to_11_parts_with_770_between_the_marks(sample: Path) -> None:
    records = read_scid(sample)
    trades = bundles(records)
    assert (len(trades), trades.unmatched) == (2_102, 0)
    assert (int(trades.sizes().min()), int(trades.sizes().max())) == (2, 11)
    assert int((trades.sizes() - 2).sum()) == 770


@given(st.data())
@settings(max_examples=40)
def test_pieces_of_any_size_are_the_whole_file(sample: Path, data: st.DataObject) -> None:
    size = data.draw(st.integers(1, 60_000))
    with ScidFile(sample) as file:
        pieces = list(file.chunks(max(size, 700)))
    assert b"".join(piece.tobytes() for piece in pieces) == sample.read_bytes()[56:]
