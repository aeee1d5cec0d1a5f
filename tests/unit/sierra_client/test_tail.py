from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minhos_mesh.sierra_client.tail import GenerationLost, ScidTail
from minhos_mesh.sierra_files.header import write_header
from minhos_mesh.sierra_files.layout import Records
from minhos_mesh.sierra_files.reader import ScidFile
from minhos_mesh.sierra_files.writer import ScidWriter

Made = Callable[..., Records]

COUNT = 60


@settings(max_examples=60)
@given(data=st.data())
def test_same_ticks_whole_or_tailed_in_chunks_or_through_restarts(made: Made, data: st.DataObject) -> None:
    content = made(COUNT).tobytes()
    cuts = sorted(data.draw(st.lists(st.integers(0, len(content)), max_size=12)))
    got: list[bytes] = []
    with TemporaryDirectory() as folder:
        path = Path(folder) / "NQZ26-CME.scid"
        path.write_bytes(write_header())
        file = ScidFile(path)
        tail = ScidTail(file, hold_last_bar=False)
        at = 0
        for cut in [*cuts, len(content)]:
            with path.open("ab") as grow:
                grow.write(content[at:cut])
            at = cut
            while len(found := tail.read(data.draw(st.integers(1, 30)))):
                got.append(found.tobytes())
            if data.draw(st.booleans()):
                position = tail.index
                file.close()
                file = ScidFile(path)
                tail = ScidTail(file, hold_last_bar=False)
                tail.seek(position)
        file.close()
    assert b"".join(got) == content


@pytest.fixture
def path(tmp_path: Path, made: Made) -> Path:
    found = tmp_path / "NQZ26-CME.scid"
    ScidWriter.create(found, made(10)).close()
    return found


def tail_at(path: Path, index: int, *, hold: bool = False) -> ScidTail:
    tail = ScidTail(ScidFile(path), hold_last_bar=hold)
    tail.seek(index)
    return tail


def test_truncated_file_is_lost(path: Path) -> None:
    tail = tail_at(path, 10)
    os.truncate(path, 56 + 4 * 40)
    with pytest.raises(GenerationLost, match="was truncated: it holds 4 records, 10 were read"):
        tail.read(5)


def test_position_behind_the_end_is_lost(path: Path) -> None:
    with pytest.raises(GenerationLost, match="holds 10 records, 11 were read"):
        tail_at(path, 11)


def test_replaced_file_is_lost_once_the_old_one_is_read(path: Path, made: Made) -> None:
    tail = tail_at(path, 8)
    ScidWriter.create(path, made(3)).close()
    assert len(tail.read(5)) == 2
    with pytest.raises(GenerationLost, match="was replaced by another file"):
        tail.read(5)


def test_deleted_file_is_lost(path: Path) -> None:
    tail = tail_at(path, 10)
    path.unlink()
    with pytest.raises(GenerationLost, match="was deleted"):
        tail.read(5)


def test_file_rewritten_in_place_to_a_larger_one_is_lost(path: Path, made: Made) -> None:
    tail = tail_at(path, 10)
    path.write_bytes(write_header() + made(30, 1000).tobytes())
    with pytest.raises(GenerationLost, match="record 9 is another one now"):
        tail.read(5)


def bar(made: Made, close: float) -> Records:
    found = made(1, 10)
    found["open"], found["close"], found["num_trades"] = 99.0, close, 12
    return found


def test_bar_at_the_end_waits_until_the_next_record_begins(path: Path, made: Made) -> None:
    writer = ScidWriter.resume(path)
    tail = tail_at(path, 9, hold=True)
    writer.append(bar(made, 101.0))
    assert len(tail.read(10)) == 1
    assert len(tail.read(10)) == 0
    writer.rewrite_last(bar(made, 102.0))
    writer.append(made(1, 11))
    assert tail.read(10)["close"].tolist() == [102.0, np.float32(102.75)]
    writer.close()


def test_bar_at_the_end_is_read_at_once_where_nobody_rewrites(path: Path, made: Made) -> None:
    writer = ScidWriter.resume(path)
    writer.append(bar(made, 101.0))
    writer.close()
    assert len(tail_at(path, 10).read(10)) == 1


def test_identity_knows_the_first_record(tmp_path: Path, made: Made) -> None:
    path = tmp_path / "NQZ26-CME.scid"
    writer = ScidWriter.create(path)
    tail = ScidTail(ScidFile(path), hold_last_bar=False)
    assert tail.identity().first_record is None
    writer.append(made(1))
    writer.close()
    assert tail.identity().first_record == made(1).tobytes()
    assert tail.count() == 1
