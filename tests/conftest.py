"""How examples are made for all tests, and the order in which files are run.

Examples are the same ones in every run, however slow the machine is; `scripts/test --hypothesis-profile explore` looks at new
ones.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
from hypothesis import HealthCheck, settings
from tests.sharing import leave

settings.register_profile("explore", deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True)
settings.register_profile("repeat", settings.get_profile("explore"), derandomize=True)
settings.load_profile("repeat")

RUNGS: Final = ("e2e", "faults", "contract", "unit")
"""The folders, those with the longest files first: of several workers none is left with a long file when the others are done."""
TESTS: Final = Path(__file__).parent


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[None]:
    """Looks for no garbage while everything is loaded that stays to the end, and never in that again."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()
        gc.freeze()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Puts the files of one rung together, so that a mesh that is shared by a folder ends with it."""
    items.sort(key=lambda item: _rung(item.path))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> Iterator[None]:
    """Ends what a folder shares with the last test of it, for it would only take time from the others."""
    try:
        return (yield)
    finally:
        if nextitem is not None:
            leave(item.session, nextitem.path)


def _rung(file: Path) -> int:
    (name, *_) = file.relative_to(TESTS).parts if file.is_relative_to(TESTS) else ("",)
    return RUNGS.index(name) if name in RUNGS else len(RUNGS)
