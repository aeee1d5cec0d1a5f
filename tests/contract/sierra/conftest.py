"""A Sierra client beside market data for each test, and a DTC server where one is asked for."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.contract.sierra.dtc_server import Server
from tests.contract.sierra.sierra_mesh import Mesh


@pytest.fixture
async def mesh(tmp_path: Path) -> AsyncIterator[Mesh]:
    found = Mesh(tmp_path)
    await found.start_market()
    yield found
    await found.stop_client()
    await found.stop_market()


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    made = Server(tmp_path)
    yield made
    with contextlib.suppress(AttributeError):
        await made.dtc.close()
