from __future__ import annotations

import os
from pathlib import Path

import pytest
from tests.fuzz.sierra_files import KINDS, run

CASES = 400 * int(os.environ.get("MINHOS_FUZZ_TIMES", "1"))


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_random_and_mutated_files_give_what_is_in_them_or_a_named_error(kind: str, tmp_path: Path) -> None:
    report = run(kind, CASES, tmp_path)
    assert report.failures == []
    assert (report.cases, report.read + report.refused) == (CASES, CASES)
    assert report.read > 0
    assert report.refused > 0
    assert report.values > 0
    assert report.memory_grew_mb < 50
