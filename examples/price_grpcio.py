"""Asks market data for the last price, with the grpcio stub: `python examples/price_grpcio.py $(minhos ports market_data)`."""

import sys

import grpc

from minhos_api.market.v1 import market_data_provider_service_pb2 as market
from minhos_api.market.v1 import provenance_pb2
from minhos_api.market.v1.market_data_provider_service_pb2_grpc import MarketDataProviderServiceStub

address = sys.argv[1] if len(sys.argv) > 1 else "nowhere"
try:
    with grpc.insecure_channel(address) as channel:
        answer = MarketDataProviderServiceStub(channel).GetMarketData(market.GetMarketDataRequest(), timeout=2)
except grpc.RpcError as error:
    sys.exit(f"no price from {address}, {error.details()}: `minhos ports market_data` prints the address")
print(answer.symbol, answer.quote.last_price_e9 / 1e9, provenance_pb2.Provenance.Name(answer.quote.provenance))
