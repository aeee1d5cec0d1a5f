"""`minhos tail` while what it follows is killed: it says so, goes on, and shows nothing twice."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from tests.e2e.running_mesh import Mesh, environment
from tests.waiting import until

pytestmark = pytest.mark.timeout(120)


FAULTS = {"PYTHONFAULTHANDLER": "1"}
"""A command that does not end says where it stands when it is aborted."""


@contextmanager
def ctrl_c_is_heard() -> Iterator[None]:
    """A shell lets what runs in its background ignore Ctrl-C, and so would all that such a test run starts."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


class Tail:
    """One `minhos tail WHAT --json` that runs."""

    def __init__(self, mesh: Mesh, what: str, folder: Path) -> None:
        self._out, self._err = folder / f"{what}.out", folder / f"{what}.err"
        with self._out.open("wb") as out, self._err.open("wb") as err, ctrl_c_is_heard():
            self.process = subprocess.Popen(
                mesh.command("tail", what, "--json"), env=environment(mesh.settings) | FAULTS, cwd=mesh.home(),
                stdin=subprocess.DEVNULL, stdout=out, stderr=err,
            )  # fmt: skip

    @property
    def found(self) -> list[dict[str, Any]]:
        text = self._out.read_text(encoding="utf-8")
        return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]

    @property
    def said(self) -> str:
        return self._err.read_text(encoding="utf-8")

    def shows(self, count: int) -> None:
        """Returns once there are more lines than `count`."""
        until(lambda: len(self.found) > count, f"line {count + 1}; said was: {self.said}", 40.0)

    def says(self, words: str) -> None:
        """Returns once it has said these."""
        until(lambda: words in self.said, words, 40.0)

    def end(self) -> int:
        """Ctrl-C."""
        self.process.send_signal(signal.SIGINT)
        try:
            return self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.send_signal(signal.SIGABRT)
            self.process.wait(20)
            raise AssertionError(f"it does not end; where it stands: {self.said}") from None


@contextmanager
def tails(mesh: Mesh, folder: Path, *what: str) -> Iterator[list[Tail]]:
    running = [Tail(mesh, each, folder) for each in what]
    try:
        yield running
    finally:
        for each in running:
            each.process.kill()
            each.process.wait(20)


def test_what_is_followed_goes_on_when_its_service_comes_back(mesh: Mesh, tmp_path: Path) -> None:
    with tails(mesh, tmp_path, "market", "events", "depth") as running:
        market, events, depth = running
        for each in running:
            each.shows(0)
        for service in ("market_data", "event_bus"):
            os.kill(mesh.pids()[service], signal.SIGKILL)
        for each, service in ((market, "market_data"), (events, "event_bus"), (depth, "market_data")):
            each.says(f"{service}: away, waiting for it to come back; Ctrl-C ends")
            each.says(f"{service}: back")
            each.shows(len(each.found) + 2)
        assert [each.end() for each in running] == [130, 130, 130]
    assert not any("Traceback" in each.said for each in running)
    numbers = [int(event["sequence"]) for event in events.found]
    assert all(later == earlier + 1 for earlier, later in pairwise(numbers)), "none twice, none left out"
    places = [(quote["epoch"], int(quote["sequence"])) for quote in market.found]
    assert len(set(places)) == len(places)


def test_what_is_followed_ends_with_the_mesh(mesh: Mesh, tmp_path: Path) -> None:
    with tails(mesh, tmp_path, "market") as (market,):
        market.shows(0)
        mesh.down()
        assert market.process.wait(30) == 1
        assert "no mesh runs in" in market.said
