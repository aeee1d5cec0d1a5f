"""What a command that took a mesh down again says last."""

from __future__ import annotations

import pytest

from minhos_mesh.cli.run import in_short


@pytest.mark.parametrize(
    ("message", "short"),
    [
        ("one line", "one line"),
        ("it did not come up; its log ends with\n  a line\n  another", "it did not come up; its log ends with"),
        ("x cannot become HEALTHY: why\n  -> Do this.", "x cannot become HEALTHY: why\n  -> Do this."),
    ],
)
def test_what_is_said_last_holds_what_to_do_and_no_lines_of_logs(message: str, short: str) -> None:
    assert in_short(message) == short
