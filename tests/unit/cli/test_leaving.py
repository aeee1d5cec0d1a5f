"""How a command's process ends: with its code and all that it said, at once, but never before a thread has done its work."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from tests.one_service import path_of_code

PROGRAM = """
import sys, threading, time
from minhos_mesh.cli.leaving import leave

class Late:
    def __del__(self):
        print("taken apart")

held = Late()
print("said", end="")
print("told", end="", file=sys.stderr)
{work}
try:
    sys.exit({code})
except SystemExit as end:
    leave(end)
"""
WORK = "threading.Thread(target=lambda: (time.sleep(0.1), print(' and done'))).start()"


def ended(code: str, work: str = "") -> tuple[int, str, str]:
    program = PROGRAM.format(code=code, work=work)
    done = subprocess.run(
        [sys.executable, "-c", program], env=path_of_code(), capture_output=True, text=True, timeout=30, check=False
    )
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize(("code", "number"), [("", 0), ("None", 0), ("0", 0), ("3", 3)])
def test_a_command_ends_at_once_with_its_code_and_all_that_it_said(code: str, number: int) -> None:
    assert ended(code) == (number, "said", "told")


def test_a_message_instead_of_a_code_is_told() -> None:
    code, out, err = ended("'why'")
    assert (code, out.removesuffix("taken apart\n"), err) == (1, "said", "toldwhy\n")


def test_a_thread_that_is_at_work_is_waited_for() -> None:
    code, out, _ = ended("2", WORK)
    assert (code, out.startswith("said and done")) == (2, True)


def test_what_nobody_reads_any_more_is_no_hang(tmp_path: Path) -> None:
    program = PROGRAM.format(code="0", work="sys.stdout.write('x' * 1_000_000)")
    with Path("/dev/full").open("w", encoding="utf-8") as full:
        done = subprocess.run(
            [sys.executable, "-c", program], env=path_of_code(), stdout=full, stderr=subprocess.PIPE, text=True,
            timeout=30, check=False,
        )  # fmt: skip
    assert done.returncode != 0
    assert "No space left" in done.stderr
