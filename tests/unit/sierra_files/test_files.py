from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minhos_mesh.sierra_files.header import (
    ScidError,
    ScidForbidden,
    ScidIncomplete,
    ScidMalformed,
    ScidMissing,
    parse_header,
    write_header,
)
from minhos_mesh.sierra_files.layout import EPOCH_SHIFT_US, MARKER_NAME, RECORD, Records
from minhos_mesh.sierra_files.marker import Marker, read_marker, write_marker
from minhos_mesh.sierra_files.reader import ScidFile, read_scid
from minhos_mesh.sierra_files.writer import ScidWriter


def made(count: int, first: int = 0) -> Records:
    records = np.zeros(count, RECORD)
    records["time_us"] = EPOCH_SHIFT_US + 1 + first + np.arange(count)
    records["close"] = 100.25
    records["num_trades"] = 1
    return records


def test_header_is_the_56_bytes_that_sierra_writes(sample: Path) -> None:
    assert write_header() == sample.read_bytes()[:56]


def test_header_reads_back() -> None:
    assert parse_header(write_header(), "x").version == 1


@pytest.mark.parametrize(
    ("content", "error", "message"),
    [
        (b"", ScidIncomplete, "is empty: 0 bytes"),
        (write_header()[:12], ScidIncomplete, "truncated header: 12 of 56 bytes"),
        (b"PK", ScidMalformed, "is not a .scid file: it begins with b'PK'"),
        (b"PK\x03\x04" + bytes(100), ScidMalformed, "is not a .scid file"),
        (b"SCID" + bytes([56, 0, 0, 0, 44, 0, 0, 0]) + bytes(44), ScidMalformed, "records of 44 bytes"),
        (b"SCID" + bytes([56, 0, 0, 0, 40, 0, 0, 0, 9, 0]) + bytes(42), ScidMalformed, "version 9"),
    ],
)
def test_what_is_no_scid_file_is_named_with_what_was_seen(
    tmp_path: Path, content: bytes, error: type[ScidError], message: str
) -> None:
    path = tmp_path / "NQZ26-CME.scid"
    path.write_bytes(content)
    with pytest.raises(error, match=message) as raised:
        read_scid(path)
    assert str(path) in str(raised.value)


def test_missing_file_and_folder_are_named(tmp_path: Path) -> None:
    with pytest.raises(ScidMissing, match="does not exist"):
        read_scid(tmp_path / "NQZ26-CME.scid")
    with pytest.raises(ScidError, match="is a folder"):
        read_scid(tmp_path)


def test_file_without_permission_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "NQZ26-CME.scid"
    path.write_bytes(write_header())
    path.chmod(0)
    if os.geteuid() == 0:

        def refuse(*_: object) -> int:
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(ScidForbidden, match="permission denied"):
        read_scid(path)


@given(st.binary(max_size=200))
def test_any_bytes_are_a_header_or_a_clear_error(data: bytes) -> None:
    try:
        parse_header(data, "x.scid")
    except ScidError as error:
        assert "x.scid" in str(error)  # noqa: PT017 - most inputs are errors, a few are not


@pytest.mark.parametrize("half", [0, 1, 39])
def test_half_record_at_the_end_is_never_read(tmp_path: Path, half: int) -> None:
    path = tmp_path / "NQZ26-CME.scid"
    records = made(3)
    path.write_bytes(write_header() + records.tobytes() + made(1).tobytes()[:half])
    assert read_scid(path).tobytes() == records.tobytes()


def test_header_alone_holds_no_record(tmp_path: Path) -> None:
    path = tmp_path / "NQZ26-CME.scid"
    path.write_bytes(write_header())
    assert len(read_scid(path)) == 0


def test_writer_creates_in_one_step_and_appends(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "NQZ26-CME.scid"
    writer = ScidWriter.create(path, made(2))
    writer.append(made(3, 2))
    writer.close()
    assert read_scid(path).tobytes() == made(5).tobytes()
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


def test_new_file_replaces_an_old_one_under_another_inode(tmp_path: Path) -> None:
    path = tmp_path / "NQZ26-CME.scid"
    ScidWriter.create(path, made(2)).close()
    with ScidFile(path) as old:
        ScidWriter.create(path, made(1)).close()
        with ScidFile(path) as new:
            assert new.inode != old.inode
            assert (old.count(), new.count()) == (2, 1)


def test_killed_writer_leaves_a_half_record_that_the_next_one_cuts_off(tmp_path: Path) -> None:
    path = tmp_path / "NQZ26-CME.scid"
    path.write_bytes(write_header() + made(2).tobytes() + b"half")
    writer = ScidWriter.resume(path)
    assert writer.count == 2
    writer.append(made(1, 2))
    writer.close()
    assert path.read_bytes() == write_header() + made(3).tobytes()


def test_last_bar_is_rewritten_in_place(tmp_path: Path) -> None:
    path = tmp_path / "NQZ26-CME.scid"
    writer = ScidWriter.create(path, made(2))
    changed = made(1, 1)
    changed["close"] = 7.0
    writer.rewrite_last(changed)
    writer.append(made(1, 2))
    writer.close()
    assert read_scid(path)["close"].tolist() == [100.25, 7.0, 100.25]


def test_writer_refuses_a_file_that_is_no_scid_file(tmp_path: Path) -> None:
    path = tmp_path / "NQZ26-CME.scid"
    path.write_bytes(b"something else")
    with pytest.raises(ScidMalformed):
        ScidWriter.resume(path)
    with pytest.raises(ScidError, match="cannot be appended to"):
        ScidWriter.resume(tmp_path / "none.scid")
    assert path.read_bytes() == b"something else"


def test_full_disk_leaves_whole_records_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "NQZ26-CME.scid"
    writer = ScidWriter.create(path, made(1))
    write = os.write
    calls = iter([15])

    def short_then_full(descriptor: int, data: bytes) -> int:
        for length in calls:
            return write(descriptor, data[:length])
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched, pytest.raises(ScidError, match="No space left"):
        patched.setattr(os, "write", short_then_full)
        writer.append(made(4, 1))
    writer.append(made(4, 1))
    writer.close()
    assert path.read_bytes() == write_header() + made(5).tobytes()


def test_marker_reads_back_and_a_damaged_one_still_marks(tmp_path: Path) -> None:
    assert read_marker(tmp_path) is None
    assert read_marker(tmp_path / "none") is None
    write_marker(tmp_path, Marker({"MNQU21-CME.scid": 48_737}))
    assert read_marker(tmp_path) == Marker({"MNQU21-CME.scid": 48_737})
    (tmp_path / MARKER_NAME).write_bytes(b"\xff{")
    assert read_marker(tmp_path) == Marker()
