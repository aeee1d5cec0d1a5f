from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.e2e.running_mesh import Mesh, started
from tests.waiting import until

pytestmark = pytest.mark.timeout(90)


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mesh]:
    """A mesh whose state nobody else has changed."""
    with started(tmp_path_factory.mktemp("state") / "data") as made:
        yield made


def test_state_shows_every_key_and_who_changed_it_last(mesh: Mesh) -> None:
    assert mesh.json("state")["system_state"] == "SYSTEM_STATE_ONLINE"
    mesh.ok("state", "set", "order_quantity", "2", "--reason", "a larger size")
    try:
        shown = mesh.ok("state")
        assert "order_quantity" in shown
        assert shown.strip().endswith(": a larger size")
        assert mesh.json("state")["order_quantity"] == "2"
        assert "already" in mesh.ok("state", "set", "order_quantity", "2")
    finally:
        mesh.ok("state", "set", "order_quantity", "1", "--reason", "back")


def test_threshold_of_the_state_is_the_one_that_the_engine_shows(mesh: Mesh) -> None:
    before = mesh.json("state")["auto_threshold"]
    mesh.ok("state", "set", "auto_threshold", "0.93")
    try:
        until(lambda: mesh.json("mode")["auto_threshold"] == 0.93, "the engine follows the threshold")
    finally:
        mesh.ok("state", "set", "auto_threshold", str(before))


def test_auto_trade_off_is_shown_with_the_mode_and_trading_off_denies_an_order_by_name(mesh: Mesh) -> None:
    mesh.run("state", "set", "trading_enabled", "false").refused("auto_trade_enabled", "STATE_CONFLICT")
    mesh.ok("state", "set", "auto_trade_enabled", "false", "--reason", "a test")
    try:
        until(
            lambda: "auto_trade_enabled of the state is false" in mesh.ok("mode"), "the mode says why it does nothing"
        )
        mesh.ok("state", "set", "trading_enabled", "false", "--reason", "a test")
        denied = "trading_enabled of the state is false"

        def refused() -> bool:
            answer = mesh.run("order", "place", "buy", "5")
            return answer.code == 1 and denied in answer.err

        until(refused, "an order is denied by the state")
    finally:
        mesh.ok("state", "set", "trading_enabled", "true", "--reason", "back")
        mesh.ok("state", "set", "auto_trade_enabled", "true", "--reason", "back")
    until(lambda: mesh.json("mode")["signals_off_reason"] == "", "signals are acted on again")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("trading_enable", "true"), ("no key", "was trading_enabled meant?")),
        (("trading_enabled", "maybe"), ("'maybe'", "true and false")),
        (("auto_threshold", "0.4"), ("auto_threshold is 0.4", "0.5 to 1")),
        (("order_quantity", "-1"), ("'-1'", "1 to 100000")),
    ],
)
def test_bad_key_or_value_is_told_in_one_line(mesh: Mesh, arguments: tuple[str, str], words: tuple[str, ...]) -> None:
    mesh.run("state", "set", *arguments).refused(*words)
