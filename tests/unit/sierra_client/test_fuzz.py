"""A few random and damaged answers of the bridge each time; `python -m tests.fuzz.bridge` tries as many as one likes."""

from __future__ import annotations

import pytest
from tests.fuzz import bridge
from tests.fuzz.bridge import KINDS, main
from tests.fuzz.reporting import run

from minhos_mesh.sierra_client import bridge_quotes
from minhos_mesh.sierra_client.bridge_orders import TradeStatus


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_random_and_damaged_answers_crash_nothing_and_give_no_price_that_is_not_in_them(kind: str) -> None:
    report = run(kind, KINDS[kind], 400)
    assert not report.failed, report.text()
    assert sum(report.refused.values()) > 100
    assert kind == "orders" or (report.accepted > 20 and report.prices > report.accepted)


def test_a_price_that_is_one_step_off_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    real = bridge_quotes._price

    monkeypatch.setattr(bridge_quotes, "_price", lambda value, tick_e9, what: real(value, tick_e9, what) + tick_e9)
    assert run("quote", KINDS["quote"], 100).wrong_prices > 0


def test_a_believed_order_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bridge, "judge_trade_status", lambda *_: (TradeStatus.UNPROVEN, ""))
    assert run("orders", KINDS["orders"], 100).wrong > 0


def test_the_command_says_that_all_is_well(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--cases", "20", "--kind", "quote", "--kind", "orders"]) == 0
    assert capsys.readouterr().out.count("crashes 0, wrong prices 0, other wrong answers 0") == 2
