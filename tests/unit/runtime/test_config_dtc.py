"""The tables `[dtc]` and `[engine]` where a DTC server is the venue."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from minhos_mesh.runtime.config import ConfigError, load, load_saved, save
from minhos_mesh.runtime.roles import contracts_of, running

TODAY = datetime(2026, 11, 20, tzinfo=UTC)
VENUE = {"engine": {"venue": "sierra_client"}}


def test_the_simulators_own_server_is_the_venue_where_none_is_named() -> None:
    config = load(None, environment={}, overrides={**VENUE, "feed": {"dtc_port": 11_099}}).resolved(TODAY)
    assert (config.dtc.port, config.dtc.account_is_ours) == (11_099, True)
    named = {**VENUE, "feed": {"dtc_port": 11_099}, "dtc": {"port": 11_100}}
    config = load(None, environment={}, overrides=named).resolved(TODAY)
    assert (config.dtc.port, config.dtc.account_is_ours) == (11_100, False)


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (VENUE, "dtc.port is missing"),
        ({**VENUE, "feed": {"dtc_port": 0}}, "dtc.port is missing"),
        ({**VENUE, "dtc": {"port": 1}, "sierra_client": {"provenance": "REPLAY"}}, "a replay is traded at"),
        ({"dtc": {"port": 0}}, "dtc.port is 0"),
        ({"dtc": {"heartbeat_s": 4}}, "dtc.heartbeat_s is 4"),
        ({"dtc": {"encoding": "xml"}}, "dtc.encoding is 'xml'"),
        ({"dtc": {"symbol": "NQ"}}, "allowed is a text with {contract} and {exchange} in it, seen 'NQ'"),
        ({"dtc": {"symbol": "{contrakt}"}}, "seen '{contrakt}'"),
        ({"dtc": {"account_is_simulated": True}}, "needs a trade_account whose name begins with Sim, seen ''"),
        (
            {"market_data": {"symbols": ["NQZ26-CME"]}, "dtc": {"market_data": ["ESZ26-CME"]}},
            "dtc.market_data names 'ESZ26-CME': allowed are those of market_data.symbols (NQZ26-CME)",
        ),
        ({"dtc": {"password": "x"}}, "dtc.password is no key of the configuration; was password_file meant?"),
    ],
)
def test_mistakes_are_told_with_what_is_allowed(overrides: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(None, environment={}, overrides=overrides)
    assert words in str(caught.value)


SOURCES = [
    ({"dtc": {"market_data": ["{}"]}}, "dtc.market_data names '{}'"),
    ({"bridge": {"address": "127.0.0.1:8765", "symbols": ["{}"]}}, "bridge.symbols names '{}'"),
    ({"market_data": {"primary": "{}"}}, "market_data.primary is '{}'"),
]


def naming(overrides: Any, symbol: str) -> Any:
    if isinstance(overrides, dict):
        return {key: naming(value, symbol) for key, value in overrides.items()}
    return [naming(each, symbol) for each in overrides] if isinstance(overrides, list) else overrides.format(symbol)


@pytest.mark.parametrize(("overrides", "words"), SOURCES)
def test_symbols_that_are_named_are_those_that_the_mesh_has_when_none_are_configured(
    overrides: dict[str, Any], words: str, tmp_path: Path
) -> None:
    config = load(None, environment={}, overrides=naming(overrides, "NQZ26-CME")).resolved(TODAY)
    assert config.symbols() == ("NQZ26-CME",)
    save(config, tmp_path / "config.json")
    assert load_saved(tmp_path / "config.json") == config
    for other in ("NQH27-CME", "NQ"):
        with pytest.raises(ConfigError) as caught:
            load(None, environment={}, overrides=naming(overrides, other)).resolved(TODAY)
        assert words.format(other) in str(caught.value)
        assert "market_data.symbols (NQZ26-CME)" in str(caught.value)


def test_commission_is_a_decimal_that_is_saved_and_loaded_exactly(tmp_path: Path) -> None:
    config = load(None, environment={"MINHOS_DTC__COMMISSION": "2.041"}).resolved(TODAY)
    assert config.dtc.commission == 2_041_000_000
    save(config, tmp_path / "config.json")
    assert load_saved(tmp_path / "config.json") == config


def test_market_data_in_the_environment_is_separated_by_commas() -> None:
    environment = {
        "MINHOS_MARKET_DATA__SYMBOLS": "NQZ26-CME,ESZ26-CME",
        "MINHOS_DTC__MARKET_DATA": "NQZ26-CME,ESZ26-CME",
    }
    assert load(None, environment=environment).dtc.market_data == ("NQZ26-CME", "ESZ26-CME")


@pytest.mark.parametrize(
    ("overrides", "left_out"),
    [
        ({}, set()),
        ({"feed": {"kind": "none"}}, {"sierra_simulator"}),
        ({**VENUE, "dtc": {"port": 1}}, {"paper_venue"}),
    ],
)
def test_what_runs_is_what_the_configuration_asks_for(overrides: dict[str, Any], left_out: set[str]) -> None:
    config, whole = load(None, environment={}, overrides=overrides), load(None, environment={})
    assert set(running(whole)) - set(running(config)) == left_out
    assert ("venue.v1.VenueService" in contracts_of("sierra_client", config)) == ("paper_venue" in left_out)
    assert "venue.v1.VenueService" not in contracts_of("sierra_client")
