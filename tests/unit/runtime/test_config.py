"""The configuration: what is taken, what is refused, and in which words."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from minhos_mesh.runtime.config import ConfigError, MeshConfig, load, load_saved, save
from minhos_mesh.runtime.money import E9

TODAY = datetime(2026, 11, 20, tzinfo=UTC)


def written(folder: Path, text: str) -> Path:
    path = folder / "minhos.toml"
    path.write_text(text, encoding="utf-8")
    return path


def refused(path: Path | None = None, **rest: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        load(path, environment=rest.get("environment", {}), overrides=rest.get("overrides"))
    return str(caught.value)


def test_a_journal_without_limits_has_none_for_what_is_not_acknowledged_either() -> None:
    bus = load(None, environment={}, overrides={"event_bus": {"max_mb": 0, "max_age_h": 0}}).event_bus
    assert (bus.unacked_max_mb, bus.unacked_max_age_h) == (0, 0)
    with pytest.raises(ConfigError, match="unacked_max_mb is 5: allowed is max_mb"):
        load(None, environment={}, overrides={"event_bus": {"max_mb": 10, "unacked_max_mb": 5}})


def test_nothing_configured_is_a_whole_configuration() -> None:
    config = load(None, environment={})
    assert config == MeshConfig()
    assert config.mesh.bind == "127.0.0.1"
    assert config.risk.max_daily_loss == 5000 * E9


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[risk]\nmax_positon = 3", ["risk.max_positon is no key", "was max_position meant?"]),
        ("[rsik]\nmax_position = 3", ["rsik is no key", "was risk meant?"]),
        ("[risk]\nzzzz = 3", ["risk.zzzz is no key", "allowed are", "max_position"]),
        ("[risk]\nmax_position = 0", ["risk.max_position is 0", "greater than or equal to 1"]),
        ("[risk]\nmax_position = 'many'", ["risk.max_position is 'many'", "a whole number is needed"]),
        (
            "[services.mine]\ncommand = 'serve --fast'",
            [
                "services.mine.command is 'serve --fast': a list in square brackets is needed, for example ['serve --fast']"
            ],
        ),
        ("[services.mine]\ncommand = [1]", ["services.mine.command.0 is 1: a text in quotes is needed"]),
        ("[services.mine]\ncommand = ['x']\nattaches = 'maybe'", ["attaches is 'maybe': true or false is needed"]),
        ("risk = true", ["risk is true: a table is needed"]),
        ("[risk]\nmax_daily_loss = 'lots'", ["risk.max_daily_loss", "not a decimal number", "'lots'"]),
        ("[risk]\nmax_daily_loss = -5", ["risk.max_daily_loss is -5", "greater than 0"]),
        ("[feed]\nkind = 'life'", ["feed.kind is 'life'", "'simulated'", "'replay'"]),
        ("[feed]\nspeed = -1.0", ["feed", "speed is -1.0", "above 0"]),
        ("[engine]\nauto_threshold = 0.2", ["engine.auto_threshold is 0.2", "0.5"]),
        ("[brain]\nfast_bars = 30", ["brain", "fast_bars is 30", "less than slow_bars (20)"]),
        ("[market_data]\nsymbols = ['NQ99']", ["NQ99"]),
        ("[market_data]\nsymbols = ['XXZ26-CME']", ["XX", "known are"]),
        (
            "[market_data]\nsymbols = ['NQZ26-CME']\nprimary = 'ESZ26-CME'",
            ["market_data.primary is 'ESZ26-CME'", "NQZ26-CME"],
        ),
        ("[instruments.NQ]\ntick = 'abc'", ["tick", "abc"]),
        ("[risk\nmax", ["is not TOML"]),
    ],
)
def test_mistake_in_the_file_is_told_with_file_key_and_what_is_allowed(
    tmp_path: Path, text: str, words: list[str]
) -> None:
    path = written(tmp_path, text)
    told = refused(path)
    assert told.startswith(f"{path}: ")
    assert all(word in told for word in words), told


def test_every_mistake_is_told_at_once(tmp_path: Path) -> None:
    told = refused(written(tmp_path, "[risk]\nmax_position = 0\nmax_positon = 1\n[log]\nlevel = 'loud'"))
    assert len(told.splitlines()) == 3


def test_missing_file_is_told(tmp_path: Path) -> None:
    assert "there is no such file" in refused(tmp_path / "none.toml")


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ({"MINHOS_RSIK__MAX_POSITION": "3"}, ["environment MINHOS_RSIK__MAX_POSITION", "was risk meant?"]),
        ({"MINHOS_RISK__MAX_POSITON": "3"}, ["risk.max_positon is no key", "was max_position meant?"]),
        ({"MINHOS_RISK__MAX_POSITION": "0"}, ["risk.max_position is '0'"]),
        ({"MINHOS_MESH__BIND": "0.0.0.0"}, ["mesh.bind", "only loopback", "'0.0.0.0'"]),
        ({"MINHOS_FEED__KIND": "replay"}, ["feed", "file is missing"]),
    ],
)
def test_mistake_in_the_environment_is_told_in_the_same_words(environment: dict[str, str], words: list[str]) -> None:
    told = refused(environment=environment)
    assert all(word in told for word in words), told


def test_environment_lies_over_the_file_and_overrides_over_both(tmp_path: Path) -> None:
    path = written(tmp_path, "[risk]\nmax_position = 1\nmax_open_positions = 1\nmax_order_quantity = 1")
    config = load(
        path,
        environment={"MINHOS_RISK__MAX_POSITION": "2", "MINHOS_RISK__MAX_OPEN_POSITIONS": "2", "HOME": "/x"},
        overrides={"risk": {"max_open_positions": 3}},
    )
    assert (config.risk.max_order_quantity, config.risk.max_position, config.risk.max_open_positions) == (1, 2, 3)


def test_symbols_in_the_environment_are_separated_by_commas() -> None:
    config = load(None, environment={"MINHOS_MARKET_DATA__SYMBOLS": "NQZ26-CME,ESZ26-CME"})
    assert config.symbols() == ("NQZ26-CME", "ESZ26-CME")


def test_environment_of_the_process_counts_when_none_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("MINHOS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("MINHOS_RISK__MAX_POSITION", "9")
    assert load(None).risk.max_position == 9


@pytest.mark.parametrize("bind", ["127.0.0.1", "127.3.2.1", "::1"])
def test_loopback_may_be_listened_on(bind: str) -> None:
    assert load(None, environment={}, overrides={"mesh": {"bind": bind}}).mesh.bind == bind


@pytest.mark.parametrize("bind", ["0.0.0.0", "192.168.1.5", "::", "localhost", ""])
def test_anything_but_loopback_is_refused(bind: str) -> None:
    told = refused(overrides={"mesh": {"bind": bind}})
    assert "mesh.bind" in told
    assert "loopback" in told
    assert repr(bind) in told


def test_replay_needs_its_file() -> None:
    assert "file is missing: a replay needs the path of a .scid file" in refused(overrides={"feed": {"kind": "replay"}})


def test_replay_takes_its_symbol_from_the_file_and_makes_all_clocks_event_time(tmp_path: Path) -> None:
    overrides = {"feed": {"kind": "replay", "file": str(tmp_path / "MNQU21-CME.scid"), "speed": "max"}}
    config = load(None, environment={}, overrides=overrides).resolved(TODAY)
    assert config.replay()
    assert config.symbols() == ("MNQU21-CME",)
    assert config.primary() == "MNQU21-CME"
    assert config.spec("MNQU21-CME").multiplier == 2


def test_replay_of_a_file_without_a_symbol_is_told(tmp_path: Path) -> None:
    config = load(None, environment={}, overrides={"feed": {"kind": "replay", "file": str(tmp_path / "x y.scid")}})
    with pytest.raises(ConfigError, match="no symbol can be told from the feed"):
        config.resolved(TODAY)


def test_walk_is_of_the_contract_that_is_current_on_the_day() -> None:
    config = load(None, environment={})
    assert config.resolved(datetime(2026, 11, 20, tzinfo=UTC)).symbols() == ("NQZ26-CME",)
    assert config.resolved(datetime(2027, 1, 5, tzinfo=UTC)).symbols() == ("NQH27-CME",)
    assert not config.resolved(TODAY).replay()


def test_unknown_product_of_the_walk_is_told_with_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="feed.root is 'QQ': allowed are .*NQ"):
        load(None, environment={}, overrides={"feed": {"root": "QQ"}}).resolved(TODAY)


def test_money_is_written_as_decimals_and_held_exactly(tmp_path: Path) -> None:
    config = load(
        written(tmp_path, "[paper_venue]\ncommission = '2.041'\n[risk]\nmax_daily_loss = 0.1"), environment={}
    )
    assert config.paper_venue.commission == 2_041_000_000
    assert config.risk.max_daily_loss == 100_000_000


def test_what_is_saved_is_loaded_again(tmp_path: Path) -> None:
    overrides = {
        "mesh": {"port": 4242},
        "feed": {"kind": "replay", "file": str(tmp_path / "MNQU21-CME.scid"), "speed": "max"},
        "paper_venue": {"commission": "0.000000001", "initial_cash": "12345.678"},
        "risk": {"max_exposure": "9223372036", "max_daily_loss": "0.5", "max_drawdown": "1.25"},
        "engine": {"mode": "MANUAL", "auto_threshold": 0.9},
        "instruments": {"ZN": {"tick": "0.015625", "multiplier": 1000, "currency": "USD", "exchange": "CBOT"}},
    }
    config = load(None, environment={}, overrides=overrides).resolved(TODAY)
    path = tmp_path / "config.json"
    save(config, path)
    assert load_saved(path) == config
    assert not path.with_suffix(".new").exists()


@pytest.mark.parametrize("text", ["", "{", "[]", '{"paper_venue": 3}', '{"risk": {"max_exposure": "x"}}'])
def test_broken_saved_configuration_is_told_without_a_traceback(tmp_path: Path, text: str) -> None:
    path = tmp_path / "config.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match="config.json"):
        load_saved(path)


def test_saved_configuration_of_before_a_key_existed_takes_its_default(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text('{"risk": {"max_exposure": 7000000000}}', encoding="utf-8")
    config = load_saved(path)
    assert config.risk.max_exposure == 7 * E9
    assert config.risk.max_daily_loss == MeshConfig().risk.max_daily_loss


def test_missing_saved_configuration_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read as the configuration of a mesh"):
        load_saved(tmp_path / "none.json")
