"""What a client saw go wrong is counted from the instant at which it was made to."""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
sys.path.insert(0, str(ROOT))

from tests.performance.command import load  # noqa: E402 - the folder of the project comes first
from tests.performance.registry_rotation import Failed  # noqa: E402 - see above


def test_only_calls_that_failed_count_and_the_last_of_them_tells_the_time() -> None:
    report = {
        "by": {"steady": 90, "UNAVAILABLE: gone": 3, "DEADLINE_EXCEEDED: late": 1},
        "last": {"steady": 20.0, "UNAVAILABLE: gone": 10.004, "DEADLINE_EXCEEDED: late": 10.002},
        "ended": {"steady": 20.1, "UNAVAILABLE: gone": 10.005, "DEADLINE_EXCEEDED: late": 10.2},
    }
    failed = Failed(report, 10.0)
    assert (failed.calls, round(failed.last_start_ms), round(failed.last_end_ms)) == (4, 4, 200)
    none = Failed({"by": {"steady": 1}, "last": {"steady": 1.0}, "ended": {"steady": 1.0}}, 0.5)
    assert (none.calls, none.last_end_ms) == (0, 0.0)


def test_the_registry_can_be_measured_by_name() -> None:
    assert load("registry").rounds == 20
