"""The form that every benchmark has."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

ROOT = Path(__file__).resolve().parents[3]
sys.path.insert(0, str(ROOT))

from tests.performance.command import NAMES  # noqa: E402 - the folder of the project comes first
from tests.performance.results import Metric, Reach, percentile  # noqa: E402 - the folder of the project comes first

BENCH = [sys.executable, str(ROOT / "tests/performance/bench.py")]


def test_the_value_is_the_median_of_the_rounds_and_the_spread_is_told() -> None:
    metric = Metric("x", "ms", [3.0, 9.0, 5.0], "raw", [2.0, 1.0, 10.0], Reach(6.0))
    assert metric.as_json() == {
        "metric": "x",
        "value": 5.0,
        "unit": "ms",
        "reference": "raw",
        "reference_value": 2.0,
        "ratio": 2.5,
        "reach": "< 6 ms",
        "met": True,
        "rounds": 3,
        "spread": [3.0, 9.0],
        "reference_spread": [1.0, 10.0],
    }
    json.dumps(metric.as_json())


def test_a_tail_is_taken_over_all_rounds() -> None:
    metric = Metric("p99", "ms", [3.0, 30.0], "raw", [1.0, 2.0], Reach(25.0), over_all=28.0, reference_over_all=2.0)
    assert (metric.value, metric.reference_value, metric.ratio, metric.met) == (28.0, 2.0, 14.0, False)


@pytest.mark.parametrize(
    ("reach", "value", "reference", "met"),
    [
        (None, 1.0, 1.0, None),
        (Reach(2.0), 2.0, None, False),
        (Reach(2.0), 1.99, None, True),
        (Reach(500.0, at_most=False), 500.0, None, True),
        (Reach(500.0, at_most=False), 499.0, None, False),
        (Reach(1.3, of_ratio=True), 1.3, 1.0, True),
        (Reach(1.3, of_ratio=True), 1.4, 1.0, False),
        (Reach(3.0, at_most=False, of_ratio=True), 9.0, 3.0, True),
        (Reach(3.0, at_most=False, of_ratio=True), 9.0, None, None),
    ],
)
def test_a_reach_is_met_or_not_or_cannot_be_told(
    reach: Reach | None, value: float, reference: float | None, met: bool | None
) -> None:
    metric = Metric("x", "s", [value], "raw", [] if reference is None else [reference], reach)
    assert metric.met is met


@given(values=st.lists(st.floats(-1e9, 1e9), min_size=1, max_size=300), share=st.sampled_from([0.5, 0.9, 0.99, 1.0]))
def test_a_percentile_is_the_smallest_value_that_the_share_does_not_exceed(values: list[float], share: float) -> None:
    found = percentile(values, share)
    assert found in values
    assert sum(value <= found for value in values) >= share * len(values) - 1e-9
    assert sum(value < found for value in values) < share * len(values)


def test_the_list_names_every_benchmark() -> None:
    listed = subprocess.run([*BENCH, "--list"], capture_output=True, text=True, check=True, timeout=30).stdout
    assert [line.split()[0] for line in listed.splitlines()] == list(NAMES)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["nothing"], "invalid choice: 'nothing'"),
        ([], "NAME is missing"),
        (["path", "--rounds", "0"], "'0': allowed is a whole number from 1 to 1000"),
        (["path", "--rounds", "many"], "'many': allowed is"),
    ],
)
def test_a_wrong_command_line_is_told_without_a_traceback(arguments: list[str], says: str) -> None:
    done = subprocess.run([*BENCH, *arguments], capture_output=True, text=True, check=False, timeout=30)
    assert done.returncode == 2
    assert says in done.stderr
    assert "Traceback" not in done.stderr
