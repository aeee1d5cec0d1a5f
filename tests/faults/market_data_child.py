"""Market data alone in a process, for tests that kill it."""

from __future__ import annotations

import asyncio
import sys

from minhos_mesh.history.domain.validation import Rules
from minhos_mesh.market_data.service import MarketDataService, Settings
from minhos_mesh.market_data.servicer import ERRORS, MarketDataIngestServicer, MarketDataProviderServicer
from minhos_mesh.market_data.translate import StreamEncoder
from minhos_mesh.runtime.clock import SystemClock
from minhos_mesh.runtime.conditions import Conditions
from minhos_mesh.runtime.server import MeshServer


async def main(symbol: str, port: int) -> None:
    settings = Settings({symbol: Rules(tick_e9=250_000_000)}, symbol)
    clock = SystemClock()
    service = MarketDataService(settings, clock, Conditions(), StreamEncoder(clock.monotonic))
    servicers = [MarketDataProviderServicer(service), MarketDataIngestServicer(service)]
    async with MeshServer(servicers, errors=ERRORS, port=port) as server:
        print(server.port, flush=True)
        await service.keep_house()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2])))
