"""A few random and damaged messages each time; `python -m tests.fuzz.dtc` tries as many as one likes."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
from tests.fuzz import reporting
from tests.fuzz.dtc import KINDS, Campaign, main
from tests.fuzz.reporting import Report, Wrong, WrongPrice, run

from minhos_mesh.dtc import market_updates
from minhos_mesh.dtc.enums import Encoding
from minhos_mesh.dtc.prices import PriceScale, WirePrice, wire_price


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_random_and_damaged_messages_crash_nothing_and_give_no_price_that_is_not_in_them(kind: str) -> None:
    report = run(kind, Campaign(KINDS[kind]), 100)
    assert not report.failed, report.text()
    assert report.accepted > 100
    assert report.prices > 40
    assert sum(report.refused.values()) > 50
    assert set(report.refused) & {"FRAMING_LOST", "MESSAGE_MALFORMED"}


def test_the_same_seed_tries_the_same_cases() -> None:
    first, again, other = (run("json", Campaign(Encoding.JSON), 20, seed) for seed in (1, 1, 2))
    assert (first.accepted, first.refused) == (again.accepted, again.refused)
    assert (first.accepted, first.refused) != (other.accepted, other.refused)


def test_a_price_that_is_one_step_off_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def one_off(raw: float | None, scale: PriceScale, member: str) -> WirePrice | None:
        found = wire_price(raw, scale, member)
        return None if found is None else WirePrice(found.price_e9 + scale.tick_e9, found.on_grid)

    monkeypatch.setattr(market_updates, "wire_price", one_off)
    report = run("binary", Campaign(Encoding.BINARY), 30)
    assert report.wrong_prices > 0
    assert report.failed


def test_what_goes_wrong_is_counted_by_its_kind_told_and_makes_the_exit_code(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def case(_: random.Random, report: Report) -> None:
        if report.cases == 3:
            raise WrongPrice("7 stands nowhere")
        if report.cases == 5:
            raise Wrong("cut otherwise")
        if report.cases == 6:
            raise RecursionError("too deep")
        report.accepted += 1
        report.refused["UNFINISHED"] += 2

    out = tmp_path / "report.json"
    arguments = ["--cases", "9", "--seed", "4", "--json", str(out)]
    assert reporting.command("tests.fuzz.dtc", {"json": case}, arguments, cases=1) == 1
    said = capsys.readouterr().out
    assert "json: 9 cases (seed 4)" in said
    assert "accepted 6" in said
    assert "refused 12: UNFINISHED 12" in said
    assert "crashes 1, wrong prices 1, other wrong answers 1" in said
    assert "case 2: 7 stands nowhere" in said
    (kept,) = json.loads(out.read_text())
    assert (kept["crashes"], kept["wrong_prices"], kept["wrong"]) == (1, 1, 1)
    assert main(["--cases", "5", "--kind", "binary"]) == 0
