"""The engine of the registry's store as it is configured."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from minhos_mesh.runtime.config import ConfigError, load, load_saved, save
from minhos_mesh.runtime.config_sections import RegistrySection


def read(tmp_path: Path, text: str) -> RegistrySection:
    file = tmp_path / "minhos.toml"
    file.write_text(f"[registry]\n{text}\n", encoding="utf-8")
    return load(file, environment={}).registry


def test_one_machine_needs_nothing(tmp_path: Path) -> None:
    assert read(tmp_path, "").store == "sqlite"


def test_etcd_is_chosen_with_its_endpoints(tmp_path: Path) -> None:
    found = read(tmp_path, 'store = "etcd"\nendpoints = ["127.0.0.1:2379", "etcd.lan:2379"]\nprefix = "a/b-1"')
    assert (found.store, found.endpoints, found.prefix) == ("etcd", ("127.0.0.1:2379", "etcd.lan:2379"), "a/b-1")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('store = "consul"', ["registry.store is 'consul'", "'sqlite' or 'etcd'"]),
        ('store = "etcd"', ["registry: endpoints is missing", "127.0.0.1:2379"]),
        ('endpoints = ["127.0.0.1:2379"]', ["registry: endpoints is ['127.0.0.1:2379']", 'only with store = "etcd"']),
        ('store = "etcd"\nendpoints = ["http://a:2379"]', ["registry.endpoints", "host:port", "'http://a:2379'"]),
        ('store = "etcd"\nendpoints = ["a"]', ["registry.endpoints", "'a'"]),
        ('store = "etcd"\nendpoints = ["a:99999"]', ["registry.endpoints", "'a:99999'"]),
        ('store = "etcd"\nendpoints = ["a:1", "a:1"]', ["registry.endpoints", "each address may stand once"]),
        ('store = "etcd"\nendpoints = ["a:1"]\nprefix = "/x"', ["registry.prefix is '/x'"]),
        ("store_timeout_s = 0", ["registry.store_timeout_s is 0"]),
        ('peers = ["here"]', ["registry.peers", "'here'"]),
    ],
)
def test_mistakes_are_told_with_what_is_allowed(tmp_path: Path, text: str, words: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, text)
    assert not [word for word in words if word not in str(caught.value)], str(caught.value)


def test_the_environment_separates_addresses_by_commas() -> None:
    environment: dict[str, Any] = {"MINHOS_REGISTRY__STORE": "etcd", "MINHOS_REGISTRY__ENDPOINTS": "a:1,b:2"}
    assert load(None, environment=environment).registry.endpoints == ("a:1", "b:2")


def test_the_choice_survives_the_run_folder(tmp_path: Path) -> None:
    chosen = load(None, environment={}, overrides={"registry": {"store": "etcd", "endpoints": ["a:1"]}})
    save(chosen, tmp_path / "config.json")
    assert load_saved(tmp_path / "config.json").registry == chosen.registry
