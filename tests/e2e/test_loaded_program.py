"""A command forked from a loaded program does what the same command does that loads it itself."""

from __future__ import annotations

import subprocess

import pytest
from tests.e2e.running_mesh import Done, Mesh, environment

COMMANDS = [
    ("--help",),
    ("status",),
    ("frobnicate",),
    ("order", "place", "buy", "many"),
    ("logs", "no_such_service"),
    ("mode", "sometimes"),
]


@pytest.mark.parametrize("arguments", COMMANDS, ids=" ".join)
def test_a_forked_command_says_and_ends_as_a_whole_one(own: Mesh, arguments: tuple[str, ...]) -> None:
    whole = subprocess.run(
        own.command(*arguments), env=environment(), cwd=own.home(), stdin=subprocess.DEVNULL, capture_output=True, text=True,
        timeout=60, check=False,
    )  # fmt: skip
    forked = own.run(*arguments)
    assert forked == Done(whole.returncode, whole.stdout, whole.stderr)
    assert forked.said


def test_a_forked_command_has_the_environment_and_the_folder_that_it_is_given(own: Mesh) -> None:
    own.home().joinpath("prices.txt").touch()
    own.run("data", "import", "prices.txt").refused("is neither a .scid file")
    wide, narrow = own.run("frobnicate").err, own.run_as({"COLUMNS": "50"}, "frobnicate").err
    assert max(map(len, narrow.splitlines())) == 50 < max(map(len, wide.splitlines()))


def test_a_forked_command_that_takes_too_long_is_killed(mesh: Mesh) -> None:
    with pytest.raises(subprocess.TimeoutExpired):
        mesh.run("tail", "events", "--count", "1000000", timeout_s=0.5)
    assert "trading_engine" in mesh.run("status").out
