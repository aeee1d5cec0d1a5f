"""Fault points do nothing unless one is named, and then end or freeze the process at the time that was asked for."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from minhos_mesh.runtime import fault_points
from minhos_mesh.runtime.fault_points import ENVIRONMENT, POINTS, armed, reached

PROGRAM = """
from minhos_mesh.runtime.fault_points import reached
for n in range(5):
    reached("publish.before_commit")
    print(n, flush=True)
    reached("publish.after_commit")
"""


def test_without_a_name_nothing_happens() -> None:
    assert fault_points._armed is None
    for name in POINTS:
        reached(name)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("publish.after_commit", (1, signal.SIGKILL)),
        ("publish.after_commit:3", (3, signal.SIGKILL)),
        ("publish.after_commit:3:stop", (3, signal.SIGSTOP)),
    ],
)
def test_a_point_is_named_with_when_and_what(text: str, expected: tuple[int, signal.Signals]) -> None:
    found = armed(text)
    assert found is not None
    assert (found.left, found.signal) == expected


@pytest.mark.parametrize("text", ["nowhere", "publish.after_commit:x", "publish.after_commit:1:explode"])
def test_what_is_no_point_is_refused_with_the_points_there_are(text: str) -> None:
    with pytest.raises(
        ValueError, match=r"allowed is NAME\[:NTH\[:kill\|stop\]\] with a NAME of publish.before_commit"
    ):
        armed(text)


def test_a_process_dies_where_its_environment_says() -> None:
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(sys.path),
        ENVIRONMENT: "publish.after_commit:3",
    }
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True, check=False, timeout=30
    )
    assert (done.returncode, done.stdout.split()) == (-signal.SIGKILL, ["0", "1", "2"])
