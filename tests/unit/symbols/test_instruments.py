from __future__ import annotations

import pytest

from minhos_mesh.runtime.instruments import DEFAULT_INSTRUMENTS, InstrumentError, spec_for, with_configured
from minhos_mesh.runtime.symbols import parse_symbol


@pytest.mark.parametrize(
    ("root", "tick_e9", "multiplier"),
    [("NQ", 250_000_000, 20), ("ES", 250_000_000, 50), ("MNQ", 250_000_000, 2), ("MES", 250_000_000, 5),
     ("YM", 1_000_000_000, 5), ("RTY", 100_000_000, 50)],
)  # fmt: skip
def test_known_futures_have_their_tick_and_multiplier(root: str, tick_e9: int, multiplier: int) -> None:
    spec = DEFAULT_INSTRUMENTS[root]
    assert (spec.tick_e9, spec.multiplier, spec.currency, spec.tradeable) == (tick_e9, multiplier, "USD", True)


def test_index_is_quoted_and_not_traded() -> None:
    assert not spec_for(parse_symbol("VIX-CGI")).tradeable


def test_unknown_root_names_those_that_are_known() -> None:
    with pytest.raises(InstrumentError, match="'XX' is unknown.*known are ES, MES"):
        spec_for(parse_symbol("XXZ26-CME"))


def test_configuration_changes_only_what_it_names() -> None:
    specs = with_configured({"NQ": {"tick": "0.5"}, "CL": {"tick": 0.01, "multiplier": 1000, "exchange": "NYMEX"}})
    assert specs["NQ"].tick_e9 == 500_000_000
    assert specs["NQ"].multiplier == 20
    assert (specs["CL"].tick_e9, specs["CL"].currency, specs["CL"].exchange) == (10_000_000, "USD", "NYMEX")
    assert DEFAULT_INSTRUMENTS["NQ"].tick_e9 == 250_000_000


@pytest.mark.parametrize(
    ("root", "values", "message"),
    [
        ("NQ", {"tik": 1}, r"instruments.NQ.tik is no key: allowed are tick"),
        ("NQ", {"tick": 0}, r"instruments.NQ.tick is 0: allowed is a decimal above 0"),
        ("NQ", {"tick": "abc"}, r"instruments.NQ.tick"),
        ("NQ", {"multiplier": 0}, r"instruments.NQ.multiplier is 0: allowed is a whole number"),
        ("NQ", {"multiplier": True}, r"instruments.NQ.multiplier is True"),
        ("NQ", {"currency": ""}, r"instruments.NQ.currency is ''"),
        ("NQ", {"tradeable": "yes"}, r"instruments.NQ.tradeable is 'yes': allowed are true and false"),
        ("CL", {"tick": "0.01"}, r"instruments.CL is new and lacks multiplier, exchange"),
    ],
)
def test_wrong_configuration_names_key_value_and_what_is_allowed(
    root: str, values: dict[str, object], message: str
) -> None:
    with pytest.raises(InstrumentError, match=message):
        with_configured({root: values})
