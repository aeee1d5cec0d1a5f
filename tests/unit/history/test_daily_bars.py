"""Daily bars of files: kept once, found by GetBars where no tick is held, and told with where they came from."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pytest
from tests.unit.history.making import NS
from tests.unit.history.test_import import scid

from minhos_mesh.history.asking import BarsWanted, Bookmark, SessionRule, bars
from minhos_mesh.history.daily import import_daily, read_held
from minhos_mesh.history.domain.series import HistoryError, Series
from minhos_mesh.history.domain.validation import Rules
from minhos_mesh.history.importing import import_scid
from minhos_mesh.history.parquet import FileBroken
from minhos_mesh.history.places import HistoryPlaces
from minhos_mesh.history.verifying import verify
from minhos_mesh.runtime.bar_spans import parse_span
from minhos_mesh.runtime.bars import Bar

SERIES = Series("DELAYED", "NQZ24-CME")
HEADER = "Date, Open, High, Low, Close, Volume, OpenInterest\n"
LINES = [
    "2024/10/02, 20000.25, 20100, 19900.5, 20050, 500000, 250000\n",
    "2024/10/03, 20050, 20120, 20000, 20010.75, 510000, 251000\n",
    "2024/10/04, 20010, 20200, 20000, 20150, , \n",
    "2024/10/07, 20150, 20160, 19950, 20000, 480000, 249000\n",
]
FRIDAY_OPEN_NS = 1_727_992_800 * NS
"""2024-10-03 17:00 in Chicago."""


@pytest.fixture
def places(tmp_path: Path) -> HistoryPlaces:
    return HistoryPlaces(tmp_path / "history")


def dly(folder: Path, *lines: str) -> Path:
    file = folder / "NQZ24-CME.dly"
    file.write_text(HEADER + "".join(lines or LINES), encoding="utf-8")
    return file


def days(places: HistoryPlaces, **wanted: object) -> list[Bar]:
    return bars(places, SERIES, BarsWanted(parse_span("1d"), "CME", **wanted)).bars  # type: ignore[arg-type] # by name


def test_a_file_is_imported_once_and_its_newest_word_on_a_day_counts(places: HistoryPlaces, tmp_path: Path) -> None:
    first = import_daily(places, SERIES, dly(tmp_path, *LINES[:3]))
    assert (first.read, first.added, first.known, first.changed, first.refused) == (3, 3, 0, 0, 0)
    before = places.daily(SERIES).read_bytes()
    assert import_daily(places, SERIES, dly(tmp_path, *LINES[:3])).known == 3
    assert places.daily(SERIES).read_bytes() == before
    settled = LINES[2].replace("20150, , ", "20149.5, 470000, 252000")
    grown = import_daily(places, SERIES, dly(tmp_path, LINES[1], settled, LINES[3], "2024/10/08, 1, x, 1, 1, 1, 1\n"))
    assert (grown.read, grown.added, grown.known, grown.changed, grown.refused) == (4, 1, 1, 1, 1)
    assert "line 5" in grown.problems[0]
    held = read_held(places, SERIES)
    assert [bar.day.day for bar in held.bars] == [2, 3, 4, 7]
    assert (held.bars[2].close_e9, held.bars[2].volume) == (20_149_500_000_000, 470_000)
    assert [(source["file"], source["days"]) for source in held.sources] == [("NQZ24-CME.dly", 3), ("NQZ24-CME.dly", 2)]
    assert verify(places, SERIES).problems == []


def test_days_without_a_tick_are_told_by_the_file_and_the_others_by_their_ticks(
    places: HistoryPlaces, tmp_path: Path
) -> None:
    import_daily(places, SERIES, dly(tmp_path))
    assert [(bar.trading_day.day, bar.close_e9 // NS) for bar in days(places)] == [
        (2, 20_050), (3, 20_010), (4, 20_150), (7, 20_000),
    ]  # fmt: skip
    file = scid(tmp_path / "NQZ24-CME.scid", [FRIDAY_OPEN_NS + n * 60 * NS for n in range(90)])
    import_scid(places, SERIES, file, Rules(tick_e9=250_000_000))
    found = bars(places, SERIES, BarsWanted(parse_span("1d"), "CME"))
    assert [bar.trading_day.day for bar in found.bars] == [2, 3, 4, 7]
    assert [bar.trades for bar in found.bars] == [0, 0, 90, 0]
    assert sorted(found.daily) == [date(2024, 10, day) for day in (2, 3, 7)]
    assert found.bars[2].open_time_ns == FRIDAY_OPEN_NS == found.bars[1].close_time_ns
    assert len(bars(places, SERIES, BarsWanted(parse_span("1h"), "CME")).bars) == 2


def test_days_are_told_in_pages_and_in_the_time_asked_for(places: HistoryPlaces, tmp_path: Path) -> None:
    import_daily(places, SERIES, dly(tmp_path))
    file = scid(tmp_path / "NQZ24-CME.scid", [FRIDAY_OPEN_NS + n * 60 * NS for n in range(90)])
    import_scid(places, SERIES, file, Rules(tick_e9=250_000_000))
    whole, paged, bookmark = days(places), list[Bar](), None
    while True:
        page = bars(places, SERIES, BarsWanted(parse_span("1d"), "CME", limit=1, bookmark=bookmark))
        paged += page.bars
        if page.next is None:
            break
        assert isinstance(page.next, Bookmark)
        bookmark = page.next
    assert paged == whole
    middle = days(places, start_ns=whole[1].open_time_ns, end_ns=whole[3].open_time_ns)
    assert middle == whole[1:3]
    always = days(places, rule=SessionRule.ALWAYS_OPEN)
    assert [bar.trading_day.day for bar in always] == [2, 3, 4, 7]


def test_what_holds_no_day_is_refused_and_a_broken_store_is_named(places: HistoryPlaces, tmp_path: Path) -> None:
    with pytest.raises(HistoryError, match="nothing to import"):
        import_daily(places, SERIES, dly(tmp_path, "nonsense\n"))
    import_daily(places, SERIES, dly(tmp_path))
    file = places.daily(SERIES)
    data = bytearray(file.read_bytes())
    data[len(data) // 3] ^= 0xFF
    file.write_bytes(data)
    with pytest.raises(FileBroken, match=r"daily\.parquet"):
        read_held(places, SERIES)
    assert len(verify(places, SERIES).problems) == 1
