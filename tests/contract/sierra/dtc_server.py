"""A DTC server that a test makes trades at, and what a Sierra client says of it."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from tests.contract.sierra.sierra_mesh import SYMBOL, Mesh, config
from tests.waiting import eventually

from minhos_api.sierra.v1 import sierra_client_service_pb2 as pb2
from minhos_mesh.dtc.server_session import ServerSettings
from minhos_mesh.matching import Quote, Side, Trade
from minhos_mesh.runtime.clock import SystemClock
from minhos_mesh.sierra_files.layout import EPOCH_SHIFT_US, RECORD
from minhos_mesh.sierra_files.writer import ScidWriter
from minhos_mesh.sierra_simulator.dtc_exchange import SimulatedExchange
from minhos_mesh.sierra_simulator.dtc_server import DtcServer
from minhos_mesh.sierra_simulator.dtc_settings import DtcServerSettings

P, TICK = 23_500_000_000_000, 250_000_000
REAL = ServerSettings(name="SierraChart", text="Service=test")


class Server:
    """A DTC server that the test makes trades at."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.clock = folder, SystemClock()
        self.dtc: DtcServer

    async def start(self, settings: DtcServerSettings | None = None, port: int = 0) -> None:
        exchange = SimulatedExchange(replace(settings or DtcServerSettings(), port=port), [SYMBOL])
        self.dtc = DtcServer(exchange, clock=self.clock, folder=self.folder)
        await self.dtc.start()

    def trade(self, price: int, size: int) -> None:
        now = self.clock.wall_ns()
        quote = Quote(time_ns=now, bid_e9=P + (price - 1) * TICK, ask_e9=P + price * TICK, bid_size=4, ask_size=4)
        self.dtc.show(SYMBOL, quote, Trade(time_ns=now, price_e9=P + price * TICK, size=size, aggressor=Side.BUY))

    def config(self, *, data: bool = True, client: dict[str, Any] | None = None, **dtc: Any) -> Any:
        asked = {"market_data": [SYMBOL]} if data else {}
        sections: dict[str, Any] = {"dtc": {"port": self.dtc.port, **asked, **dtc}}
        if client is not None:
            sections["sierra_client"] = {"poll_s": 0.01, **client}
        return config(**sections)


def write_file(mesh: Mesh, count: int = 3) -> None:
    records = np.zeros(count, RECORD)
    records["time_us"] = EPOCH_SHIFT_US + time.time_ns() // 1000 + np.arange(count)
    records["close"] = 23_500.25
    records["num_trades"] = records["total_volume"] = records["ask_volume"] = 1
    ScidWriter.create(mesh.file, records).close()


async def status_of(mesh: Mesh) -> pb2.SierraStatus:
    answer = await mesh.stub.GetStatus(pb2.GetStatusRequest())
    assert isinstance(answer.status, pb2.SierraStatus)
    return answer.status


async def reaches(mesh: Mesh, state: int) -> pb2.SierraDtcStatus:
    async def there() -> bool:
        return (await status_of(mesh)).dtc.state == state

    await eventually(there, f"the connection is {pb2.SierraDtcState.Name(pb2.SierraDtcState.ValueType(state))}")
    return (await status_of(mesh)).dtc
