from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.e2e.running_mesh import Mesh, started

ROOM = {
    "MINHOS_RISK__MAX_ORDERS_PER_MINUTE": "100000",
    "MINHOS_RISK__MAX_POSITION": "1000",
    "MINHOS_RISK__MAX_EXPOSURE": "9000000000",
    "MINHOS_RISK__MAX_DAILY_LOSS": "1000000000",
    "MINHOS_RISK__MAX_DRAWDOWN": "1000000000",
    "MINHOS_FEED__TICKS_PER_SECOND": "50",
}
"""Limits that many orders by hand do not reach."""


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mesh]:
    """A whole mesh of ten services and a keeper, up by the command of the README."""
    with started(tmp_path_factory.mktemp("faults") / "data", settings=ROOM) as made:
        yield made
