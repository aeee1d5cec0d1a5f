"""Asks market data for the last price, with the betterproto client: `python examples/price_betterproto.py $(minhos ports market_data)`."""

import asyncio
import sys

from grpclib import GRPCError
from grpclib.client import Channel

from minhos_dataclasses.market.v1 import GetMarketDataRequest, MarketDataProviderServiceStub


async def main(address: str) -> None:
    host, _, port = address.rpartition(":")
    async with Channel(host, int(port)) as channel:
        answer = await MarketDataProviderServiceStub(channel).get_market_data(GetMarketDataRequest(), timeout=2)
        print(answer.symbol, (answer.quote.last_price_e9 or 0) / 1e9, answer.quote.provenance.name)


address = sys.argv[1] if len(sys.argv) > 1 else "nowhere"
try:
    asyncio.run(main(address))
except (GRPCError, OSError, OverflowError, ValueError) as error:
    sys.exit(f"no price from {address}, {str(error) or 'no answer'}: `minhos ports market_data` prints the address")
