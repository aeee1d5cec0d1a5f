"""Which contract is current is a rule: equal to a table that is made by other means, exact at every boundary."""

from __future__ import annotations

import calendar
import re
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import minhos_mesh
from minhos_mesh.market_data.domain.rollover import (
    ALERT_DAYS,
    DAY_NS,
    InstrumentUnknown,
    TimeOutOfReach,
    resolve,
    roll_of,
    schedule,
)
from minhos_mesh.runtime.instruments import DEFAULT_INSTRUMENTS
from minhos_mesh.runtime.symbols import parse_symbol

YEARS = range(2020, 2031)
LETTERS = {3: "H", 6: "M", 9: "U", 12: "Z"}
SPECS = DEFAULT_INSTRUMENTS


def ns(*at: int) -> int:
    return int(datetime(*at, tzinfo=UTC).timestamp()) * 1_000_000_000  # type: ignore[misc, arg-type] # year to minute


def table() -> list[tuple[str, datetime, date]]:
    """Contract, roll instant and expiry of each quarter, by the weeks of the calendar module."""
    rows = []
    for year in YEARS:
        for month, letter in LETTERS.items():
            fridays = [week[calendar.FRIDAY] for week in calendar.monthcalendar(year, month) if week[calendar.FRIDAY]]
            expiry = date(year, month, fridays[2])
            roll = datetime.combine(expiry, datetime.min.time(), UTC) - timedelta(days=10)
            rows.append((f"{letter}{year % 100}", roll, expiry))
    return rows


@pytest.mark.parametrize("root", ["NQ", "ES", "MNQ", "MES", "YM", "RTY"])
def test_eleven_years_of_rolls_equal_an_independent_table(root: str) -> None:
    spec = SPECS[root]
    rolls = schedule(spec, ns(2020, 1, 1), len(table()))
    assert [(str(roll.symbol), roll.roll_ns, roll.expiry) for roll in rolls] == [
        (f"{root}{contract}-{spec.exchange}", int(at.timestamp()) * 1_000_000_000, expiry)
        for contract, at, expiry in table()
    ]


def test_every_hour_of_a_year_of_rolls_has_the_contract_of_the_table() -> None:
    for (before, roll, _), (after, _, _) in zip(table(), table()[1:], strict=False):
        for hours in range(-30, 31):
            at = roll + timedelta(hours=hours)
            expected = before if at < roll else after
            found = resolve("NQ", int(at.timestamp()) * 1_000_000_000, SPECS)
            assert str(found.symbol) == f"NQ{expected}-CME", at


def test_the_roll_instant_itself_belongs_to_the_next_contract() -> None:
    for contract, roll, _ in table()[:-1]:
        at_ns = int(roll.timestamp()) * 1_000_000_000
        last, first = resolve("ES-CME", at_ns - 1, SPECS), resolve("ES-CME", at_ns, SPECS)
        assert (last.symbol.contract, first.symbol) == (f"ES{contract}", roll_of(last.symbol).next)
        assert first.roll is not None
        assert first.roll.current_from_ns == at_ns


@given(st.integers(ns(1971, 1, 1), ns(2098, 12, 31)))
def test_at_any_time_exactly_one_contract_is_current(at_ns: int) -> None:
    roll = resolve("NQ", at_ns, SPECS).roll
    assert roll is not None
    assert roll.current_from_ns <= at_ns < roll.roll_ns


@pytest.mark.parametrize(
    ("at", "contract"),
    [
        ((2025, 9, 8, 23, 59), "U25"),
        ((2025, 9, 9), "Z25"),
        ((2024, 12, 9, 23, 59), "Z24"),
        ((2024, 12, 10), "H25"),
        ((2026, 12, 7, 23, 59), "Z26"),
        ((2026, 12, 8), "H27"),
        ((2026, 12, 31, 23, 59), "H27"),
    ],
)
def test_known_rolls(at: tuple[int, ...], contract: str) -> None:
    assert resolve("NQ", ns(*at), SPECS).symbol.contract == f"NQ{contract}"


@pytest.mark.parametrize(
    ("first_day", "year", "month"), [("Friday", 2024, 3), ("Saturday", 2025, 3), ("Friday", 2023, 9)]
)
def test_months_that_begin_on_a_friday_or_saturday(first_day: str, year: int, month: int) -> None:
    assert date(year, month, 1).strftime("%A") == first_day
    expiry = roll_of(parse_symbol(f"NQ{LETTERS[month]}{year % 100}-CME")).expiry
    assert expiry == date(year, month, 15 if first_day == "Friday" else 21)


def test_the_day_changes_at_midnight_utc_in_every_zone_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    import time

    for zone in ("America/Chicago", "Asia/Tokyo", "UTC"):
        monkeypatch.setenv("TZ", zone)
        time.tzset()
        assert resolve("NQ", ns(2025, 9, 9) - 1, SPECS).symbol.contract == "NQU25"
        assert resolve("NQ", ns(2025, 9, 9), SPECS).symbol.contract == "NQZ25"
    monkeypatch.undo()
    time.tzset()


def test_what_the_former_configuration_said_is_shown_and_not_used() -> None:
    rolls = schedule(SPECS["NQ"], ns(2025, 7, 1), 4)
    assert [roll.former for roll in rolls] == [date(2025, 9, 5), date(2025, 12, 5), date(2026, 3, 5), date(2026, 6, 5)]
    assert [datetime.fromtimestamp(roll.roll_ns / 1e9, UTC).date() for roll in rolls] == [
        date(2025, 9, 9), date(2025, 12, 9), date(2026, 3, 10), date(2026, 6, 9),
    ]  # fmt: skip


def test_people_are_told_30_15_7_3_and_1_days_before() -> None:
    roll = resolve("NQ", ns(2025, 7, 1), SPECS).roll
    assert roll is not None
    told = {left: roll.alert_days(roll.roll_ns - left * DAY_NS) for left in (31, 30, 16, 15, 8, 7, 4, 3, 2, 1)}
    assert told == {31: None, 30: 30, 16: 30, 15: 15, 8: 15, 7: 7, 4: 7, 3: 3, 2: 3, 1: 1}
    assert (roll.alert_days(roll.roll_ns - 1), roll.alert_days(roll.roll_ns)) == (min(ALERT_DAYS), None)
    assert (roll.left_ns(roll.roll_ns - 1), roll.left_ns(roll.roll_ns + 1)) == (1, 0)


@pytest.mark.parametrize("text", ["NQU25-CME", "nqu25_fut_cme", "NQU25_CME"])
def test_a_contract_named_in_full_means_itself_at_any_time(text: str) -> None:
    for at in (ns(2020, 1, 1), ns(2030, 1, 1)):
        found = resolve(text, at, SPECS)
        assert (str(found.symbol), found.by_rule) == ("NQU25-CME", False)


@pytest.mark.parametrize("text", ["NQ", "nq", "NQ-CME", "NQ_CME"])
def test_a_product_means_the_contract_of_the_time(text: str) -> None:
    found = resolve(text, ns(2025, 7, 1), SPECS)
    assert (str(found.symbol), found.by_rule, found.spec.multiplier) == ("NQU25-CME", True, 20)


def test_an_index_has_no_contracts() -> None:
    found = resolve("VIX", ns(2025, 7, 1), SPECS)
    assert (str(found.symbol), found.roll, found.by_rule) == ("VIX-CGI", None, False)
    assert schedule(SPECS["VIX"], ns(2025, 7, 1), 4) == []


@pytest.mark.parametrize("text", ["", "ZZ", "NQQ-CME", "NQU25-CBOT", "VIXU25-CGI", "NQU25", "NQ-CBOT"])
def test_what_names_no_instrument_is_refused_with_what_is_known(text: str) -> None:
    with pytest.raises(InstrumentUnknown, match="known are ES, MES, MNQ, NQ, RTY, VIX, YM"):
        resolve(text, ns(2025, 7, 1), SPECS)


def test_a_time_without_contracts_is_refused() -> None:
    for at_ns in (-1, ns(2099, 1, 1)):
        with pytest.raises(TimeOutOfReach, match="1970-01-01 to 2098-12-31"):
            resolve("NQ", at_ns, SPECS)


def test_no_code_holds_a_contract_month() -> None:
    literal = re.compile(r"""["'](NQ|ES|MNQ|MES|YM|RTY)[FGHJKMNQUVXZ]\d{2}[-_"']""")
    found = [
        f"{path.name}: {line.strip()}"
        for path in Path(minhos_mesh.__path__[0]).rglob("*.py")
        for line in path.read_text(encoding="utf-8").splitlines()
        if literal.search(line)
    ]
    assert found == []
