"""A market data service of two symbols for each test."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from tests.contract.market_data.market_mesh import (
    Mesh,
    serving,
)


@pytest.fixture
async def mesh() -> AsyncIterator[Mesh]:
    async with serving() as made:
        yield made
