from __future__ import annotations

from datetime import date, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minhos_mesh.runtime.symbols import (
    MONTH_LETTERS,
    QUARTER_MONTHS,
    Symbol,
    SymbolError,
    current_contract,
    date_of_ns,
    expiry_date,
    next_contract,
    parse_symbol,
    roll_date,
    symbol_of_file,
    third_friday,
)

ROLLS = {
    (2025, 9): date(2025, 9, 9),
    (2025, 12): date(2025, 12, 9),
    (2026, 3): date(2026, 3, 10),
    (2026, 6): date(2026, 6, 9),
    (2026, 9): date(2026, 9, 8),
    (2026, 12): date(2026, 12, 8),
}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("NQZ26-CME", Symbol("NQ", "CME", 12, 2026)),
        ("MNQU21-CME", Symbol("MNQ", "CME", 9, 2021)),
        ("nqu25_cme", Symbol("NQ", "CME", 9, 2025)),
        ("MESU24_FUT_CME", Symbol("MES", "CME", 9, 2024)),
        ("6EH27-CME", Symbol("6E", "CME", 3, 2027)),
        ("VIX_CGI", Symbol("VIX", "CGI")),
        ("$VIX-CGI", Symbol("VIX", "CGI")),
    ],
)
def test_symbol_and_its_aliases_are_one_value(text: str, expected: Symbol) -> None:
    assert parse_symbol(text) == expected


@pytest.mark.parametrize(
    "text", ["", "NQ", "NQA26-CME", "NQZ2026", "NQZ26", "../NQZ26-CME", "NQZ26-CME;", "-CME", "NQZ26-"]
)
def test_what_is_no_symbol_is_refused_with_what_is_allowed(text: str) -> None:
    with pytest.raises(SymbolError, match="expected ROOT"):
        parse_symbol(text)


@given(
    root=st.from_regex(r"[A-Z][A-Z0-9]{0,4}", fullmatch=True),
    month=st.integers(1, 12),
    year=st.integers(2000, 2099),
    exchange=st.sampled_from(["CME", "CBOT", "NYMEX", "EUREX"]),
)
def test_canonical_text_reads_back_as_the_same_symbol(root: str, month: int, year: int, exchange: str) -> None:
    symbol = Symbol(root, exchange, month, year)
    assert parse_symbol(str(symbol)) == symbol


def test_file_name_gives_the_symbol() -> None:
    assert str(symbol_of_file("/data/MNQU21-CME.scid")) == "MNQU21-CME"
    assert str(symbol_of_file("C:\\SierraChart\\Data\\MNQU21-CME.scid")) == "MNQU21-CME"
    with pytest.raises(SymbolError, match="extension"):
        symbol_of_file("MNQU21-CME")


@pytest.mark.parametrize(("contract", "expected"), ROLLS.items())
def test_roll_is_ten_days_before_the_third_friday(contract: tuple[int, int], expected: date) -> None:
    year, month = contract
    assert roll_date(Symbol("NQ", "CME", month, year)) == expected


@given(st.integers(2000, 2099), st.integers(1, 12))
def test_third_friday_is_a_friday_between_15_and_21(year: int, month: int) -> None:
    found = third_friday(year, month)
    assert found.weekday() == 4
    assert 15 <= found.day <= 21


def test_month_that_begins_on_friday_or_saturday() -> None:
    assert third_friday(2026, 5) == date(2026, 5, 15)
    assert third_friday(2026, 8) == date(2026, 8, 21)


def test_contract_changes_exactly_on_the_roll_date() -> None:
    roll = roll_date(Symbol("NQ", "CME", 9, 2025))
    assert str(current_contract("NQ", "CME", roll - timedelta(days=1))) == "NQU25-CME"
    assert str(current_contract("NQ", "CME", roll)) == "NQZ25-CME"


def test_december_rolls_into_march_of_the_next_year() -> None:
    assert str(current_contract("NQ", "CME", date(2025, 12, 8))) == "NQZ25-CME"
    assert str(current_contract("NQ", "CME", date(2025, 12, 9))) == "NQH26-CME"


@given(st.dates(date(2000, 1, 1), date(2098, 12, 31)))
def test_current_contract_is_the_one_between_two_rolls(on: date) -> None:
    current = current_contract("ES", "CME", on)
    assert on < roll_date(current)
    assert current.month in QUARTER_MONTHS
    previous = [
        Symbol("ES", "CME", month, year)
        for year in (on.year - 1, on.year, on.year + 1)
        for month in QUARTER_MONTHS
        if next_contract(Symbol("ES", "CME", month, year)) == current
    ]
    assert len(previous) == 1
    assert roll_date(previous[0]) <= on


def test_index_has_no_expiry_and_no_next_contract() -> None:
    vix = parse_symbol("VIX-CGI")
    assert str(vix) == "VIX-CGI"
    assert not vix.is_future
    with pytest.raises(SymbolError, match="no future"):
        expiry_date(vix)
    with pytest.raises(SymbolError, match="no future"):
        next_contract(vix)


def test_date_of_a_time_is_taken_in_utc() -> None:
    assert date_of_ns(1_609_459_199_999_999_999) == date(2020, 12, 31)
    assert date_of_ns(1_609_459_200_000_000_000) == date(2021, 1, 1)
    assert len(MONTH_LETTERS) == 12
