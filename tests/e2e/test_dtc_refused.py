"""A server that takes orders and refuses the exchange's data, as a real one does: the mesh runs on the files, and says so."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.e2e.running_mesh import Mesh
from tests.e2e.test_dtc_data import SYMBOL, status
from tests.ports import free_port
from tests.waiting import until

from minhos_api.sierra.v1.sierra_client_service_pb2 import SIERRA_DTC_DATA_STATE_NOT_PERMITTED

pytestmark = pytest.mark.timeout(120)


def test_refused_market_data_do_not_keep_a_mesh_from_running(tmp_path: Path) -> None:
    port = str(free_port())
    mesh = Mesh(
        tmp_path / "data",
        {
            "MINHOS_MARKET_DATA__SYMBOLS": SYMBOL,
            "MINHOS_FEED__DTC_PORT": port,
            "MINHOS_FEED__HISTORY_HOURS": "0.1",
            "MINHOS_DTC__PORT": port,
            "MINHOS_DTC__MARKET_DATA": SYMBOL,
            "MINHOS_ENGINE__VENUE": "sierra_client",
        },
    )
    refusing = tmp_path / "refusing.toml"
    refusing.write_text('[feed]\ndtc_refused_exchanges = ["CME"]\n', encoding="utf-8")
    try:
        done = mesh.run("up", "--detach", "--config", str(refusing))
        assert done.code == 0, done.said
        assert "does not permit market data, files are read instead" in done.err
        mesh.services()
        until(lambda: [feed for feed in status(mesh).feeds if feed.records_acknowledged > 0], "ticks of the file")
        (data,) = status(mesh).dtc.market_data
        assert (data.symbol, data.state) == (SYMBOL, SIERRA_DTC_DATA_STATE_NOT_PERMITTED)
        assert "take the symbol out of dtc.market_data" in mesh.run("status").said
    finally:
        mesh.end()
