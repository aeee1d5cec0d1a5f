from __future__ import annotations

from datetime import date
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minhos_mesh.sierra_files.daily import DailyBar, DailyFile, parse_daily, read_daily
from minhos_mesh.sierra_files.header import ScidError, ScidIncomplete, ScidMalformed, ScidMissing

HEADER = "Date,  Open,  High,  Low,  Close,  Volume, OpenInterest\n"
LINES = "2021/05/18, 13250.00, 13280.25, 13200.5, 13210.75, 512345, 230000\n2021/05/19, 13211, 13270.25, 13000, 13250.75, 600000, \n"


def read(text: str) -> DailyFile:
    return parse_daily(text.encode("latin-1"), "NQ.dly")


def test_bars_are_exact_and_an_absent_number_is_none() -> None:
    found = read(HEADER + LINES)
    assert found.bars[0] == DailyBar(
        day=date(2021, 5, 18), open_e9=13_250_000_000_000, high_e9=13_280_250_000_000, low_e9=13_200_500_000_000,
        close_e9=13_210_750_000_000, volume=512_345, open_interest=230_000,
    )  # fmt: skip
    assert found.bars[1].open_interest is None
    assert found.refused == 0


@pytest.mark.parametrize("delimiter", [",", "\t", ";"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_delimiters_and_ends_of_lines_vary(delimiter: str, end: str) -> None:
    text = (HEADER + LINES).replace(",", delimiter).replace("\n", end)
    assert read(text).bars == read(HEADER + LINES).bars


def test_columns_are_found_by_name_in_any_order_and_volume_may_be_absent() -> None:
    found = read("Close;Date;Low;High;Open\n13210.75;2021/5/18;13200.5;13280.25;13250.00\n")
    assert (found.bars[0].day, found.bars[0].close_e9, found.bars[0].volume) == (
        date(2021, 5, 18),
        13_210_750_000_000,
        None,
    )
    assert read("Date,Open,High,Low,Last\n2021/05/18,1,2,1,2\n").bars[0].close_e9 == 2_000_000_000


def test_line_that_is_still_being_written_is_left() -> None:
    assert len(read(HEADER + LINES + "2021/05/20, 13250.00, 1328").bars) == 2


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("2021/13/01, 1, 2, 1, 2, 3, 4", "month must be in 1..12"),
        ("18.05.2021, 1, 2, 1, 2, 3, 4", "date is '18.05.2021'"),
        ("2021/05/20, 1, 2, 1", "has 4 columns"),
        ("2021/05/20, one, 2, 1, 2, 3, 4", "open: is not a decimal number"),
        ("2021/05/20, 0, 2, 0, 2, 3, 4", "open is '0', which is no price"),
        ("2021/05/20, -1, 2, -1, 2, 3, 4", "which is no price"),
        ("2021/05/20, 1, 2, 1.5, 2, 3, 4", "low above"),
        ("2021/05/20, 1, 2, 1, 2, many, 4", "volume is 'many'"),
        ("2021/05/20, 1, 2, 1, 2, 1.5, 4", "volume is '1.5'"),
        ("2021/05/19, 1, 2, 1, 2, 3, 4", "2021-05-19 is not after 2021-05-19"),
        ("2021/05/20, nan, nan, nan, nan, 3, 4", "open: is not a decimal number"),
        ("2021/05/20, 1e300, 1e300, 1, 2, 3, 4", "is not a decimal number"),
    ],
)
def test_line_that_is_no_bar_is_left_out_counted_and_named(line: str, problem: str) -> None:
    found = read(HEADER + LINES + line + "\n")
    assert (len(found.bars), found.refused) == (2, 1)
    assert found.problems[0].startswith("line 4: ")
    assert problem in found.problems[0]


@pytest.mark.parametrize(
    ("text", "volume"), [("600000.0", 600_000), ("6.5e+05", 650_000), ("1E6", 1_000_000), ("", None)]
)
def test_volume_is_a_whole_number_however_it_is_written(text: str, volume: int | None) -> None:
    assert read(HEADER + f"2021/05/20, 1, 2, 1, 2, {text}, 4\n").bars[0].volume == volume


@pytest.mark.parametrize(
    ("data", "error", "message"),
    [
        (b"", ScidIncomplete, "no whole header line"),
        (b"Date,Open", ScidIncomplete, "no whole header line"),
        (b"SCID\x38\0\0\0\n", ScidMalformed, "no column date, open"),
        (b"Date,Open,High\n", ScidMalformed, "no column low, close"),
    ],
)
def test_what_is_no_daily_file_is_named(data: bytes, error: type[ScidError], message: str) -> None:
    with pytest.raises(error, match=message):
        parse_daily(data, "NQ.dly")


def test_file_is_read_and_a_missing_one_is_named(tmp_path: Path) -> None:
    path = tmp_path / "NQ.dly"
    with pytest.raises(ScidMissing, match="does not exist"):
        read_daily(path)
    with pytest.raises(ScidError, match="cannot be read"):
        read_daily(tmp_path)
    path.write_bytes(b"\xef\xbb\xbf" + (HEADER + LINES).encode())
    assert len(read_daily(path).bars) == 2


@given(st.binary(max_size=300))
def test_any_bytes_are_bars_or_a_named_error(data: bytes) -> None:
    try:
        found = parse_daily(HEADER.encode() + data, "NQ.dly")
    except ScidError as error:
        assert "NQ.dly" in str(error)  # noqa: PT017 - some inputs are errors, others are not
    else:
        assert all(bar.low_e9 > 0 for bar in found.bars)
