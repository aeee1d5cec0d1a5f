"""What the tests of one folder share: begun when the first asks for it, ended before tests of another folder are run.

A fixture of a package would be that, but folders of tests are no packages; one of the session goes on under all other tests.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Generic, TypeVar

import pytest

T = TypeVar("T")


class Shared(Generic[T]):
    """One thing for all tests below a folder."""

    def __init__(self, folder: Path, begin: Callable[[], AbstractContextManager[T]]) -> None:
        self._folder, self._begin = folder, begin
        self._here: list[T] = []
        self._running = contextlib.ExitStack()

    def get(self) -> T:
        """Begins it when it is not there."""
        if not self._here:
            self._here.append(self._running.enter_context(self._begin()))
        return self._here[0]

    def end(self) -> None:
        """Ends it when it is there."""
        self._here.clear()
        self._running.close()

    def leave(self, next_file: Path) -> None:
        """Ends it unless the next test is of its folder."""
        if not next_file.is_relative_to(self._folder):
            self.end()


_SHARED = pytest.StashKey[list[Shared[Any]]]()


@contextlib.contextmanager
def shared(
    session: pytest.Session, folder: Path, begin: Callable[[], AbstractContextManager[T]]
) -> Iterator[Shared[T]]:
    """For a fixture of the session, on which one of the module stands that gives what is shared."""
    made = Shared(folder, begin)
    session.stash.setdefault(_SHARED, []).append(made)
    try:
        yield made
    finally:
        made.end()


def leave(session: pytest.Session, next_file: Path) -> None:
    """Ends everything that is shared in folders to which the next file does not belong."""
    with contextlib.ExitStack() as all_of_them:
        for each in session.stash.get(_SHARED, []):
            all_of_them.callback(each.leave, next_file)
