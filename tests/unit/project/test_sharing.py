"""What tests of a folder share begins once, and ends when the folder is left."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from tests.sharing import Shared

HERE = Path("/tests/here")


def test_what_is_shared_begins_once_and_ends_with_its_folder() -> None:
    told: list[str] = []

    @contextlib.contextmanager
    def begin() -> Iterator[int]:
        told.append("begun")
        yield len(told)
        told.append("ended")

    shared = Shared(HERE, begin)
    shared.leave(Path("/tests/there/test_a.py"))
    assert told == []
    assert (shared.get(), shared.get()) == (1, 1)
    shared.leave(HERE / "test_b.py")
    assert told == ["begun"]
    shared.leave(Path("/tests/there/test_a.py"))
    assert told == ["begun", "ended"]
    assert shared.get() == 3
    shared.end()
    shared.end()
    assert told == ["begun", "ended"] * 2
